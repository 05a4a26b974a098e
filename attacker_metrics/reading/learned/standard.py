"""The learned attackers by name: those of the suite ``standard-v1`` and further ones, and the scores of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from attacker_metrics.metrics.attacker_metric import NanStrategy
from attacker_metrics.reading.learned.attacker import LearnedAttacker
from attacker_metrics.reading.learned.cnn import CNNAttacker
from attacker_metrics.reading.learned.keyed import KeyedAttacker
from attacker_metrics.reading.learned.linear import LinearAttacker
from attacker_metrics.reading.learned.metrics import LearnedAttackerMetric
from attacker_metrics.reading.learned.spectrum import SpectrumAttacker
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Similarity, SquaredPearson

STANDARD_LEARNED: dict[str, Callable[[], LearnedAttacker]] = {
    "linear": LinearAttacker,
    "block": partial(LinearAttacker, kernel_size=8, stride=8),
    "cnn": CNNAttacker,
    "keyed": KeyedAttacker,
    "spectrum": SpectrumAttacker,
}
"""Kind -> what makes an attacker that is not fitted yet."""
LEARNED_OF_V1 = ("linear", "block", "cnn")
"""The kinds of ``standard-v1``, which is frozen."""


def standard_learned(
    kinds: Iterable[str] = LEARNED_OF_V1,
    *,
    betas: Sequence[float] = DEFAULT_BETAS,
    nan_strategy: NanStrategy = "warn",
) -> list[LearnedAttackerMetric]:
    """The MS-SSIM ``KIND_gray``, then the squared Pearson ``pearson_KIND``, of new attackers that their two scores share.

    Args:
        kinds: of :data:`STANDARD_LEARNED`; by default those of ``standard-v1``.
        betas: MS-SSIM's exponents, one per scale.
        nan_strategy: ``"warn"``, ``"ignore"`` or ``"error"``.

    Raises:
        ValueError: if there is no such kind.

    Example:
        >>> [metric.name for metric in standard_learned(["linear", "block"])]
        ['linear_gray', 'block_gray', 'pearson_linear', 'pearson_block']
    """
    kinds = list(kinds)
    if unknown := [kind for kind in kinds if kind not in STANDARD_LEARNED]:
        raise ValueError(f"kinds must be among {', '.join(STANDARD_LEARNED)}, got {unknown[0]!r}.")
    attackers = {kind: STANDARD_LEARNED[kind]() for kind in kinds}
    similarities: dict[str, Similarity] = {"{}_gray": MSSSIM(tuple(betas)), "pearson_{}": SquaredPearson()}
    return [
        LearnedAttackerMetric(name.format(kind), attacker, similarity, nan_strategy, kind)
        for name, similarity in similarities.items()
        for kind, attacker in attackers.items()
    ]
