"""Blocks of a picture in another order, turned, mirrored or negated."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from attacker_metrics._extras import missing_extra
from attacker_metrics._settings import whole
from attacker_metrics.scoring.oracles.oracle import without_slope
from attacker_metrics.scoring.oracles.orientation import ORIENTATIONS, oriented

_PLACES, _BLOCKS = 256, 512
"""How many places of the clean picture are filled, from how many blocks of the noisy one: those with most detail."""


@dataclass(frozen=True)
class AssignedBlocks:
    r"""How much of the blocks' inside comes back when every block of the noisy picture may go anywhere, in [0, 1].

    Blocks lose their means, which shuffled blocks of any two pictures could match. For the assignment :math:`\pi` of blocks
    to places and for the orientation and sign of each that explain most, the score is
    :math:`\sum_b r^2(x_{\pi(b)}, y_b) \|y_b\|^2 / \sum_b \|y_b\|^2`; higher = leaks more. Unrelated pictures score about
    0.5 by chance, since each place has many blocks to choose from. The time grows with the cube of the blocks: only the 256
    places with most detail count, and are filled from the 512 blocks with most detail, an order that moving, turning and
    negating them does not change. Rows and columns beyond whole blocks are left out. A flat picture scores 0. No gradient
    passes.

    Args:
        size: side of the blocks in pixels, >= 2; larger blocks that are multiples of it are undone, too.

    Raises:
        MissingExtraError: without SciPy, which the extra ``cli`` brings.
        ValueError: for a size below 2. In use: for pictures smaller than a block, or of another shape.

    Source:
        The assignment is found by the algorithm of Crouse: On implementing 2D rectangular assignment algorithms, IEEE
        Transactions on Aerospace and Electronic Systems 52, 2016, in SciPy.

    Example:
        >>> clean = torch.rand(1, 1, 32, 32)
        >>> AssignedBlocks()(1 - clean.roll(8, dims=3).flip(2), clean).round(decimals=3)
        tensor([1.])
    """

    size: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole("size", self.size, 2))
        if importlib.util.find_spec("scipy") is None:
            raise missing_extra("AssignedBlocks needs SciPy", "cli")

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two views of one shape, ``(B, 1, H, W)``, image by image, ``(B,)``."""
        if noisy.shape != clean.shape or noisy.shape[1] != 1 or min(noisy.shape[2:]) < self.size:
            raise ValueError(
                f"AssignedBlocks({self.size}) needs two views of one shape (B, 1, H, W), of {self.size} pixels a side at"
                f" least, got {tuple(noisy.shape)} and {tuple(clean.shape)}; take luma, or smaller blocks."
            )
        with torch.no_grad():
            score = torch.stack([self._score(x, y) for x, y in zip(noisy[:, 0], clean[:, 0], strict=True)])
        return score + without_slope(noisy, clean)

    def _score(self, noisy: Tensor, clean: Tensor) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        x, y = self._blocks(noisy, _BLOCKS), self._blocks(clean, _PLACES)
        length = x.square().sum(dim=(1, 2), keepdim=True).sqrt()
        x = torch.where(length > 1e-6, x / length.clamp(min=1e-6), 0.0)
        target, total = y.flatten(1).T, y.square().sum()
        explained = (x.flatten(1) @ target).square()
        for orientation in range(1, len(ORIENTATIONS)):
            explained = torch.maximum(explained, (oriented(x, orientation).flatten(1) @ target).square())
        blocks, places = linear_sum_assignment(explained.cpu().numpy(), maximize=True)
        found = explained[torch.from_numpy(blocks).to(x.device), torch.from_numpy(places).to(x.device)].sum()
        return torch.where(total > 1e-9 * y.numel(), (found / total.clamp(min=1e-30)).clamp(0.0, 1.0), 0.0)

    def _blocks(self, view: Tensor, count: int) -> Tensor:
        """The blocks with most detail, without their means: ``(count or fewer, size, size)``."""
        view = view.to(torch.promote_types(view.dtype, torch.float32))
        blocks = view.unfold(0, self.size, self.size).unfold(1, self.size, self.size).flatten(0, 1)
        blocks = blocks - blocks.mean(dim=(1, 2), keepdim=True)
        return blocks[blocks.square().sum(dim=(1, 2)).topk(min(count, len(blocks))).indices]
