"""Where did every value go? Places of noisy pictures matched with places of clean ones, by how they vary over pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

_SEARCHED = 64
"""Pairs by which candidates are found; the best of them are compared over all pairs."""
_CANDIDATES = 4
_HELD = 2**25
"""Correlations that are held at once."""
_FLAT = 1e-6
_COMPARED_WITH_ALL = 4096
"""Noisy places, at most, of which all are candidates."""
_PROBED = 12
"""With those like how many of the few a clean place is compared."""


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
    A noisy place may be taken several times. Among many places only those are compared that are like the same one of a few
    hundred of them, so that time grows with the power 1.5 of their number; memory is bounded.

    Args:
        noisy: ``(n, P)``, P values of n pictures.
        clean: ``(n, Q)``, of their originals, at all places or some.
        features: of :data:`FEATURES`.

    Returns:
        ``(Q,)``: indices of noisy places.
    """
    parts = [tuple(FEATURES[features](side)) for side in (noisy, clean)]
    x, y = (standardised(side) for side in parts)
    few_x, few_y = (standardised([part[:_SEARCHED] for part in side]) for side in parts)
    if noisy.shape[1] <= _COMPARED_WITH_ALL:
        candidates = torch.cat(
            [
                _correlations(few_x, [part[:, columns] for part in few_y]).topk(_few(noisy), dim=1).indices
                for columns in _steps(clean.shape[1], noisy.shape[1])
            ]
        )
    else:
        candidates = _like_the_same(few_x, few_y)
    sources = []
    x, y = ([part.T.contiguous() for part in side] for side in (x, y))
    for rows in _steps(clean.shape[1], len(noisy) * candidates.shape[1]):
        of_these = candidates[rows]
        exact = _absolute([[torch.einsum("kcn,kn->kc", a[of_these], b[rows]) for a in x] for b in y])
        sources.append(of_these.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0])
    return torch.cat(sources)


def _like_the_same(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """For every column of y some columns of x that correlate with it, of those that are most like the same columns of x."""
    count, device = x[0].shape[1], x[0].device
    centres = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: 2 * int(count**0.5)].to(device)
    seeds = [part[:, centres] for part in x]
    of_x, of_y = (
        torch.cat(
            [
                _correlations(seeds, [part[:, columns] for part in side]).topk(most, dim=1).indices
                for columns in _steps(side[0].shape[1], len(centres))
            ]
        )
        for side, most in ((x, 1), (y, _PROBED))
    )
    asked_of, members_of = (
        torch.split(side.flatten().argsort(), side.flatten().bincount(minlength=len(centres)).tolist())
        for side in (of_y, of_x)
    )
    candidates = torch.zeros(y[0].shape[1], _PROBED, dtype=torch.int64, device=device)
    values = torch.full(candidates.shape, -1.0, device=device)
    x_rows, y_rows = ([part.T.contiguous() for part in side] for side in (x, y))
    for asked, members in zip(asked_of, members_of, strict=True):
        if len(asked) and len(members):
            own = [rows[members].T for rows in x_rows]
            found = _correlations(own, [rows[asked // _PROBED].T for rows in y_rows]).max(dim=1)
            candidates.view(-1)[asked], values.view(-1)[asked] = members[found.indices], found.values
    return candidates.gather(1, values.topk(_CANDIDATES, dim=1).indices)


def _correlations(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """Of every column of y with every one of x."""
    return _absolute([[b.T @ a for a in x] for b in y])


def _few(noisy: Tensor) -> int:
    return min(_CANDIDATES, noisy.shape[1])


def _steps(columns: int, width: int) -> Iterator[slice]:
    step = max(1, _HELD // width)
    return (slice(start, start + step) for start in range(0, columns, step))


def largest_by_chance(pairs: int, places: int) -> float:
    """About the largest squared correlation of a value with those of ``places`` unrelated places, over some pairs."""
    return 1 - places ** (-2 / max(pairs - 2, 1)) if places > 1 else 1 / max(pairs - 1, 1)


def standardised(parts: Sequence[Tensor]) -> list[Tensor]:
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
