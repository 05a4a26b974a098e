"""What each metric's numbers mean: range, whether higher means more leakage, expected input, per image or per set.

This table is the only place that states it; reports, tests of faithfulness and the quality collection read it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from attacker_metrics.scoring.components import MEANS, MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES
from attacker_metrics.scoring.suites import SUITES

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class MetricFacts:
    """What one metric's number means.

    Args:
        name: the key under which the metric is reported.
        lowest: smallest value it can take.
        highest: largest value it can take, ``inf`` if there is none.
        leakage_direction: ``"higher"`` if a higher value means that more of the original leaks, ``"lower"`` otherwise.
        scaling: how the metric wants its images; :class:`attacker_metrics.quality.ReconstructionQuality` takes [0, 1] and
            converts.
        level: ``"image"`` if every image has a value of its own, ``"set"`` if only a whole set of images has one.
    """

    name: str
    lowest: float
    highest: float
    leakage_direction: Direction
    scaling: str
    level: Literal["image", "set"] = "image"


_ATTACKERS = (
    *MS_SSIM_COMPONENT_NAMES,
    *PEARSON_COMPONENT_NAMES,
    *MEANS,
    *(name for suite in SUITES.values() for name in (*suite.added, *suite.learned)),
)
_INFINITE = float("inf")
_UNIT = "floats in [0, 1]"

METRIC_FACTS: dict[str, MetricFacts] = {
    facts.name: facts
    for facts in (
        MetricFacts("mse", 0.0, 1.0, "lower", _UNIT),
        MetricFacts("psnr", 0.0, _INFINITE, "higher", _UNIT + "; identical images are infinite"),
        MetricFacts("ssim", -1.0, 1.0, "higher", _UNIT),
        MetricFacts("lpips", 0.0, _INFINITE, "lower", "floats in [-1, 1]; normalize=True takes [0, 1]"),
        MetricFacts("fid", 0.0, _INFINITE, "lower", "uint8; normalize=True takes floats in [0, 1]", "set"),
        MetricFacts("semsim", 0.0, 2.0, "lower", _UNIT + ", then the preprocessing of the checkpoint"),
        MetricFacts("semsim_similarity", -1.0, 1.0, "higher", _UNIT + ", then the preprocessing of the checkpoint"),
        *(MetricFacts(name, 0.0, 1.0, "higher", _UNIT + "; the reconstruction may leave it") for name in _ATTACKERS),
    )
}
"""Name of a metric -> what its number means."""


def leakage_direction(metric: Any) -> Direction:
    """Whether a higher or a lower value of a metric means that more of the original leaks.

    It is the metric's declaration: the attribute ``leakage_direction`` of an object, the table :data:`METRIC_FACTS` for a
    name. It is never guessed from a name that only looks familiar or from ``higher_is_better``, which speaks of picture
    quality in most libraries and of privacy in this one.

    Args:
        metric: a metric object with an attribute ``leakage_direction``, or a name.

    Raises:
        ValueError: if nothing declares the direction, or the declaration is neither ``"higher"`` nor ``"lower"``.

    Example:
        >>> leakage_direction("psnr"), leakage_direction("lpips"), leakage_direction("sobel_gray")
        ('higher', 'lower', 'higher')
    """
    if isinstance(metric, str):
        if metric not in METRIC_FACTS:
            raise ValueError(
                f"nothing declares whether a higher {metric!r} means more leakage; say so with --direction"
                f" {metric}=higher or {metric}=lower (in Python: directions={{{metric!r}: 'lower'}}). Declared are"
                f" {', '.join(name for name in METRIC_FACTS if name not in _ATTACKERS)}, and every score of this library's"
                " attackers."
            )
        return METRIC_FACTS[metric].leakage_direction
    direction = getattr(metric, "leakage_direction", None)
    if direction == "higher" or direction == "lower":
        return direction  # type: ignore[no-any-return]
    raise ValueError(
        f"{type(metric).__name__} declares leakage_direction={direction!r}; set the attribute to 'higher' (a higher value"
        " means more leakage) or 'lower'."
    )
