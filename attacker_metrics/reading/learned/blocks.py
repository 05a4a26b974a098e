"""Where did every block go? Blocks of noisy pictures matched with blocks of clean ones: turned, mirrored, of any channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attacker_metrics.reading.learned.places import standardised

_SIDES = (4, 8, 16, 32)
_LEAST = 4
_COMPARED = 24
"""Pairs by which candidates are compared pixel by pixel."""
_CANDIDATES = 8
_HELD = 2**24
"""Correlations that are held at once."""
_TURNS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda b: b,
    lambda b: b.rot90(1, (-2, -1)),
    lambda b: b.rot90(2, (-2, -1)),
    lambda b: b.rot90(3, (-2, -1)),
    lambda b: b.flip(-1),
    lambda b: b.flip(-2),
    lambda b: b.transpose(-2, -1),
    lambda b: b.rot90(2, (-2, -1)).transpose(-2, -1),
)


@dataclass(frozen=True)
class Grid:
    """Blocks of ``rows`` x ``columns`` pixels from the upper left corner, each channel's by itself; what is over stays."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"blocks of {self.rows} x {self.columns}"

    def cut(self, values: Tensor) -> Tensor:
        """``(..., 3, H, W)`` -> ``(..., blocks, rows, columns)``."""
        down, across = values.shape[-2] // self.rows, values.shape[-1] // self.columns
        inside = values[..., : down * self.rows, : across * self.columns]
        cut = inside.reshape(*values.shape[:-2], down, self.rows, across, self.columns)
        return cut.transpose(-3, -2).flatten(-5, -3)


def grids(height: int, width: int) -> Iterator[Grid]:
    """The grids that are tried: squares, large ones first, then whole rows and whole columns."""
    common = math.gcd(height, width)
    sides = {*_SIDES, *(side for side in range(_LEAST, common) if common % side == 0)}
    for side in sorted(sides, reverse=True):
        if 2 * side <= min(height, width):
            yield Grid(side, side)
    yield Grid(1, width)
    yield Grid(height, 1)


def likely_grids(noisy: Tensor, clean: Tensor, count: int) -> list[Grid]:
    """The grids whose blocks' means follow each other best over the pairs.

    Args:
        noisy: ``(n, 3, H, W)``.
        clean: their originals.
        count: how many grids.
    """
    found = {}
    for grid in grids(*noisy.shape[2:]):
        x, y = (_means(grid.cut(side)) for side in (noisy, clean))
        best = torch.cat([(part.T @ x).abs().amax(dim=1) for part in torch.split(y, max(1, _HELD // x.shape[1]), dim=1)])
        found[grid] = float(best.square().mean())
    return sorted(found, key=lambda grid: -round(found[grid], 2))[:count]


def matched_blocks(noisy: Tensor, clean: Tensor, grid: Grid) -> Tensor:
    """For every place of the clean pictures the place of the noisy ones that its block came to.

    The means of blocks, which noise changes little, tell candidates; of these and their eight orientations the one wins
    whose pixels follow best over the pairs, in either sign. Time grows with the square of the number of blocks.

    Args:
        noisy: ``(n, 3, H, W)``.
        clean: their originals.
        grid: the blocks.

    Returns:
        ``(3 H W,)``: indices of noisy places.
    """
    count = noisy[0].numel()
    places = torch.arange(count, device=noisy.device).view(noisy.shape[1:])
    own, source = grid.cut(places), places.flatten().clone()
    x, y = (_means(grid.cut(side)) for side in (noisy, clean))
    flat = [standardised([side.flatten(1)[:_COMPARED]])[0].T.contiguous() for side in (noisy, clean)]  # (places, n)
    turns = _TURNS if grid.rows == grid.columns else (_TURNS[0], _TURNS[2], _TURNS[4], _TURNS[5])
    step = max(1, min(_HELD // x.shape[1], _HELD // (_CANDIDATES * own[0].numel() * _COMPARED)))
    for start in range(0, len(own), step):
        blocks = slice(start, start + step)
        candidates = (y[:, blocks].T @ x).abs_().topk(min(_CANDIDATES, x.shape[1]), dim=1).indices
        wanted = flat[1][own[blocks].flatten(1)].flatten(1)  # (blocks, pixels n)
        scores = torch.stack(
            [
                torch.einsum("bkp,bp->bk", flat[0][turn(own[candidates]).flatten(2)].flatten(2), wanted).abs_()
                for turn in turns
            ]
        )
        turn, which = divmod_of(scores.permute(1, 0, 2).flatten(1).argmax(dim=1), candidates.shape[1])
        turned = torch.stack([one(own[candidates.gather(1, which[:, None])[:, 0]]) for one in turns])
        source[own[blocks].flatten()] = turned[turn, torch.arange(len(turn), device=turn.device)].flatten()
    return source


def divmod_of(index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Row and column of an index into a flattened table of ``count`` columns."""
    return index // count, index % count


def _means(blocks: Tensor) -> Tensor:
    return standardised([blocks.mean(dim=(-2, -1))])[0]
