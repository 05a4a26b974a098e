"""Pictures one by one -> batches that are scored at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def batches_of_one_size(
    items: Iterable[T], batch_size: int, images: Callable[[T], tuple[Tensor, Tensor]] = attrgetter("noisy", "clean")
) -> Iterator[list[T]]:
    """Gather pairs of equal size into batches; at most eight batches' worth of pairs wait at any time.

    Neighbours that share a noisy picture, the same tensor, are a batch of their own: see :func:`stacked`.

    Args:
        items: what has a noisy and a clean picture, ``(C, H, W)``.
        batch_size: the most items in a batch.
        images: the noisy and the clean picture of an item.
    """
    waiting: dict[torch.Size, list[T]] = defaultdict(list)
    for item in items:
        noisy, clean = images(item)
        batch = waiting[clean.shape]
        if len(batch) > 1 and images(batch[-2])[0] is images(batch[-1])[0] is not noisy:
            yield waiting.pop(clean.shape)
            batch = waiting[clean.shape]
        batch.append(item)
        if len(batch) == batch_size:
            yield waiting.pop(clean.shape)
        elif sum(map(len, waiting.values())) >= 8 * batch_size:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def stacked(pictures: Sequence[Tensor], device: torch.device | None = None) -> Tensor:
    """A batch of pictures ``(B, ...)``; of one tensor that is there B times, expanded: a ``Pair`` makes its views once."""
    if all(picture is pictures[0] for picture in pictures):
        return pictures[0].to(device).expand(len(pictures), *pictures[0].shape)
    return torch.stack(list(pictures)).to(device)
