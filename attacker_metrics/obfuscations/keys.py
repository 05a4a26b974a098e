"""Randomness that is the same on every machine: drawn from a name, a seed and an image's id, never from a global state."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TO_UNIT = 2.0**-53


class Key:
    """Everything random about one obfuscation of one picture, or of all pictures if the key is fixed.

    NumPy promises that the raw stream of its counter-based generator Philox never changes, and promises nothing of the
    kind about the distributions; so these are made here. Another label, shape or word gives an independent draw.

    Args:
        words: what the key depends on, e.g. version, name, seed and id.

    Example:
        >>> Key("a", 0).permutation("order", 5).tolist() == Key("a", 0).permutation("order", 5).tolist()
        True
        >>> Key("a", 0).permutation("order", 50).tolist() == Key("a", 1).permutation("order", 50).tolist()
        False
    """

    def __init__(self, *words: int | str) -> None:
        self._words = words
        self._drawn: dict[tuple[str, tuple[int, ...]], NDArray[np.uint64]] = {}

    def uniform(self, label: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Values in [0, 1) before rounding, of the dtype and on the device of ``like``."""
        return _tensor(self._uniform(label, shape), like)

    def normal(self, label: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal values (Box-Muller)."""
        radius = np.sqrt(-2.0 * np.log1p(-self._uniform(f"{label} radius", shape)))
        return _tensor(radius * np.cos(2.0 * math.pi * self._uniform(f"{label} angle", shape)), like)

    def laplace(self, label: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Values of the Laplace distribution of scale 1."""
        magnitude = -np.log1p(-self._uniform(f"{label} magnitude", shape))
        return _tensor(magnitude * self._signs(f"{label} sign", shape), like)

    def signs(self, label: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Values -1 and 1, equally often."""
        return _tensor(self._signs(label, shape), like)

    def integers(self, label: str, high: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Whole numbers in [0, high), int64."""
        return torch.from_numpy((self._raw(label, shape) % np.uint64(high)).astype(np.int64)).to(like.device)

    def permutation(self, label: str, count: int) -> Tensor:
        """An order of ``count`` things, int64, on the CPU."""
        return torch.from_numpy(np.argsort(self._raw(label, (count,)), kind="stable"))

    def _uniform(self, label: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return (self._raw(label, shape) >> np.uint64(11)).astype(np.float64) * _TO_UNIT

    def _signs(self, label: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return 1.0 - 2.0 * (self._raw(label, shape) & np.uint64(1)).astype(np.float64)

    def _raw(self, label: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        if (label, shape) not in self._drawn:  # a fixed key serves many pictures
            named = "\0".join(f"{type(word).__name__} {word}" for word in (*self._words, label, *shape))
            seed = int.from_bytes(hashlib.blake2b(named.encode(), digest_size=16).digest(), "little")
            raw = np.random.Philox(key=seed).random_raw(math.prod(shape))
            self._drawn[label, shape] = np.asarray(raw, dtype=np.uint64).reshape(shape)
        return self._drawn[label, shape]


def _tensor(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(values)).to(dtype=like.dtype).to(like.device)
