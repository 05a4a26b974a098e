"""Learned attackers as metrics: fit on one part of the data, ``update`` and ``compute`` on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attacker_metrics.attackers.standard import clamp, luma
from attacker_metrics.metrics.attacker_metric import AttackerMetric, NanStrategy
from attacker_metrics.reading.learned.attacker import Ids, LearnedAttacker, names_of
from attacker_metrics.reading.learned.cnn import CNNAttacker
from attacker_metrics.reading.learned.linear import LinearAttacker
from attacker_metrics.scoring.components import Component
from attacker_metrics.scoring.pair import Pair
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Similarity, SquaredPearson


class LearnedAttackerMetric(AttackerMetric):
    """Mean score of what a learned attacker restores, as luma clamped to [0, 1], against the clean luma.

    Several metrics may share one attacker: fit it once, through any of them or directly. State, errors and ``nan_strategy``
    are those of :class:`~attacker_metrics.AttackerMetric`; the fit is the attacker's, and ``reset`` keeps it.

    Args:
        name: key for reports.
        attacker: what learns.
        similarity: compares the two luma views.
        nan_strategy: ``"warn"``, ``"ignore"`` or ``"error"`` about pairs with NaN or infinite pixels.
        kind: short name of the attacker, which its scores share in reports; by default the key.
        kwargs: torchmetrics' own keywords.

    Raises:
        NotFittedError: in ``update`` and ``forward``, before ``fit_compute``.
        FitOverlapError: in ``update`` and ``forward``, if an id was in the fit split.
        ValueError: if ids are not as many as pairs.

    Example:
        >>> import torch
        >>> attacker = LinearAttacker(kernel_size=8, stride=8)
        >>> LearnedAttackerMetric("block_gray", attacker, MSSSIM()).name
        'block_gray'
    """

    def __init__(
        self,
        name: str,
        attacker: LearnedAttacker,
        similarity: Similarity,
        nan_strategy: NanStrategy = "warn",
        kind: str = "",
        **kwargs: Any,
    ) -> None:
        undoes = "what it learned from pairs"
        component = Component(name, similarity, (attacker, luma, clamp), (luma,), undoes=undoes, attacker=kind)
        super().__init__(component, nan_strategy=nan_strategy, **kwargs)
        self.attacker = attacker

    def fit_update(self, noisy: Tensor, clean: Tensor, ids: Ids | None = None) -> None:
        """Learn from a batch of the fit split; see :meth:`LearnedAttacker.fit_update`."""
        self.attacker.fit_update(noisy, clean, ids)

    def fit_compute(self) -> None:
        """Fit; see :meth:`LearnedAttacker.fit_compute`."""
        self.attacker.fit_compute()

    def update(self, preds: Tensor | Pair, target: Tensor | None = None, ids: Ids | None = None) -> None:
        """Add a batch.

        Args:
            preds: noisy images ``(B, 3, H, W)``, or a :class:`~attacker_metrics.Pair` shared by several metrics.
            target: clean images in [0, 1] of the same shape; left out with a pair.
            ids: the names under which the pairs would have been fitted; one that was is refused. Without them nothing is
                checked: a :class:`~attacker_metrics.MultiAttackerPrivacy` passes none on, so call
                ``attacker.check_unseen(ids)`` beside it.
        """
        self._check_attacker(preds, ids)
        super().update(preds, target)

    @torch.jit.unused
    def forward(self, preds: Tensor | Pair, target: Tensor | None = None, ids: Ids | None = None) -> Tensor:
        """Add a batch and return its own mean score, differentiable; arguments as :meth:`update`."""
        self._check_attacker(preds, ids)
        return super().forward(preds, target)

    def _check_attacker(self, preds: Tensor | Pair, ids: Ids | None) -> None:
        self.attacker.check_fitted()
        if ids is not None:
            self.attacker.check_unseen(names_of(ids, len(preds)))


class LinearAttackerMSSSIM(LearnedAttackerMetric):
    """MS-SSIM of what the best linear filter restores, as luma.

    Args:
        attacker: the filter, to share it or choose its size; by default ``LinearAttacker()``, 5 x 5.
        betas: MS-SSIM's exponents, one per scale.
        nan_strategy: ``"warn"``, ``"ignore"`` or ``"error"``.
        kwargs: torchmetrics' own keywords.

    Example:
        >>> import torch
        >>> clean = torch.rand(6, 3, 32, 32)
        >>> noisy = 1 - clean
        >>> metric = LinearAttackerMSSSIM(betas=(0.5, 0.5))
        >>> metric.fit_update(noisy[:3], clean[:3], ids=[0, 1, 2])
        >>> metric.fit_compute()
        >>> metric.update(noisy[3:], clean[3:], ids=[3, 4, 5])
        >>> metric.compute().round(decimals=3)
        tensor(1.)
    """

    def __init__(
        self,
        attacker: LinearAttacker | None = None,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__("linear_gray", attacker or LinearAttacker(), MSSSIM(tuple(betas)), nan_strategy, "linear", **kwargs)


class LinearAttackerPearson(LearnedAttackerMetric):
    """Squared Pearson correlation of what the best linear filter restores, as luma; arguments as far as they apply.

    Example:
        >>> LinearAttackerPearson().name
        'pearson_linear'
    """

    def __init__(self, attacker: LinearAttacker | None = None, nan_strategy: NanStrategy = "warn", **kwargs: Any) -> None:
        super().__init__("pearson_linear", attacker or LinearAttacker(), SquaredPearson(), nan_strategy, "linear", **kwargs)


class CNNAttackerMSSSIM(LearnedAttackerMetric):
    """MS-SSIM of what the small residual network restores, as luma; arguments as :class:`LinearAttackerMSSSIM`.

    Example:
        >>> CNNAttackerMSSSIM(CNNAttacker(steps=100)).attacker
        CNNAttacker(steps=100, seed=0)
    """

    def __init__(
        self,
        attacker: CNNAttacker | None = None,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__("cnn_gray", attacker or CNNAttacker(), MSSSIM(tuple(betas)), nan_strategy, "cnn", **kwargs)


class CNNAttackerPearson(LearnedAttackerMetric):
    """Squared Pearson correlation of what the small residual network restores, as luma.

    Example:
        >>> CNNAttackerPearson().name
        'pearson_cnn'
    """

    def __init__(self, attacker: CNNAttacker | None = None, nan_strategy: NanStrategy = "warn", **kwargs: Any) -> None:
        super().__init__("pearson_cnn", attacker or CNNAttacker(), SquaredPearson(), nan_strategy, "cnn", **kwargs)
