"""How a command ends: exit statuses, and the errors that stand for them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from attacker_metrics.files.terminal import printable_lines

OK, SOME_FAILED, BAD_USAGE, GATE_EXCEEDED, BUG, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 70, 130, 143


class UsageError(ValueError):
    """A user's mistake: one message, no traceback, exit status 2."""


class Unexpected(Exception):  # noqa: N818
    """A mistake of this program's own, its cause; the message says what is left behind."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM: one message, no traceback.

    Args:
        message: what was left behind; empty if another process says so.
        status: the exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def say(message: object) -> None:
    """Tell the user of an error."""
    print(f"attacker-metrics: {printable_lines(message)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def bad_usage(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors that a user's input causes into :class:`UsageError`."""
    try:
        yield
    except errors as error:
        raise UsageError(str(error)) from error
