"""What a run shows on the terminal: the table and its reading, where the time went."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from attacker_metrics.files.run_files import REPORT
from attacker_metrics.files.terminal import printable
from attacker_metrics.report import outputs as report


def show(summary: dict[str, Any], output: Path, *, as_json: bool) -> None:
    """Print the outcome: failures and exceeded limits to the error stream, table, reading and speed to the other."""
    errors = Console(stderr=True)
    for pair, reason in summary["failed_pairs"].items():
        errors.print(
            f"failed: {printable(pair)}: {printable(reason)}", style="red", markup=False, highlight=False, soft_wrap=True
        )
    if as_json:
        print(report.as_json(summary), end="")
    else:
        terminal = Console(width=None if sys.stdout.isatty() else 130)
        terminal.print(report.as_table(summary))
        if summary["null"] is not None and summary["null"]["anchors"]:
            terminal.print(report.as_calibrated_table(summary))
        for flag in summary["flags"]:
            terminal.print(f"! {printable(flag['message'])}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        for sentence in [*summary["readings"], _speed(summary["throughput"])]:
            terminal.print(f"- {printable(sentence)}", markup=False, highlight=False, soft_wrap=True)
        terminal.print(f"\nreport: {printable(output / REPORT)}", markup=False, highlight=False, soft_wrap=True)
    for gate in summary["gates"]:
        if gate["exceeded"]:
            value = "no score to judge by" if gate["value"] is None else f"{gate['value']:.6g}"
            reason = f"; it cannot be judged: {printable(gate['unsupported'])}" if gate["unsupported"] else ""
            pairs = gate["pairs_above"]
            named = ", ".join(map(printable, pairs[:10])) + (
                f" and {len(pairs) - 10} more (see summary.json)" if len(pairs) > 10 else ""
            )
            errors.print(
                f"limit exceeded: {gate['component']} {gate['statistic']} is {value}, limit {gate['limit']:g};"
                f" images above it: {named or 'none'}{reason}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _speed(speed: dict[str, Any]) -> str:
    """Where the time went, in words."""
    rate = f"{speed['pairs']} pairs in {speed['seconds']:.1f} s"
    if speed["pairs_per_second"] is not None:
        rate += f", {speed['pairs_per_second']:.1f} per second"
    if speed["pairs_resumed"]:
        rate += f" ({speed['pairs_resumed']} were done before)"
    processes = "1 process" if speed["processes"] == 1 else f"{speed['processes']} processes"
    return (
        f"{rate}, by {processes} with {speed['workers']} loading threads each. Seconds over all processes: computing"
        f" {speed['compute_seconds']:.1f}, waiting for pairs {speed['wait_seconds']:.1f}; over all loading threads: reading"
        f" {speed['read_seconds']:.1f}, decoding {speed['decode_seconds']:.1f}."
    )
