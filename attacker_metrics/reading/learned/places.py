"""Where did every value go? Places of noisy pictures matched with places of clean ones, by how they vary over pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_SEARCHED = 64
"""Pairs by which candidates are found; the best of them are compared over all pairs."""
_CANDIDATES = 4
_HELD = 2**25
"""Correlations that are held at once."""
_FLAT = 1e-6


def _as_it_is(values: Tensor) -> tuple[Tensor, ...]:
    return (values,)


def _on_a_circle(values: Tensor) -> tuple[Tensor, ...]:
    angle = 2 * math.pi * values
    return angle.cos(), angle.sin()


def _highest_bit(values: Tensor) -> tuple[Tensor, ...]:
    return ((values >= 128 / 255).to(values.dtype),)


FEATURES: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "values": _as_it_is,
    "values on a circle": _on_a_circle,
    "highest bits": _highest_bit,
}
"""Name -> what is compared: the second survives a pad that is added modulo 1, the third a pad that is XORed."""


def matched(noisy: Tensor, clean: Tensor, features: str) -> Tensor:
    """For every place of the clean pictures the place of the noisy ones that follows it best over the pairs.

    Which is that of the largest absolute correlation; of complex numbers on a circle, so that any rotation of it counts too.
    A noisy place may be taken several times. Time grows with the square of the places, memory is bounded.

    Args:
        noisy: ``(n, P)``, P values of n pictures.
        clean: ``(n, Q)``, of their originals, at all places or some.
        features: of :data:`FEATURES`.

    Returns:
        ``(Q,)``: indices of noisy places.
    """
    parts = [tuple(FEATURES[features](side)) for side in (noisy, clean)]
    x, y = (_standardised(side) for side in parts)
    few_x, few_y = (_standardised([part[:_SEARCHED] for part in side]) for side in parts)
    step = max(1, _HELD // (noisy.shape[1] * len(few_x)))
    sources = []
    for start in range(0, clean.shape[1], step):
        columns = slice(start, start + step)
        found = _absolute([[b[:, columns].T @ a for a in few_x] for b in few_y])
        candidates = found.topk(min(_CANDIDATES, noisy.shape[1]), dim=1).indices
        exact = _absolute([[torch.einsum("nkc,nk->kc", a[:, candidates], b[:, columns]) for a in x] for b in y])
        sources.append(candidates.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0])
    return torch.cat(sources)


def largest_by_chance(pairs: int, places: int) -> float:
    """About the largest squared correlation of a value with those of ``places`` unrelated places, over some pairs."""
    return 1 - places ** (-2 / max(pairs - 2, 1)) if places > 1 else 1 / max(pairs - 1, 1)


def _standardised(parts: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    """Centred columns, of which the parts together have the norm 1; those that do not vary are 0."""
    centred = [part - part.mean(dim=0) for part in parts]
    norms = torch.stack([part.square().sum(dim=0) for part in centred]).sum(dim=0).sqrt()
    norms = torch.where(norms > _FLAT * math.sqrt(len(parts[0])), norms, torch.inf)
    return [part / norms for part in centred]


def _absolute(products: list[list[Tensor]]) -> Tensor:
    """The magnitude of a correlation from the products of its parts: of real numbers, or of complex ones in either sense."""
    if len(products) == 1:
        return products[0][0].abs_()
    (cc, cs), (sc, ss) = products
    return torch.maximum(torch.hypot(cc + ss, sc - cs), torch.hypot(cc - ss, sc + cs))
