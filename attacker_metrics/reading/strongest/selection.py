"""The pairs that give pictures a null of their own, and attackers their anchors, in the order in which they are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics.reading.strongest.null import NullDistribution
from attacker_metrics.reading.strongest.surprise import Floats


@dataclass(frozen=True)
class Selection:
    """Which pictures are compared with which originals: the comparisons, every anchor against itself, then under noise.

    Args:
        pictures: rows of the pictures that have a null of their own.
        originals: of each the rows of the unrelated originals, as many as there are; -1 for none.
        sources: the group of every row, as a number.
        anchors: rows of which the anchors are scored.
    """

    pictures: list[int]
    originals: list[list[int]]
    sources: list[int]
    anchors: list[int]

    @cached_property
    def comparisons(self) -> list[tuple[int, int]]:
        """Rows of the sent picture and of the original of every comparison, picture after picture."""
        together = zip(self.pictures, self.originals, strict=True)
        return [(picture, original) for picture, row in together for original in row if original >= 0]

    @property
    def total(self) -> int:
        """Number of pairs to score, those of the anchors included."""
        return len(self.comparisons) + 2 * len(self.anchors)

    def rows(self, index: int) -> tuple[int, int]:
        """Rows of the sent picture and of the original of a pair."""
        if index < len(self.comparisons):
            return self.comparisons[index]
        anchor = self.anchors[(index - len(self.comparisons)) % len(self.anchors)]
        return anchor, anchor

    def sent(self, index: int, noisy: Tensor, original: Tensor, *, seed: int) -> Tensor:
        """What is sent in a pair: the picture of its row, or for an anchor its original, bare or under noise of equal error.

        Args:
            index: of the pair.
            noisy: the sent picture of the row, ``(3, H, W)``.
            original: its own original.
            seed: of the anchor's noise.
        """
        position = index - len(self.comparisons)
        if position < 0:
            return noisy
        if position < len(self.anchors):
            return original
        return noise_of_equal_error(noisy, original, seed=seed)

    def null(self, scores: Mapping[str, Floats]) -> NullDistribution:
        """The null of scores ``(total,)``.

        Raises:
            ValueError: if no picture has one.
        """
        originals = np.array(self.originals)
        tables = {name: np.full(originals.shape, np.nan) for name in scores}
        for name, table in tables.items():
            table[originals >= 0] = scores[name][: len(self.comparisons)]
        return NullDistribution(tables, np.array(self.sources)[originals])

    def anchored(self, scores: Mapping[str, Floats]) -> tuple[dict[str, float | None], dict[str, float | None]]:
        """Mean scores of the anchors against themselves and under noise of equal error; None where none has a score."""
        behind = {name: np.split(values[len(self.comparisons) :], 2) for name, values in scores.items()}
        ceiling, noise = ({name: _mean(half[which]) for name, half in behind.items()} for which in (0, 1))
        return ceiling, noise


def noise_of_equal_error(noisy: Tensor, clean: Tensor, *, seed: int = 0) -> Tensor:
    """The clean picture under Gaussian noise with the mean squared error, so the PSNR, of the noisy one; ``(3, H, W)``.

    Example:
        >>> import torch
        >>> clean = torch.rand(3, 64, 64)
        >>> noisy = noise_of_equal_error(1 - clean, clean)
        >>> bool(((noisy - clean).square().mean() - (1 - 2 * clean).square().mean()).abs() < 1e-6)
        True
    """
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
    return clean + noise * ((noisy - clean).square().mean() / noise.square().mean()).sqrt()


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
