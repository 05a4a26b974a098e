"""Images -> tables of scores -> the strongest attacker per image, beside its anchors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics.metrics.attacker_metric import AttackerMetric
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.reading.learned.attacker import LearnedAttacker, gathered, in_fit_split
from attacker_metrics.reading.learned.metrics import LearnedAttackerMetric
from attacker_metrics.reading.strongest.content import Shared, shared_content
from attacker_metrics.reading.strongest.distributed import check_same, share, together
from attacker_metrics.reading.strongest.null import NullDistribution, Strongest
from attacker_metrics.reading.strongest.originals import MOST_COMPARISONS, numbered, plain, unrelated_originals
from attacker_metrics.reading.strongest.selection import Selection
from attacker_metrics.reading.strongest.success import Reading, reading
from attacker_metrics.reading.strongest.surprise import Floats
from attacker_metrics.scoring.batches import batches_of_one_size, stacked
from attacker_metrics.scoring.pair import Pair

Images = Callable[[int], tuple[Tensor, Tensor]]
"""Position of an image -> its noisy and its clean picture, ``(3, H, W)`` each; called once per use, so nothing is kept."""
Attackers = Mapping[str, AttackerMetric]


@dataclass(frozen=True)
class Assessment:
    """What the strongest of many attackers reads out of a set of images.

    Args:
        ids: the images that were scored: those outside the fit split.
        scores: attacker -> ``(n,)``, higher = leaks more.
        null: the scores of the images with unrelated originals.
        strongest: the attacker with the rarest score, per image.
        originals: ``(n, k)`` which images' originals each was compared with; -1 for none.
        groups: the group of every image.
        shared: of every comparison that was made, in the order of ``originals``, what the two originals have in common.
        ceiling: attacker -> its mean score of a clean picture against itself; None where no image has one.
        equal_noise: attacker -> its mean score of the clean pictures under Gaussian noise of the same mean squared error.
    """

    ids: tuple[Hashable, ...]
    scores: dict[str, Floats]
    null: NullDistribution
    strongest: Strongest
    originals: NDArray[np.int64]
    groups: tuple[Hashable, ...]
    shared: tuple[Shared, ...]
    ceiling: dict[str, float | None]
    equal_noise: dict[str, float | None]

    def success(self, rate: float, *, attacker: str | None = None) -> NDArray[np.bool_]:
        """``(n,)``: whose picture is read at a false-positive rate, by the strongest attacker or by one of them.

        False also for images without a score (a pixel is not finite): a rate is that among ``strongest.scored``.

        Raises:
            ValueError: if there are too few comparisons for the rate.
        """
        if attacker is not None:
            return self.null.success(attacker, self.scores[attacker], rate)
        self.null.check_rate(rate)
        return self.strongest.success(rate)

    def reading(self, rate: float, *, clustered: bool = True) -> Reading:
        """How many pictures are read, with an interval and the risk beyond chance. Needs the extra ``cli``.

        Args:
            rate: the false-positive rate.
            clustered: whether images of one group are one piece of evidence, as they are; False where it is known better.

        Raises:
            ValueError: if there are too few comparisons for the rate, or no image is scored.
        """
        if clustered:
            return reading(self.null, self.strongest, rate, groups=self.groups)
        return reading(self.null, self.strongest, rate, originals=self.originals)


def assess(
    images: Images,
    ids: Sequence[Hashable],
    privacy: MultiAttackerPrivacy,
    *,
    groups: Sequence[Hashable] | None = None,
    fit: Sequence[bool] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    anchors: bool = True,
    comparisons: int = MOST_COMPARISONS,
) -> Assessment:
    """Fit the learned attackers, score the other images, and measure every score against unrelated originals.

    Images are read one batch at a time; what is kept is a number per image and attacker. Under ``torch.distributed`` every
    process of the default group calls it with the same arguments: each reads and scores its share of the images, and all
    return the same assessment, that of one process. An error of one is raised on all.

    Args:
        images: position -> noisy and clean picture ``(3, H, W)``.
        ids: the name of every image, unique.
        privacy: the attackers: its components; its means, and metrics of other libraries, take no part. Learned attackers
            (``extra=[LinearAttackerMSSSIM(), ...]``) that are not fitted yet are fitted here.
        groups: the group of every image, such as the person; unrelated originals are of other groups, and a group is on one
            side of the split. By default every image is a group of its own.
        fit: which images are for fitting only; by default, if anything has to be fitted, half of them by
            :func:`~attacker_metrics.reading.learned.in_fit_split`.
        seed: of the unrelated originals and of the anchors' noise.
        batch_size: pairs of one size that are scored at once.
        anchors: whether to score the ceiling and noise of equal error too, for two more scores of every image.
        comparisons: the largest number of comparisons with unrelated originals, twenty of every image; where there are more
            images, a random choice has a null and ``strongest``, and the others only ``scores``.

    Raises:
        ValueError: if there are no images, names are missing or not unique, lengths differ, nothing is left to score, or no
            image has three unrelated originals of its size.
        FitOverlapError: if an attacker was fitted on one of the images.
        RuntimeError: if another process failed, or was called for other images or with other settings.

    Example:
        >>> import torch
        >>> def images(i):
        ...     clean = torch.rand(3, 22, 22, generator=torch.Generator().manual_seed(i))
        ...     return 1 - clean, clean
        >>> found = assess(images, range(120), MultiAttackerPrivacy(betas=(0.5, 0.5)))
        >>> float(found.success(rate=0.01).mean())
        1.0
    """
    ids, groups = plain(ids), None if groups is None else plain(groups)
    together(lambda: _check(ids, groups, fit, batch_size))
    attackers = attackers_of(privacy)
    learned = {id(m.attacker): m.attacker for m in attackers.values() if isinstance(m, LearnedAttackerMetric)}
    unfitted = [attacker for attacker in learned.values() if not attacker.is_fitted]
    settings = None if fit is None else [bool(one) for one in fit], seed, anchors, comparisons
    check_same((list(attackers), [attacker.is_fitted for attacker in learned.values()], ids, groups, *settings))
    if fit is None:
        names = ids if groups is None else groups
        fit = [in_fit_split(str(name)) if unfitted else False for name in names]
    scored = [i for i in range(len(ids)) if not fit[i]]
    to_fit = [i for i in range(len(ids)) if fit[i]]
    for attacker in unfitted:
        _fit(attacker, images, ids, to_fit, batch_size)
    if not scored:
        raise ValueError(f"all {len(ids)} images are in the fit split: nothing is left to score.")
    for attacker in learned.values():
        attacker.check_unseen(str(ids[i]) for i in scored)
    count = len(scored)

    def matched(i: int) -> tuple[Tensor, Tensor]:
        noisy, clean = images(scored[i])
        sizes.append(tuple(clean.shape))
        return noisy, clean

    def score_share(pair_of: Images, total: int) -> dict[str, Floats]:
        """Score this process's share of the pairs, and return everyone's scores."""
        mine = share(total)
        parts = together(lambda: score(attackers, map(pair_of, mine), len(mine), batch_size))
        return {name: np.concatenate([part[name] for part in parts]) for name in attackers}

    sizes: list[Hashable] = []
    scores = score_share(matched, count)
    sizes = [size for everyones in gathered(sizes) for size in everyones]
    kept = [ids[i] if groups is None else groups[i] for i in scored]
    originals = unrelated_originals(kept, kinds=sizes, seed=seed, limit=comparisons)
    selection = Selection(
        list(range(count)), originals.tolist(), numbered(kept).tolist(), list(range(count)) if anchors else []
    )
    if not selection.comparisons:
        raise ValueError(
            f"not enough pictures: {count} images are of one group (or no two of different groups have one size); add images"
            " of other groups."
        )
    shared: list[Shared] = []
    last: list[tuple[int, Tensor, Tensor]] = []

    def selected(k: int) -> tuple[Tensor, Tensor]:
        i, j = selection.rows(k)
        if not last or last[0][0] != i:  # comparisons of one image follow each other
            last[:] = [(i, *images(scored[i]))]
        _, noisy, own = last[0]
        other = own if i == j else images(scored[j])[1]
        if i != j:
            shared.append(shared_content(own, other))
        return selection.sent(k, noisy, own, seed=seed + scored[i]), other

    table = score_share(selected, selection.total)
    shared = [one for everyones in gathered(shared) for one in everyones]
    null = selection.null(table)
    ceiling, equal_noise = selection.anchored(table) if anchors else ({}, {})
    return Assessment(
        ids=tuple(ids[i] for i in scored),
        scores=scores,
        null=null,
        strongest=null.strongest(scores),
        originals=originals,
        groups=tuple(kept),
        shared=tuple(shared),
        ceiling=ceiling,
        equal_noise=equal_noise,
    )


def attackers_of(privacy: MultiAttackerPrivacy) -> dict[str, AttackerMetric]:
    """The members that stand for one attacker each: no means, no metrics of other libraries."""
    members = privacy.items(keep_base=True, copy_state=False)
    return {name: m for name, m in members if isinstance(m, AttackerMetric) and len(m.components) == 1}


def score(
    attackers: Attackers, pairs: Iterable[tuple[Tensor, Tensor]], count: int, batch_size: int = 16
) -> dict[str, Floats]:
    """Score pairs one by one, in batches of one size.

    Args:
        attackers: name -> metric; its state is not touched.
        pairs: noisy and clean pictures ``(3, H, W)``, as many as ``count``.
        count: how many pairs there are.
        batch_size: neighbours of one size that are scored at once.

    Returns:
        Name -> scores ``(count,)``; NaN where a pixel is not finite.
    """
    table = {name: np.full(count, np.nan) for name in attackers}
    components = [component for metric in attackers.values() for component in metric.components]
    with torch.inference_mode():
        for batch in batches_of_one_size(enumerate(pairs), batch_size, itemgetter(1)):
            rows, images = zip(*batch, strict=True)
            pair = Pair(*map(stacked, zip(*images, strict=True)))
            pair.scores(components)
            for name, metric in attackers.items():
                table[name][list(rows)] = metric.scores(pair).double().cpu().numpy()
    return table


def _fit(attacker: LearnedAttacker, images: Images, ids: Sequence[Hashable], fit: list[int], batch_size: int) -> None:
    if not fit:
        raise ValueError("the fit split is empty: pass fit, or more images or groups.")

    def learn() -> None:
        mine = [fit[k] for k in share(len(fit))]
        for batch in batches_of_one_size(((i, images(i)) for i in mine), batch_size, itemgetter(1)):
            rows, pairs = zip(*batch, strict=True)
            noisy, clean = (torch.stack(side) for side in zip(*pairs, strict=True))
            attacker.fit_update(noisy, clean, [str(ids[i]) for i in rows])

    together(learn)
    attacker.fit_compute()


def _check(ids: Sequence[Hashable], groups: Sequence[Hashable] | None, fit: Sequence[bool] | None, batch_size: int) -> None:
    if not ids:
        raise ValueError("there are no images: ids is empty.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    if len(set(ids)) != len(ids):
        raise ValueError("ids must be unique: results are matched by them.")
    for name, given in (("groups", groups), ("fit", fit)):
        if given is not None and len(given) != len(ids):
            raise ValueError(f"{name} must have one entry per image, got {len(given)} for {len(ids)} images.")
    if groups is not None and fit is not None:
        both = {g for g, f in zip(groups, fit, strict=True) if f} & {g for g, f in zip(groups, fit, strict=True) if not f}
        if both:
            raise ValueError(
                f"groups must lie on one side of the fit split; on both: {', '.join(sorted(map(str, both))[:5])}."
            )
