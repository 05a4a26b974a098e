"""The command line: its parser, and how errors and signals become messages and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence

import attacker_metrics
from attacker_metrics.comparison import cli as compare
from attacker_metrics.evaluation.commands import annotate, evaluate, faithfulness, semsim, study, views, zoo
from attacker_metrics.evaluation.commands.options import (
    BAD_USAGE,
    GATE_EXCEEDED,
    INTERRUPTED,
    OK,
    SOME_FAILED,
    TERMINATED,
    Interrupted,
    UsageError,
    say,
)
from attacker_metrics.evaluation.processes import AgreedError, Processes, number_of_processes
from attacker_metrics.strongest import selftest

__all__ = ["BAD_USAGE", "COMMANDS", "GATE_EXCEEDED", "INTERRUPTED", "OK", "SOME_FAILED", "TERMINATED", "main"]

COMMANDS = (evaluate, views, compare, selftest, zoo, faithfulness, semsim, annotate, study)
"""The modules of the sub-commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 fine, 1 some pairs failed, 2 bad usage, 3 a limit was exceeded."""
    options = _parsed(arguments) if number_of_processes() == 1 else _parsed_together(arguments)
    try:
        status: int = options.command(options)
    except (UsageError, OSError) as error:
        say(error)
        return BAD_USAGE
    except Interrupted as interrupted:
        if str(interrupted):
            say(interrupted)
        return interrupted.status
    except KeyboardInterrupt:
        say("interrupted; nothing was written.")
        return INTERRUPTED
    return status


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="attacker-metrics", description="How much of a hidden picture can still be read out of what was sent."
    )
    parser.add_argument("--version", action="version", version=f"attacker-metrics {attacker_metrics.__version__}")
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
