"""Two images -> distance of their unit embeddings: the function :func:`semsim` and the metric :class:`SemSim`."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from attacker_metrics.metrics.leakage_direction import METRIC_FACTS, Direction
from attacker_metrics.quality.mean_over_images import MeanOverImages, check_reconstructions
from attacker_metrics.semsim.checkpoint import load_encoder
from attacker_metrics.semsim.encoder import Encoder

Distance = Literal["l2", "cosine"]


def semsim(
    preds: Tensor, target: Tensor, encoder: nn.Module, *, distance: Distance = "l2", similarity: bool = False
) -> Tensor:
    """Distance between the unit embeddings of each reconstruction and its original. Lower = leaks more.

    ``"l2"`` is the Euclidean distance, sqrt(2 (1 - cos)) in [0, 2]; ``"cosine"`` is 1 - cos in [0, 2]. Differentiable; the
    slope of l2 is taken as 0 where the embeddings agree.

    Args:
        preds: reconstructions ``(B, 3, H, W)``, floating; clamped to [0, 1].
        target: originals in [0, 1], same shape and device.
        encoder: an :class:`~attacker_metrics.semsim.Encoder`, or any module ``(B, 3, H, W) -> (B, D)``.
        distance: ``"l2"`` or ``"cosine"``.
        similarity: return the cosine instead, in [-1, 1]; higher = leaks more.

    Returns:
        One value per image, ``(B,)``.

    Raises:
        ValueError: for an unknown distance, shapes, originals outside [0, 1], or NaN or infinite pixels.
        TypeError: for images that are not floating.

    Example:
        >>> encoder = nn.Flatten()
        >>> original, other = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
        >>> original[0, 0, 0, 0], other[0, 1, 1, 1] = 1.0, 1.0  # at right angles
        >>> semsim(other, original, encoder).round(decimals=4), semsim(original, original, encoder)
        (tensor([1.4142]), tensor([0.]))

    Source: "Privacy Assessment on Reconstructed Images: Are Existing Evaluation Metrics Faithful to Human Perception?"
    (NeurIPS 2023), with unit embeddings in training and scoring alike.
    """
    _check_distance(distance)
    check_reconstructions(preds, target)
    if not isinstance(encoder, Encoder):
        encoder = Encoder(encoder)
    return _compare(encoder, preds, target, distance, similarity)


class SemSim(MeanOverImages):
    """Mean over all images of :func:`semsim`. Lower = leaks more; the other way round with ``similarity=True``.

    Args:
        encoder: a checkpoint file, an :class:`~attacker_metrics.semsim.Encoder`, or any module ``(B, 3, H, W) -> (B, D)``.
            It is kept in evaluation mode and not trained.
        distance: ``"l2"`` or ``"cosine"``.
        similarity: average the cosine instead.
        kwargs: torchmetrics' own keywords.

    Raises:
        ValueError: for an unknown distance or a file that is no checkpoint.
        ModuleNotFoundError: if a checkpoint needs safetensors or torchvision, naming the extra.

    Example:
        >>> metric = SemSim(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
        >>> original = torch.rand(4, 3, 32, 32)
        >>> metric.update(original, original)
        >>> metric.compute(), metric.leakage_direction
        (tensor(0.), 'lower')
        >>> metric.scores(1 - original, original).shape
        torch.Size([4])
    """

    def __init__(
        self,
        encoder: nn.Module | str | os.PathLike[str],
        distance: Distance = "l2",
        similarity: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_distance(distance)
        if not isinstance(encoder, nn.Module):
            encoder = load_encoder(encoder)
        encoder = encoder if isinstance(encoder, Encoder) else Encoder(encoder)
        super().__init__(encoder, distance, similarity, **kwargs)
        self.distance, self.similarity = distance, similarity
        self.leakage_direction: Direction = METRIC_FACTS["semsim_similarity" if similarity else "semsim"].leakage_direction

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        """The value of every image, ``(B,)``; the state is not touched."""
        return _compare(self.network, preds, target, self.distance, self.similarity)


def _compare(encoder: nn.Module, preds: Tensor, target: Tensor, distance: Distance, similarity: bool) -> Tensor:
    embeddings: Tensor = encoder(torch.cat([preds, target]))
    a, b = embeddings.chunk(2)
    if similarity:
        return (a * b).sum(dim=1)
    if distance == "cosine":
        return (a - b).square().sum(dim=1) / 2  # 1 - cos without its cancellation
    norm: Tensor = torch.linalg.vector_norm(a - b, dim=1)
    return norm


def _check_distance(distance: str) -> None:
    if distance not in get_args(Distance):
        raise ValueError(f"distance is {distance!r}; there are {', '.join(get_args(Distance))}.")
