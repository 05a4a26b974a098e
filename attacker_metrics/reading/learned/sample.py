"""A bounded sample of whole pairs that does not depend on batching, order or the number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacker_metrics.reading.learned.attacker import LearnedAttacker, _hash, gathered


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


class SampledAttacker(LearnedAttacker):
    """An attacker that learns from a bounded sample of whole pairs of one size, at least 8 of them.

    A subclass implements ``_learn`` and ``_restored``, and names its buffers, whose shapes depend on what it learns.
    """

    _limit, _least = 256, 8
    _stored: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._size: tuple[int, ...] = ()
        self._sample = PairSample(self._limit)
        self.register_buffer(self._stored[0], torch.zeros(0))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def get_extra_state(self) -> dict[str, Any]:
        """Also the size of the pictures."""
        return {**super().get_extra_state(), "size": self._size}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        super().set_extra_state(state)
        self._size = tuple(state["size"])

    def _learn(self, noisy: Tensor, clean: Tensor) -> Mapping[str, Tensor]:
        """Learn from all pairs ``(n, 3, H, W)``, and return what to store."""
        raise NotImplementedError

    def _restored(self, x: Tensor) -> Tensor:
        """The view of noisy pictures of the size that was learned."""
        raise NotImplementedError

    def _solve(self) -> None:
        pairs = self._sample.of_all_processes()
        if len(pairs) < self._least:
            raise ValueError(
                f"{len(pairs)} pairs are too few for {self!r} to learn from: at least {self._least} are needed."
            )
        self._sample.clear()
        self._size = tuple(pairs.shape[3:])
        where = self._buffers[self._stored[0]]
        assert where is not None
        noisy, clean = (pairs[:, side].contiguous().to(where.device) for side in (0, 1))
        del pairs
        self._store(self._learn(noisy, clean))

    def _view(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self._size:
            raise ValueError(
                f"{type(self).__name__} was fitted on pictures of {self._size} pixels, got {tuple(x.shape[2:])}."
            )
        return self._restored(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def _store(self, parts: Mapping[str, Tensor]) -> None:
        for name in self._stored:
            self._buffers.pop(name, None)
        for name in self._stored:
            if name in parts:
                self.register_buffer(name, parts[name])

    def _numbered(self, name: str) -> tuple[Tensor, ...]:
        """The buffers ``NAME_0``, ``NAME_1``, ..."""
        return tuple(part for full, part in self.named_buffers() if full.startswith(f"{name}_"))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        like = next(self.buffers())
        found = {name: state_dict[prefix + name] for name in self._stored if prefix + name in state_dict}
        self._store({name: torch.empty_like(part, device=like.device) for name, part in found.items()})
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Follow ``fn`` to its device, but keep the dtypes: weights of faint pictures are beyond float16."""
        device = fn(torch.zeros((), device=next(self.buffers()).device)).device
        moved: torch.nn.Module = super()._apply(lambda value: value.to(device), *args, **kwargs)  # type: ignore[no-untyped-call]
        return moved

    def _observe(self, noisy: Tensor, clean: Tensor, keys: Sequence[str]) -> None:
        self._sample.add(noisy, clean, keys)

    def _observed(self) -> dict[str, Any]:
        return self._sample.state()

    def _take_over(self, observed: Mapping[str, Any]) -> None:
        self._sample.merge(observed)

    def _forget(self) -> None:
        self._sample.clear()


def numbered(name: str, parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """Parts by the names ``NAME_0``, ``NAME_1``, ..."""
    return {f"{name}_{k}": part for k, part in enumerate(parts)}
