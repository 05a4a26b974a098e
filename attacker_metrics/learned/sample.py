"""A bounded sample of whole pairs that does not depend on batching, order or the number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attacker_metrics.learned.attacker import _hash, gathered


class PairSample:
    """The pairs whose hashed names come first, at most ``limit`` of them, all of one size.

    Samples of several processes merge to the sample of one. It holds pixels of the pictures.

    Args:
        limit: the largest number of pairs.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pairs: list[tuple[int, bytes, Tensor]] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, noisy: Tensor, clean: Tensor, keys: Sequence[str]) -> None:
        """Offer pairs ``(B, 3, H, W)``, named by ``keys``.

        Raises:
            ValueError: if their size is not that of the pairs before.
        """
        if self._pairs and (size := tuple(self._pairs[0][2].shape[2:])) != tuple(noisy.shape[2:]):
            raise ValueError(
                f"an attacker that learns what happens at every place needs pictures of one size: {size} before, got"
                f" {tuple(noisy.shape[2:])}; resize them, or fit on those of one size."
            )
        for pair, key in zip(torch.stack((noisy, clean), dim=1).float().cpu(), keys, strict=True):
            # Draws of one image share its name: their pixels decide, not the order in which they come.
            pixels = hashlib.blake2b(pair.numpy().tobytes(), digest_size=8).digest()
            self._pairs.append((_hash(f"place {key}"), pixels, pair.clone()))
        self._trim()

    def state(self) -> dict[str, Any]:
        """What :meth:`merge` takes."""
        return {
            "ranks": [rank for rank, _, _ in self._pairs],
            "pixels": [pixels.hex() for _, pixels, _ in self._pairs],
            "pairs": torch.stack([pair for *_, pair in self._pairs]) if self._pairs else None,
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the :meth:`state` of another sample."""
        if state["pairs"] is None:
            return
        if self._pairs and self._pairs[0][2].shape != state["pairs"].shape[1:]:
            raise ValueError(
                f"an attacker that learns what happens at every place needs pictures of one size: here"
                f" {tuple(self._pairs[0][2].shape[2:])}, there {tuple(state['pairs'].shape[3:])}."
            )
        rows = zip(state["ranks"], state["pixels"], state["pairs"].cpu().clone(), strict=True)
        self._pairs += [(rank, bytes.fromhex(pixels), pair) for rank, pixels, pair in rows]
        self._trim()

    def of_all_processes(self) -> Tensor:
        """``(n, 2, 3, H, W)`` float32: noisy and clean of the sample over all processes, in one order everywhere."""
        distributed = torch.distributed
        whole = self
        if distributed.is_available() and distributed.is_initialized():
            whole = PairSample(self.limit)
            for state in gathered(self.state()):
                whole.merge(state)
        if not whole._pairs:
            raise ValueError("the attacker saw no finite pair: call fit_update on the fit split first.")
        return torch.stack([pair for *_, pair in whole._pairs])

    def clear(self) -> None:
        """Forget all pairs."""
        self._pairs = []

    def _trim(self) -> None:
        self._pairs.sort(key=lambda pair: pair[:2])
        del self._pairs[self.limit :]
