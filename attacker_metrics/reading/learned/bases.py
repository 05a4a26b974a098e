"""Transforms, linear and orthonormal, in which a fixed key may act on every coefficient by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Basis(Protocol):
    """A transform."""

    def coefficients(self, x: Tensor) -> Tensor:
        """Pictures ``(n, C, H, W)`` -> ``(n, C, K)``, real or complex."""

    def picture(self, coefficients: Tensor, height: int, width: int) -> Tensor:
        """The inverse, for pictures of that size."""


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves."""

    def coefficients(self, x: Tensor) -> Tensor:
        """Flatten."""
        return x.flatten(2)

    def picture(self, coefficients: Tensor, height: int, width: int) -> Tensor:
        """Unflatten."""
        return coefficients.view(*coefficients.shape[:2], height, width)


@dataclass(frozen=True)
class Fourier:
    """The Fourier transform of the picture, or of each of its rows or columns.

    Args:
        dims: over which dimensions.
    """

    dims: tuple[int, ...] = (2, 3)

    def coefficients(self, x: Tensor) -> Tensor:
        """Half of the spectrum, as the pictures are real."""
        spectrum: Tensor = torch.fft.rfftn(x, dim=self.dims, norm="ortho")
        return spectrum.flatten(2)

    def picture(self, coefficients: Tensor, height: int, width: int) -> Tensor:
        """The inverse transform."""
        size, last = [height, width], self.dims[-1] - 2
        size[last] = size[last] // 2 + 1
        sides = [(height, width)[dim - 2] for dim in self.dims]
        picture: Tensor = torch.fft.irfftn(
            coefficients.view(*coefficients.shape[:2], *size), s=sides, dim=self.dims, norm="ortho"
        )
        return picture


@dataclass(frozen=True)
class Cosines:
    """The cosine transform of the whole picture."""

    def coefficients(self, x: Tensor) -> Tensor:
        """Rows and columns, type II."""
        down, across = (cosines(side).to(x) for side in x.shape[2:])
        return (down @ x @ across.T).flatten(2)

    def picture(self, coefficients: Tensor, height: int, width: int) -> Tensor:
        """The inverse transform."""
        down, across = (cosines(side).to(coefficients) for side in (height, width))
        return down.T @ coefficients.view(*coefficients.shape[:2], height, width) @ across


@dataclass(frozen=True)
class OfBlocks:
    """The cosine or the Hadamard transform of every block; blocks start at the upper left corner, the last are continued.

    Args:
        side: of a block, in pixels.
        hadamard: a power of two must be the side then.
    """

    side: int
    hadamard: bool = False

    def coefficients(self, x: Tensor) -> Tensor:
        """Transform the blocks in their places."""
        height, width = x.shape[2:]
        whole = F.pad(x, (0, -width % self.side, 0, -height % self.side), mode="replicate")
        matrix = self._matrix().to(x)
        return torch.einsum("ai,ncyixj,bj->ncyaxb", matrix, self._cut(whole), matrix).flatten(2)

    def picture(self, coefficients: Tensor, height: int, width: int) -> Tensor:
        """The inverse transform, cropped."""
        padded = height + -height % self.side, width + -width % self.side
        matrix = self._matrix().to(coefficients)
        blocks = torch.einsum(
            "ai,ncyaxb,bj->ncyixj", matrix, self._cut(coefficients.view(*coefficients.shape[:2], *padded)), matrix
        )
        return blocks.flatten(4).flatten(2, 3)[:, :, :height, :width]

    def _cut(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return x.reshape(*x.shape[:2], height // self.side, self.side, width // self.side, self.side)

    def _matrix(self) -> Tensor:
        return _hadamard(self.side) if self.hadamard else cosines(self.side)


BASES: dict[str, Basis] = {
    "pixels": Pixels(),
    "Fourier": Fourier(),
    "cosines of blocks of 8": OfBlocks(8),
    "cosines": Cosines(),
    "cosines of blocks of 16": OfBlocks(16),
    "cosines of blocks of 4": OfBlocks(4),
    "Hadamard of blocks of 8": OfBlocks(8, hadamard=True),
    "Fourier of rows": Fourier((3,)),
    "Fourier of columns": Fourier((2,)),
}
"""Name -> transform."""


@lru_cache(maxsize=8)
def cosines(length: int) -> Tensor:
    """The orthonormal cosine transform, ``(length, length)`` float64."""
    steps = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * (steps + 0.5) * steps[:, None]) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis


@lru_cache(maxsize=2)
def _hadamard(length: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < length:
        matrix = torch.kron(matrix, torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)) / math.sqrt(2)
    return matrix
