"""The command line: its parser, and how errors and signals become messages and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from attacker_metrics._extras import MissingExtraError
from attacker_metrics._version import __version__
from attacker_metrics.commands import annotate, compare, evaluate, faithfulness, semsim, study, views, zoo
from attacker_metrics.commands.options import (
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
from attacker_metrics.commands.streams import patient_streams
from attacker_metrics.files.terminal import printable_lines
from attacker_metrics.jobs.processes import AgreedError, Processes, number_of_processes
from attacker_metrics.reading.strongest import selftest

__all__ = ["BAD_USAGE", "BUG", "COMMANDS", "GATE_EXCEEDED", "INTERRUPTED", "OK", "SOME_FAILED", "TERMINATED", "main"]

COMMANDS = (evaluate, views, compare, selftest, zoo, faithfulness, semsim, annotate, study)
"""The modules of the sub-commands, in the order of the help."""


TRACEBACK = "ATTACKER_METRICS_TRACEBACK"
"""The environment variable that, set to anything, shows where an error came from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 fine, 1 some pairs failed, 2 bad usage or nothing could be written, 3 a limit was exceeded, 70 a bug of ours.
    """
    with patient_streams():
        return _status(arguments)


def _status(arguments: Sequence[str] | None) -> int:
    options = _parsed(arguments) if number_of_processes() == 1 else _parsed_together(arguments)
    try:
        status: int = options.command(options)
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
    return status


def _unexpected(error: BaseException, left: str) -> int:
    """Tell of an error that nobody has thought of, and what it left behind."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
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


class _Parser(argparse.ArgumentParser):
    """A parser whose messages show what the user typed without letting it command the terminal."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable_lines(message), file)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="attacker-metrics", description="How much of a hidden picture can still be read out of what was sent."
    )
    parser.add_argument("--version", action="version", version=f"attacker-metrics {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser.parse_args(arguments)


def _parsed_together(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; if those of any process are wrong, all learn of it, and the first one tells."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return _parsed(arguments)
    except SystemExit as stop:
        if stop.code != OK:  # as it is after --help
            processes = Processes()
            try:
                processes.agree("prepare", lambda: _refuse(shown.getvalue().rstrip()), UsageError)
            except AgreedError as error:
                if processes.is_first:
                    print(error, file=sys.stderr, flush=True)
            processes.leave()
        raise


def _refuse(message: str) -> None:
    raise UsageError(message)
