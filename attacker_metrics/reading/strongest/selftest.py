"""Obfuscations of which the answer is known, on the built-in photographs: what ``attacker-metrics selftest`` shows."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from attacker_metrics.files import built_in
from attacker_metrics.reading.strongest.assessment import Assessment
from attacker_metrics.reading.strongest.known_leaks import (
    RATE,
    UNRELATED,
    evaluate_known_cases,
    is_called_leaking,
    known_cases,
)
from attacker_metrics.reading.strongest.null import TIE_RULE
from attacker_metrics.scoring.suites import STANDARD_V1

_FIT = ("coffee",)
PASSED, FAILED = 0, 1


def selftest(*, cnn: bool = False, as_json: bool = False, suite: str = STANDARD_V1.name) -> int:
    """Evaluate every known case, print the matrix of obfuscations and attackers, and return the exit status.

    Args:
        cnn: whether to fit a small residual network to every case too.
        as_json: whether to print the matrix as JSON.
        suite: whose attackers; ``"standard-v2"`` is asked about turned and moved pictures, too.
    """
    photographs = {name: built_in.photograph(name) for name in built_in.names()}
    learned = ("linear", "block", *(["cnn"] if cnn else []))
    found = evaluate_known_cases(photographs, _FIT, learned=learned, suite=suite)
    expected = {**{case.name: case.leaks for case in known_cases(suite)}, UNRELATED: False}
    verdicts = {name: is_called_leaking(assessment) for name, assessment in found.items()}
    wrong = [name for name, leaks in verdicts.items() if leaks != expected[name]]
    if as_json:
        print(json.dumps(_summary(found, expected, verdicts), indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(_table(found, expected, verdicts))
        count = len(next(iter(found.values())).ids)
        console.print(
            f"Each number: per cent of {count} crops that an attacker reads better than {1 - RATE:.0%} of unrelated ones.",
            highlight=False,
        )
    if wrong:
        print(f"attacker-metrics: selftest failed: wrong verdict on {', '.join(wrong)}.", file=sys.stderr)
    return FAILED if wrong else PASSED


def _table(found: dict[str, Assessment], expected: dict[str, bool], verdicts: dict[str, bool]) -> Table:
    table = Table(title="Known obfuscations and who reads them", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("attacker", no_wrap=True)
    for name in found:
        table.add_column("\n".join(name.split()), justify="right", no_wrap=True)
    for attacker in next(iter(found.values())).scores:
        table.add_row(attacker, *(f"{_rate(one, attacker):.0f}" for one in found.values()))
    table.add_section()
    table.add_row("strongest", *(f"{_rate(one, None):.0f}" for one in found.values()), style="bold")
    table.add_row("leak", *("found" if verdicts[name] else "none" for name in found), style="bold")
    table.add_row("right", *("yes" if verdicts[name] == expected[name] else "NO" for name in found), style="bold")
    return table


def _summary(found: dict[str, Assessment], expected: dict[str, bool], verdicts: dict[str, bool]) -> dict[str, Any]:
    return {
        name: {
            "expected_to_leak": expected[name],
            "called_leaking": verdicts[name],
            "images": len(one.ids),
            "comparisons": one.null.count,
            "false_positive_rate": RATE,
            "realised_false_positive_rate": one.null.realised(RATE),
            "tie_rule": TIE_RULE,
            "success": {"strongest": _rate(one, None) / 100}
            | {attacker: _rate(one, attacker) / 100 for attacker in one.scores},
            "winners": _winners(one),
        }
        for name, one in found.items()
    }


def _winners(found: Assessment) -> dict[str, int]:
    names, counts = np.unique(found.strongest.winner, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[i]): int(counts[i]) for i in order}


def _rate(found: Assessment, attacker: str | None) -> float:
    return 100 * float(found.success(RATE, attacker=attacker)[found.strongest.scored].mean())
