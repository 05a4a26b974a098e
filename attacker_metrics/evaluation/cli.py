"""The command line: its parser, and how errors and signals become messages and exit statuses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import attacker_metrics
from attacker_metrics.comparison import cli as compare
from attacker_metrics.evaluation.commands import evaluate, views
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
from attacker_metrics.strongest import selftest

__all__ = ["BAD_USAGE", "COMMANDS", "GATE_EXCEEDED", "INTERRUPTED", "OK", "SOME_FAILED", "TERMINATED", "main"]

COMMANDS = (evaluate, views, compare, selftest)
"""The modules of the sub-commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 fine, 1 some pairs failed, 2 bad usage, 3 a limit was exceeded."""
    options = _parsed(arguments)
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
