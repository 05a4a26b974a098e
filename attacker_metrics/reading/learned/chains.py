"""Values that were combined with those before them: what takes such a chain apart, but for a fixed pad."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _ordered(x: Tensor, interleaved: bool) -> Tensor:
    """Bytes of pictures ``(n, 3, H, W)`` in the order of planes or of pixels, ``(n, 3 H W)`` uint8."""
    values = (x * 255).round_().clamp_(0, 255).to(torch.uint8)
    return (values.permute(0, 2, 3, 1) if interleaved else values).flatten(1)


def _pictures(values: Tensor, x: Tensor, interleaved: bool) -> Tensor:
    height, width = x.shape[2:]
    shaped = values.view(-1, height, width, 3).permute(0, 3, 1, 2) if interleaved else values.view_as(x)
    return shaped.to(x.dtype) / 255


def _xor_of_neighbours(values: Tensor) -> Tensor:
    return torch.cat([values[:, :1], values[:, 1:] ^ values[:, :-1]], dim=1)


def _difference_of_neighbours(values: Tensor) -> Tensor:
    return torch.cat([values[:, :1], values[:, 1:] - values[:, :-1]], dim=1)  # uint8 wraps


def _xor_of_all_before(values: Tensor) -> Tensor:
    step = 1
    while step < values.shape[1]:  # by doubling steps
        values = torch.cat([values[:, :step], values[:, step:] ^ values[:, :-step]], dim=1)
        step *= 2
    return values


def _sum_of_all_before(values: Tensor) -> Tensor:
    return (values.cumsum(dim=1, dtype=torch.int32) % 256).to(torch.uint8)


def _chain(take_apart: Callable[[Tensor], Tensor], interleaved: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: _pictures(take_apart(_ordered(x, interleaved)), x, interleaved)


CHAINS: dict[str, Callable[[Tensor], Tensor]] = {
    f"{words}, by {order}": _chain(take_apart, order == "pixels")
    for words, take_apart in (
        ("XOR of neighbours", _xor_of_neighbours),
        ("difference of neighbours", _difference_of_neighbours),
        ("XOR of all before", _xor_of_all_before),
        ("sum of all before", _sum_of_all_before),
    )
    for order in ("planes", "pixels")
}
"""Name -> what is done to noisy pictures ``(n, 3, H, W)``, so that every byte of a chain tells its own clean one."""
