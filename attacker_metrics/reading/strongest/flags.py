"""What a reader of a report must be told although no single number says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics.reading.kinds import Kind, family_of, kinds, names
from attacker_metrics.reading.learned.attacker import LearnedAttacker
from attacker_metrics.reading.strongest.content import Shared
from attacker_metrics.reading.strongest.null import ScoresByName
from attacker_metrics.reading.strongest.surprise import Floats

COLLAPSED, HIGH_PEARSON, LOW_MS_SSIM, NOTICEABLE, CLIPPED = 0.05, 0.5, 0.05, 0.05, 0.01
SAME, ALIKE = 0.005, 0.9
"""Where the flags begin; see :func:`flags`."""
FILTERS = ("blur", "wavelet", "median", "unsharp", "wiener", "jpeg")
"""Attackers that filter the picture, by the names in components' ``attacker``."""


@dataclass(frozen=True)
class Flag:
    """One warning about a set of images.

    Args:
        name: which one.
        value: the number that raised it.
        message: a sentence for the reader.
    """

    name: str
    value: float
    message: str


def flags(
    scores: ScoresByName,
    *,
    draws: Mapping[str, Floats] | None = None,
    averaged: ScoresByName | None = None,
    random: Sequence[float] | None = None,
    clipped: Sequence[float] | None = None,
    learned: Mapping[str, LearnedAttacker] | None = None,
    rates: Sequence[float] = (0.01, 0.001),
    null_count: int | None = None,
    shared: Sequence[Shared] = (),
    alike: int = 0,
) -> list[Flag]:
    """Look for what makes the scores of a run misleading.

    Args:
        scores: component -> the score of every image, under the names of ``standard-v1``; images without a score (NaN)
            count for nothing.
        draws: component -> scores ``(K, n)`` of K draws of a random obfuscation of the same images.
        averaged: component -> the score of the mean of several draws, of every image, where ``scores`` are of a single draw.
        random: of every image the share of the draws' squared error that varies from draw to draw; 0 if they are identical.
        clipped: the share of clipped values of every noisy image; see :func:`clipped_share`.
        learned: name -> fitted attacker.
        rates: the false-positive rates that are to be claimed.
        null_count: number of comparisons with unrelated originals by which success was calibrated.
        shared: what the originals of each of these comparisons have in common.
        alike: how many of the comparisons attackers take for related; see :attr:`NullDistribution.outliers`.

    Returns:
        The flags that are raised, in this order: ``collapsed`` (an MS-SSIM is exactly 0 in 5 % of the images or more),
        ``structure`` (r^2 above 0.5 where the MS-SSIM of the same views is below 0.05, in 5 % or more), ``filter`` (a
        filter's mean score is by 0.05 or more above that of looking at the picture), ``draws`` (a standard deviation over
        draws of 0.05 or more), ``averaging`` (the draws differ, and of their mean an attacker reads by 0.05 or more beyond a
        single one), ``same_draws`` (all draws of an image are identical, in 5 % or more), ``clipped`` (1 % of the
        values or more), ``not_converged``, ``shared_content`` (half of the comparisons are the same in 0.5 % of the
        pixels or more), ``alike`` (a squared correlation of 0.9 or more of two originals of different groups, or a
        comparison that attackers take for related) and ``too_few``.

    Example:
        >>> import numpy as np
        >>> raised = flags({"rgb_clamp": np.zeros(3000), "pearson_rgb": np.ones(3000)}, null_count=200)
        >>> [flag.name for flag in raised]
        ['collapsed', 'structure', 'too_few']
    """
    has_score = {name: values[~np.isnan(values)] for name, values in scores.items()}
    raised = [*_collapsed(has_score), *_structure(scores), *_filters(scores)]
    if draws:
        spread = {name: _mean(np.std(values, axis=0)) for name, values in draws.items()}
        name = max(spread, key=lambda key: spread[key])
        if spread[name] >= NOTICEABLE:
            message = (
                f"{name} varies by {spread[name]:.2f} (standard deviation) over draws of the same image: use more draws."
            )
            raised.append(Flag("draws", spread[name], message))
    raised += _averaging(scores, averaged or {}, np.asarray(random if random is not None else [], dtype=np.float64))
    if clipped is not None and len(clipped) and float(np.mean(clipped)) >= CLIPPED:
        share = float(np.mean(clipped))
        message = f"{share:.0%} of the noisy values are clipped, or would be in a file: evaluate what is sent, as tensors."
        raised.append(Flag("clipped", share, message))
    for name, attacker in (learned or {}).items():
        if getattr(attacker, "converged", True) is False:
            message = f"{name} had not converged when its budget ended: its scores understate what can be learned."
            raised.append(Flag("not_converged", 1.0, message))
    raised += [*_shared(shared), *_alike(shared, alike)]
    count = min(map(len, has_score.values()), default=0)
    return [*raised, *_too_few(count, rates, null_count)]


def clipped_share(noisy: Tensor) -> list[float]:
    """The share of values of every image ``(B, C, H, W)`` that lie at 0 or 1, or beyond.

    Example:
        >>> import torch
        >>> clipped_share(torch.tensor([[[[0.0, 0.5, 0.7, 1.2]]]]))
        [0.5]
    """
    clipped = ((noisy <= 0) | (noisy >= 1)).flatten(1)
    shares: list[float] = (clipped.count_nonzero(dim=1).double() / clipped.shape[1]).tolist()
    return shares


