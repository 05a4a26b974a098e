"""Which kinds of attackers a run did not use: "no leak found" is said of those that it did."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attacker_metrics.reading.learned import STANDARD_LEARNED
from attacker_metrics.scoring.suites import STANDARD_V1, STANDARD_V2, SUITES

_WHAT = {
    "linear": "learned linear filters",
    "block": "learned maps of blocks",
    "cnn": "networks",
    "keyed": "learned keys (shuffles, pads, tables of values)",
    "spectrum": "learned filters of the picture's full size",
}


def not_tried(settings: Mapping[str, Any], refused: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Kinds of attackers, each with the reason.

    Args:
        settings: of the run, by name: ``suite``, ``learned`` and ``draws`` are looked at.
        refused: kind of a learned attacker that could not be fitted -> why.

    Example:
        >>> not_tried({"suite": "standard-v2", "learned": ["linear", "block", "keyed", "spectrum"], "draws": None})
        ['networks (not asked for by --learned)', 'averaging of draws (one draw of each picture)']
    """
    missing = []
    suite = settings.get("suite")
    if suite is None:
        missing.append(f"the further attackers of {', '.join(SUITES)} (no --suite)")
    elif suite == STANDARD_V1.name:
        missing.append(f"oracles (turned, moved, retoned, shuffled) and denoising of {STANDARD_V2.name} (--suite {suite})")
    learned = settings.get("learned") or []
    why = "not asked for by --learned" if learned else "no fit split"
    missing += [f"{_WHAT.get(kind, kind)} ({why})" for kind in STANDARD_LEARNED if kind not in {*learned, *refused}]
    missing += [f"{_WHAT.get(kind, kind)} ({kind} could not be fitted: {reason})" for kind, reason in refused.items()]
    if settings.get("draws") is None:
        missing.append("averaging of draws (one draw of each picture)")
    return missing
