"""What a run's outputs say about the fit: which pairs it was on, and what became of every learned attacker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from attacker_metrics.evaluation.fitting import FAILURE, Fit
from attacker_metrics.files.writing import marked
from attacker_metrics.reading.learned import LearnedAttacker

FIT_PAIRS = "fit_pairs.parquet"


@dataclass(frozen=True)
class Learned:
    """The learned attackers of a run.

    Args:
        fit: of the run.
        attackers: kind -> fitted attacker; those that could not be fitted are named by the fit.
        split: what decided which pairs are for fitting.
    """

    fit: Fit
    attackers: Mapping[str, LearnedAttacker]
    split: str

    def as_json(self) -> dict[str, Any]:
        """What ``summary.json`` holds under ``learned``; the pairs' names are in ``fit_pairs.parquet``."""
        failed = self.fit.rows.filter(self.fit.rows[FAILURE].is_valid())
        return {
            "split": self.split,
            "pairs": len(self.fit.rows),
            "failed": dict(zip(failed["id"].to_pylist(), failed[FAILURE].to_pylist(), strict=True)),
            "digest": self.fit.digest,
            "attackers": {
                kind: {
                    "attacker": repr(attacker),
                    "pairs": attacker.fit_count,
                    "converged": getattr(attacker, "converged", True),
                }
                for kind, attacker in self.attackers.items()
            },
            "refused": dict(self.fit.refused),
        }

    def write(self, stage: Path) -> None:
        """Write the rows of the fit split, with the reason where a pair could not be learned from."""
        pq.write_table(marked(self.fit.rows), stage / FIT_PAIRS)


def in_words(learned: Mapping[str, Any]) -> str:
    """A sentence about the fit.

    Args:
        learned: what :meth:`Learned.as_json` returned.
    """
    kinds = [
        f"{kind} ({found['pairs']} pairs{'' if found['converged'] else ', not converged'})"
        for kind, found in learned["attackers"].items()
    ]
    sentence = (
        f"Learned attackers were fitted on {learned['pairs']} pairs ({learned['split']}; named in {FIT_PAIRS}), of which"
        f" none is scored: {', '.join(kinds) or 'none could be'}."
    )
    if refused := learned.get("refused"):
        sentence += f" Not fitted: {', '.join(refused)} (see what was not tried)."
    if learned["failed"]:
        sentence += f" {len(learned['failed'])} of these pairs could not be learned from, or not by all."
    return sentence