def images_needed(rate: float) -> int:
    """How many images must all be safe before a success rate below ``rate`` may be claimed at 95 % confidence.

    Raises:
        ValueError: for a rate that does not lie between 0 and 1.

    Example:
        >>> images_needed(0.01)
        299
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie between 0 and 1, got {rate!r}.")
    return int(np.ceil(np.log(0.05) / np.log1p(-rate)))


def _collapsed(scores: ScoresByName) -> list[Flag]:
    # The negative of any readable picture collapses: only where other attackers do is it news.
    chosen = [name for name in scores if family_of(name) != "pearson" and name != "invert_gray"]
    shares = {name: _share(scores[name] == 0) for name in chosen}
    raised = {name: share for name, share in shares.items() if share >= COLLAPSED}
    if not raised:
        return []
    name = max(raised, key=lambda key: raised[key])
    message = (
        f"{len(raised)} MS-SSIM components are exactly 0 for many images, {name} for {raised[name]:.0%}: a structure term"
        " was not positive, as in a negative. That 0 does not mean safe; read the squared Pearsons."
    )
    return [Flag("collapsed", raised[name], message)]


def _structure(scores: ScoresByName) -> list[Flag]:
    shares = {}
    for name, pearson in scores.items():
        kind = kinds().get(name)
        partner = None if kind is None or kind.family != "pearson" else names().get(Kind("ms_ssim", kind.attacker))
        if partner is not None and partner in scores:
            both = ~np.isnan(pearson) & ~np.isnan(scores[partner])
            shares[partner] = _share(((pearson > HIGH_PEARSON) & (scores[partner] < LOW_MS_SSIM))[both])
    raised = {name: share for name, share in shares.items() if share >= COLLAPSED}
    if not raised:
        return []
    name = max(raised, key=lambda key: raised[key])
    message = (
        f"for {raised[name]:.0%} of the images {name} is near 0 while the same views correlate (r^2 above {HIGH_PEARSON}):"
        " the picture is there, in another contrast or sign."
    )
    return [Flag("structure", raised[name], message)]


def _filters(scores: ScoresByName) -> list[Flag]:
    gains = {}
    for control in ("gray_clamp", "pearson_gray"):
        for word in FILTERS:
            name = names()[Kind(kinds()[control].family, word)]
            if name in scores and control in scores:
                gains[name, control] = _mean(scores[name] - scores[control])
    if not gains:
        return []
    (name, control), gain = max(gains.items(), key=lambda item: item[1])
    if gain < NOTICEABLE:
        return []
    message = f"{name} is on average {gain:.2f} above {control}: a simple filter removes part of the protection."
    return [Flag("filter", gain, message)]


def _averaging(scores: ScoresByName, averaged: ScoresByName, random: Floats) -> list[Flag]:
    raised = []
    gains = {name: _mean(values - scores[name]) for name, values in averaged.items() if name in scores}
    name = max(gains, key=lambda key: gains[key], default="")
    if name and gains[name] >= NOTICEABLE and (random > 0).any():
        message = (
            f"{np.mean(random):.0%} of the squared error varies from draw to draw, and {name} reads {gains[name]:.2f} more"
            " of the mean of the draws than of one: judge by the mean, as whoever receives several draws will."
        )
        raised.append(Flag("averaging", gains[name], message))
    identical = _share(random == 0)
    if identical >= COLLAPSED:
        message = (
            f"for {identical:.0%} of the images all draws are identical: averaging had nothing to do there. The obfuscation"
            " is not random, or one file was listed several times."
        )
        raised.append(Flag("same_draws", identical, message))
    return raised


def _shared(shared: Sequence[Shared]) -> list[Flag]:
    same = float(np.median([one.same for one in shared])) if shared else 0.0
    if same < SAME:
        return []
    message = (
        f"unrelated originals are the same in {same:.1%} of their pixels, as under a common frame, logo or letterbox: who"
        " reads that part reads nothing of the picture. Success is measured against such originals and is not inflated;"
        " means are. Crop it away, or read success only."
    )
    return [Flag("shared_content", same, message)]


def _alike(shared: Sequence[Shared], outliers: int) -> list[Flag]:
    count = max(sum(one.likeness >= ALIKE for one in shared), outliers)
    if not count:
        return []
    message = (
        f"{count} comparisons of different groups are of originals that look alike: near duplicates, or wrong groups."
        " What belongs to one source must be one group, or success and its interval are wrong."
    )
    return [Flag("alike", float(count), message)]


def _too_few(count: int, rates: Sequence[float], null_count: int | None) -> list[Flag]:
    raised = []
    for rate in rates:
        pairs = int(np.ceil(1 / rate - 1e-9)) - 1
        if null_count is not None and null_count < pairs:
            message = (
                f"not enough pictures: a false-positive rate of {rate:g} needs {pairs} comparisons with unrelated originals,"
                f" there are {null_count}."
            )
            raised.append(Flag("too_few", float(null_count), message))
        if count < images_needed(rate):
            message = (
                f"{count} images cannot show a success rate below {rate:g}: even if none succeeds, {images_needed(rate)} are"
                " needed for 95 % confidence."
            )
            raised.append(Flag("too_few", float(count), message))
    return raised


def _share(which: NDArray[np.bool_]) -> float:
    return float(np.mean(which)) if which.size else 0.0


def _mean(values: Floats) -> float:
    """The mean over the images that have a score; 0, which raises nothing, if none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else 0.0
