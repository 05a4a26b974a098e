"""The command line: its commands, and how errors and signals become messages and exit statuses."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App

from attacker_metrics._extras import MissingExtraError, without_cli
from attacker_metrics.commands.parsing import application, parsed
from attacker_metrics.commands.streams import patient_streams
from attacker_metrics.files.terminal import printable_lines
from attacker_metrics.jobs.ending import (
    BAD_USAGE,
    BUG,
    GATE_EXCEEDED,
    INTERRUPTED,
    OK,
    SOME_FAILED,
    TERMINATED,
    Interrupted,
    Unexpected,
    UsageError,
    say,
)
from attacker_metrics.jobs.processes import AgreedError, Processes, number_of_processes

__all__ = ["BAD_USAGE", "BUG", "COMMANDS", "GATE_EXCEEDED", "INTERRUPTED", "OK", "SOME_FAILED", "TERMINATED", "main"]

TRACEBACK = "ATTACKER_METRICS_TRACEBACK"
"""The environment variable that, set to anything, shows where an error came from."""

COMMANDS = ("evaluate", "views", "compare", "selftest", "zoo", "faithfulness", "semsim", "annotate", "study")
"""The commands in the order of the help, each in a module of its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 fine, 1 some pairs failed, 2 bad usage or nothing could be written, 3 a limit was exceeded, 70 a bug of ours.

    Raises:
        SystemExit: with 2 for arguments that cannot be understood, with 0 after help and version.
    """
    with patient_streams():
        return _status(sys.argv[1:] if arguments is None else arguments)


def _status(arguments: Sequence[str]) -> int:
    command = _understood(arguments)
    try:
        status = command()
        if status is None:  # help and version
            raise SystemExit(OK)
    except (UsageError, MissingExtraError, OSError) as error:
        _trace()
        say(error)
        return BAD_USAGE
    except Interrupted as interrupted:
        if str(interrupted):
            say(interrupted)
        return interrupted.status
    except KeyboardInterrupt:
        say("interrupted; nothing was written.")
        return INTERRUPTED
    except Exception as error:
        _trace()
        left = str(error) if isinstance(error, Unexpected) else ""
        return _unexpected(error.__cause__ or error if left else error, left)
    return int(status)


def _unexpected(error: BaseException, left: str) -> int:
    """Tell of an error that nobody has thought of, and what it left behind."""
    if isinstance(error, ModuleNotFoundError) and (message := without_cli(error)) is not None:
        say(f"{message} {left}".rstrip())
        return BAD_USAGE
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)):
        say(f"out of memory: {error or 'pass a smaller --batch-size'} {left}".rstrip())
        return BAD_USAGE
    say(
        f"this is a bug, nothing was lost: {type(error).__name__}: {error}\n{left + ' ' if left else ''}Please report it"
        f" with the command and what {TRACEBACK}=1 in the environment shows."
    )
    return BUG


def _trace() -> None:
    if os.environ.get(TRACEBACK):
        print(printable_lines(traceback.format_exc()), file=sys.stderr, flush=True)


def _understood(arguments: Sequence[str]) -> Callable[[], Any]:
    """What the arguments ask for; if those of any process cannot be understood, all learn of it, and the first one tells."""
    try:
        return parsed(_application(arguments[0] if arguments else ""), arguments)
    except UsageError as error:
        if number_of_processes() == 1:
            say(error)
            raise SystemExit(BAD_USAGE) from error
        mistake = error
    processes = Processes()
    try:
        processes.agree("prepare", lambda: _refuse(mistake), UsageError)
    except AgreedError as error:
        if processes.is_first:
            say(error)
    processes.leave()
    raise SystemExit(BAD_USAGE)


def _application(command: str) -> App:
    """The program with the command, or with all if there is none of that name: options take time to make."""
    app = application("attacker-metrics", "How much of a hidden picture can still be read out of what was sent.")
    for name in (command,) if command in COMMANDS else COMMANDS:
        importlib.import_module(f"attacker_metrics.commands.{name}").add(app)
    return app


def _refuse(mistake: UsageError) -> None:
    raise mistake
