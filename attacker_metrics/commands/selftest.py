"""``attacker-metrics selftest``: known leaks are caught, and what is safe is not called a leak."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import App, Parameter

from attacker_metrics._names import SuiteName
from attacker_metrics._options import flag, option
from attacker_metrics.commands.parsing import add_command


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SelftestOptions:
    """What ``selftest`` is asked for."""

    cnn: Annotated[bool, flag("add a small residual network, fitted for every case: ten minutes")] = False
    suite: Annotated[SuiteName, option("whose attackers; standard-v2 is asked about turned and moved pictures, too")] = (
        "standard-v1"
    )
    json: Annotated[bool, flag("print the matrix as JSON instead of the table")] = False


_DEFAULTS = SelftestOptions()


def add(app: App) -> None:
    """Add the command."""
    add_command(app, selftest, "Exit status: 0 every verdict is right, 1 one is wrong, 2 bad usage.")


def selftest(options: SelftestOptions = _DEFAULTS) -> int:
    """Check on built-in photographs that known leaks are caught.

    Obfuscates crops of the built-in photographs in ways of which it is known whether they leak, and lets the attackers of
    a suite and learned linear filters have a go. Takes about half a minute, by standard-v2 nine.
    """
    from attacker_metrics.reading.strongest import selftest as library

    return library.selftest(cnn=options.cnn, as_json=options.json, suite=options.suite)
