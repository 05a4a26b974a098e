"""An attacker that learns a fixed key from pairs: where values went, and what was done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attacker_metrics.reading.learned.attacker import LearnedAttacker
from attacker_metrics.reading.learned.places import FEATURES, matched
from attacker_metrics.reading.learned.sample import PairSample
from attacker_metrics.reading.learned.value_keys import VALUE_KEYS, Key

_PAIRS = 256
_LEAST_PAIRS = 8
_TRIED = 4096
"""Places at which the combinations are compared; the best is then fitted at all."""
_STAYED, _PLAIN = "stayed", "gain and offset"
_UNDONE = 0.05
"""Share of the clean pictures' variance that may be left for a key to count as found, so that no other is looked for."""
_WORTH_MATCHING, _SIMPLER = 0.01, 1e-3
"""What share of the variance a key has to explain at all, and by how much to beat one that is named before it."""


class KeyedAttacker(LearnedAttacker):
    """Undo what one fixed key does to every picture: values moved about, and changed at each place.

    Two things are learned from pairs. Where values went: they stayed, or each place of the clean pictures is matched with
    the place of the noisy ones that follows it best over the pairs (:mod:`~attacker_metrics.reading.learned.places`); this
    undoes shuffled pixels, shuffled, turned, mirrored and negated blocks, channel orders, rotations and cat maps. What was
    done to them (:mod:`~attacker_metrics.reading.learned.value_keys`): a gain and offset of the place (fixed covers,
    weights, negation), a pad added modulo 1 or 256, a pad XORed, a table of values, common or of the place, the picture in
    the lowest bits. The combination that restores one half of the pairs best when learned from the other half wins, and is
    fitted on all.

    Pictures have one size. At most 256 pairs are kept, those whose hashed names come first; an unfinished fit holds them,
    pixels and all. Matching takes time with the square of the number of pixels. A low score proves nothing where pairs were
    few, or the key is another one for each picture.

    Raises:
        ValueError: for pictures of several sizes, in ``fit_compute`` for fewer than 8 pairs, in the attack for another size.

    Example:
        >>> import torch
        >>> clean = torch.rand(40, 3, 8, 8)
        >>> order = torch.randperm(3 * 8 * 8)
        >>> noisy = 1 - clean.flatten(1)[:, order].view_as(clean)  # shuffled by one key, and negated
        >>> attacker = KeyedAttacker()
        >>> attacker.fit_update(noisy[:30], clean[:30])
        >>> attacker.fit_compute()
        >>> attacker.found
        ('values', 'gain and offset')
        >>> bool((attacker(noisy[30:]) - clean[30:]).abs().max() < 1e-3)
        True
    """

    source: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[str, str] | None = None
        """By what places were matched ("stayed" if they were not), and the kind of key, of
        :data:`~attacker_metrics.reading.learned.value_keys.VALUE_KEYS`."""
        self._size: tuple[int, ...] = ()
        self._sample = PairSample(_PAIRS)
        self._take_key(torch.zeros(0, dtype=torch.int64), ())

    def __repr__(self) -> str:
        return "KeyedAttacker()"

    def get_extra_state(self) -> dict[str, Any]:
        """Also what was found, and the size of the pictures."""
        return {**super().get_extra_state(), "found": self.found, "size": self._size, "key_parts": self._parts}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        super().set_extra_state(state)
        self.found = None if state["found"] is None else tuple(state["found"])
        self._size, self._parts = tuple(state["size"]), state["key_parts"]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        saved = {name: state_dict[prefix + name] for name in ("source", *_names(8)) if prefix + name in state_dict}
        if "source" in saved:  # sizes and dtypes are those of the pictures and the key
            key = tuple(torch.empty_like(saved[name]) for name in saved if name != "source")
            self._take_key(torch.empty_like(saved["source"]), key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _take_key(self, source: Tensor, key: Key) -> None:
        for name in [name for name in self._buffers if name in ("source", *_names(8))]:
            delattr(self, name)
        self.register_buffer("source", source)
        for name, part in zip(_names(len(key)), key, strict=True):
            self.register_buffer(name, part)
        self._parts = len(key)

    def _observe(self, noisy: Tensor, clean: Tensor, keys: Sequence[str]) -> None:
        self._sample.add(noisy, clean, keys)

    def _observed(self) -> dict[str, Any]:
        return self._sample.state()

    def _take_over(self, observed: Mapping[str, Any]) -> None:
        self._sample.merge(observed)

    def _forget(self) -> None:
        self._sample.clear()

    def _solve(self) -> None:
        pairs = self._sample.of_all_processes()
        if len(pairs) < _LEAST_PAIRS:
            raise ValueError(f"{len(pairs)} pairs are too few to learn a key from: at least {_LEAST_PAIRS} are needed.")
        x, y = (pairs[:, side].flatten(1).to(self.source.device) for side in (0, 1))
        placement, kind = _best(x, y)
        source = _source(x, y, slice(None), placement)
        key = VALUE_KEYS[kind].fit(x[:, source], y, _channels(y.shape[1]).to(y.device), _chosen_among(x, placement))
        self._take_key(source, key)
        self.found, self._size = (placement, kind), tuple(pairs.shape[3:])
        self._sample.clear()

    def _view(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self._size:
            raise ValueError(f"KeyedAttacker was fitted on pictures of {self._size} pixels, got {tuple(x.shape[2:])}.")
        assert self.found is not None
        key = [getattr(self, name) for name in _names(self._parts)]
        values, channels = x.flatten(1)[:, self.source], _channels(x[0].numel()).to(x.device)
        return VALUE_KEYS[self.found[1]].undo(values, channels, *key).view_as(x).to(x.dtype)


def _best(x: Tensor, y: Tensor) -> tuple[str, str]:
    """Placement and kind of key that restore either half of the pairs best when learned from the other, at some places."""
    places = torch.randperm(y.shape[1], generator=torch.Generator().manual_seed(0))[:_TRIED].sort().values.to(y.device)
    channels = _channels(y.shape[1]).to(y.device)[places]
    halves = slice(0, None, 2), slice(1, None, 2)
    best, least = (_STAYED, _PLAIN), 1 - _WORTH_MATCHING
    for placement in (_STAYED, *FEATURES):
        if placement != _STAYED and least <= _UNDONE:
            break
        sources = [_source(x[half], y[half], places, placement) for half in halves]
        for kind, key_kind in VALUE_KEYS.items():
            error, variance = 0.0, 0.0
            for fitted, held_out, source in zip(halves, halves[::-1], sources, strict=True):
                target, mean = y[held_out][:, places], y[fitted][:, places].mean(dim=0)
                key = key_kind.fit(x[fitted][:, source], y[fitted][:, places], channels, _chosen_among(x, placement))
                restored = key_kind.undo(x[held_out][:, source], channels, *key).clamp(0, 1)
                error += float((restored - target).double().square().sum())
                variance += float((mean - target).double().square().sum())
            if (left := error / max(variance, 1e-12)) < least - _SIMPLER:
                best, least = (placement, kind), left
    return best


def _source(x: Tensor, y: Tensor, places: Tensor | slice, placement: str) -> Tensor:
    """Where the values of some clean places are found in noisy pictures."""
    if placement == _STAYED:
        return torch.arange(x.shape[1], device=x.device)[places]
    return matched(x, y[:, places], placement)


def _chosen_among(x: Tensor, placement: str) -> int:
    return 1 if placement == _STAYED else x.shape[1]


def _channels(values: int) -> Tensor:
    return torch.arange(3).repeat_interleave(values // 3)


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"key_{k}" for k in range(count))
