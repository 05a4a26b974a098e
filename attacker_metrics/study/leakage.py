"""Scores and votes -> how much each classifier leaks under each attack: means and recognition rates with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attacker_metrics.faithfulness import Annotations, Scores
from attacker_metrics.metrics.leakage_direction import METRIC_FACTS
from attacker_metrics.statistics import Estimate, Rate, mean_interval, success_rate
from attacker_metrics.study.config import ALL
from attacker_metrics.study.files import Cell


@dataclass(frozen=True)
class LeakageRow:
    """A classifier under one attack, or under all of them.

    Args:
        model: name of the model.
        defence: name of the defence.
        attack: title of the attack, or :data:`ALL`.
        images: how many reconstructions.
        metrics: metric -> mean with its 95 % interval; whole originals are resampled where several reconstructions are of
            one. None where no score is a number; infinite, as the PSNR of an identical picture, where one is.
        recognized: how many were recognised by most of those who were asked; None if nobody was.
    """

    model: str
    defence: str
    attack: str
    images: int
    metrics: dict[str, Estimate | None]
    recognized: Rate | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a number that does not exist is None."""
        rate = self.recognized
        return {
            "model": self.model,
            "defence": self.defence,
            "attack": self.attack,
            "images": self.images,
            "recognized": None
            if rate is None
            else {"count": rate.successes, "asked": rate.n, "rate": rate.rate, "low": rate.low, "high": rate.high},
            "metrics": {
                name: None if found is None else {key: _finite(value) for key, value in found._asdict().items()}
                for name, found in self.metrics.items()
            },
        }


def leakage(cells: Sequence[Cell], scores: Scores, annotations: Annotations) -> list[LeakageRow]:
    """A row per classifier and attack, and one per classifier over all attacks where there are several.

    Args:
        cells: the study's design, in the order of the table.
        scores: of every reconstruction, whose path begins with its cell's folder.
        annotations: votes; reconstructions that are not in there count as not asked.
    """
    ids = np.asarray(scores.ids)
    folders = np.asarray([name.rpartition("/")[0] for name in scores.ids])
    voted = dict(zip(np.asarray(annotations.reconstruction).tolist(), annotations.recognized().tolist(), strict=True))
    seen = np.asarray([voted.get(name, np.nan) for name in scores.ids])
    images = np.asarray([name.rpartition("/")[2] for name in ids.tolist()])
    rows = []
    classifiers = list(dict.fromkeys((cell.model, cell.defence) for cell in cells))
    for model, defence in classifiers:
        mine = [cell for cell in cells if (cell.model, cell.defence) == (model, defence)]
        parts = [(cell.attack, folders == cell.folder) for cell in mine]
        if len(parts) > 1:
            parts.append((ALL, np.isin(folders, [cell.folder for cell in mine])))
        for attack, mask in parts:
            columns = {name: np.asarray(column)[mask] for name, column in scores.columns.items()}
            means = {name: _mean(name, column, images[mask]) for name, column in columns.items()}
            asked = mask & ~np.isnan(seen)
            rate = success_rate(seen[asked] == 1, images[asked]) if asked.any() else None
            rows.append(LeakageRow(model, defence, attack, int(mask.sum()), means, rate))
    return rows


def _mean(name: str, column: Any, groups: Any) -> Estimate | None:
    there = ~np.isnan(column)
    if not there.any():
        return None
    if np.isinf(column[there]).any():  # left out, a picture that leaked whole would not count
        return Estimate(float(column[there].mean()), np.nan, np.nan)
    bounds = METRIC_FACTS[name].lowest, METRIC_FACTS[name].highest
    # Rounding may leave the bounds by an epsilon.
    return mean_interval(np.clip(column[there], *bounds), groups[there], bounds=bounds)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
