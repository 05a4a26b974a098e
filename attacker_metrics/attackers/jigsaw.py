"""A blind attacker against shuffled blocks: they are put together by their borders, as a jigsaw puzzle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_SHUFFLED = 1.5
"""How much steeper pictures are across borders of blocks than inside, from which blocks count as shuffled."""
_LEAST_SIDE = 4
_RIGHT, _BELOW = 0, 1
_TINY = 1e-6


@dataclass(frozen=True)
class Assemble:
    """Pictures whose blocks were shuffled, put together again; others stay. It needs no pair and no key.

    The side of blocks is that whose borders are steepest. Blocks are placed one by one, from the two whose borders fit
    best by far, each where it fits its placed neighbours best, within the picture's own number of rows and columns.
    Several starts are tried; of the assemblies and the picture as it was sent that whose borders fit best is kept.
    Blocks that were turned or negated are not recognised.

    Args:
        most_blocks: pictures of more blocks stay as they are: time grows with the square of their number, at least.
        starts: how many are tried.

    Raises:
        ValueError: if a setting is below 4, or 1.

    Example:
        >>> import torch
        >>> row = torch.linspace(0, 1, 32).square()
        >>> picture = (row[:, None] + 0.5 * row).expand(1, 3, 32, 32) / 1.5
        >>> shuffled = torch.cat([picture[..., 16:, :], picture[..., :16, :]], dim=2)
        >>> bool(torch.equal(Assemble()(shuffled), picture))
        True

    Source:
        Pomeranz, Shemesh and Ben-Shahar: A fully automated greedy square jigsaw puzzle solver, CVPR 2011.
    """

    most_blocks: int = 1024
    starts: int = 3

    def __post_init__(self) -> None:
        if self.most_blocks < 4 or self.starts < 1:
            raise ValueError(
                f"most_blocks must be at least 4 and starts at least 1, got {self.most_blocks!r} and {self.starts!r}."
            )

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Assemble images ``(B, C, H, W)``; the gradient does not flow."""
        return torch.stack([self._assembled(image) for image in x])

    def _assembled(self, image: Tensor) -> Tensor:
        side = block_side(image, self.most_blocks)
        if side is None:
            return image
        rows, columns = image.shape[1] // side, image.shape[2] // side
        cut = image.reshape(-1, rows, side, columns, side).permute(1, 3, 0, 2, 4).flatten(0, 1)
        fits = _fits(cut.double().cpu())
        sent = torch.arange(rows * columns).view(rows, columns)
        tried = [sent, *(_placed(fits, rows, columns, start) for start in _starts(fits, self.starts))]
        order = max(tried, key=lambda grid: _total(fits, grid)).flatten().to(image.device)
        return cut[order].view(rows, columns, -1, side, side).permute(2, 0, 3, 1, 4).reshape(image.shape)


def block_side(image: Tensor, most_blocks: int) -> int | None:
    """The side of the blocks of ``(C, H, W)`` that seem to be shuffled; None if no grid is steep enough."""
    height, width = image.shape[1:]
    steep = [image.double().diff(dim=dim).abs().mean(dim=(0, 3 - dim)) for dim in (1, 2)]
    found: dict[int, float] = {}
    for side in range(_LEAST_SIDE, math.gcd(height, width) + 1):
        blocks = (height // side) * (width // side)
        if height % side or width % side or not 2 <= blocks <= most_blocks:
            continue
        on = torch.cat([line[side - 1 :: side] for line in steep])
        off = torch.cat([line[torch.arange(1, len(line) + 1) % side != 0] for line in steep])
        found[side] = float(on.mean() / off.mean().clamp(min=_TINY))
    best = max(found, key=lambda side: found[side], default=None)
    return best if best is not None and found[best] >= _SHUFFLED else None


def _fits(blocks: Tensor) -> Tensor:
    """How well block j fits right of block i, and below it: ``(2, n, n)``, in (0, 1]."""
    both = []
    for turned in (blocks, blocks.transpose(2, 3)):
        last, before, first, after = (turned[..., k].flatten(1) for k in (-1, -2, 0, 1))
        ahead, back = 2 * last - before, 2 * first - after  # straight on beyond the border
        distance = torch.cdist(ahead, first, p=1) + torch.cdist(last, back, p=1)
        distance.fill_diagonal_(torch.inf)
        scale = torch.minimum(_second_least(distance, 1), _second_least(distance, 0)).clamp(min=_TINY)
        both.append((-distance / scale).exp())
    return torch.stack(both)


def _second_least(distance: Tensor, dim: int) -> Tensor:
    return distance.topk(min(2, distance.shape[dim]), dim=dim, largest=False).values.select(dim, -1).unsqueeze(dim)


def _starts(fits: Tensor, count: int) -> Iterator[int]:
    """Blocks whose best neighbours are clearest."""
    best = fits.amax(dim=2).sum(dim=0) + fits.amax(dim=1).sum(dim=0)
    return iter(best.topk(min(count, len(best))).indices.tolist())


def _placed(fits: Tensor, rows: int, columns: int, start: int) -> Tensor:
    """Blocks ``(rows, columns)`` from the first one on, whose place within the frame shows in the end."""
    count = rows * columns
    at: dict[tuple[int, int], int] = {(0, 0): start}
    score: dict[tuple[int, int], Tensor] = {}
    free = torch.ones(count, dtype=torch.bool)
    free[start] = False
    top = left = bottom = right = 0
    around = ((0, 1), (0, -1), (1, 0), (-1, 0))

    def renew(place: tuple[int, int]) -> None:
        total, known = torch.zeros(count, dtype=fits.dtype), 0
        for down, across in around:
            neighbour = at.get((place[0] + down, place[1] + across))
            if neighbour is not None:
                known += 1
                direction = _BELOW if down else _RIGHT
                total = total + (fits[direction, :, neighbour] if down + across > 0 else fits[direction, neighbour])
        score[place] = total / known + 0.05 * known

    def look_around(place: tuple[int, int]) -> None:
        for down, across in around:
            if (near := (place[0] + down, place[1] + across)) not in at:
                renew(near)

    look_around((0, 0))
    while len(at) < count:
        inside = [
            place
            for place in score
            if max(bottom, place[0]) - min(top, place[0]) < rows and max(right, place[1]) - min(left, place[1]) < columns
        ]
        table = torch.stack([score[place] for place in inside]).masked_fill(~free, -torch.inf)
        index = int(table.argmax())
        place, block = inside[index // count], index % count
        at[place] = block
        free[block] = False
        del score[place]
        top, bottom, left, right = min(top, place[0]), max(bottom, place[0]), min(left, place[1]), max(right, place[1])
        look_around(place)
    return torch.tensor([[at[top + row, left + column] for column in range(columns)] for row in range(rows)])


def _total(fits: Tensor, grid: Tensor) -> float:
    return float(fits[_RIGHT, grid[:, :-1], grid[:, 1:]].sum() + fits[_BELOW, grid[:-1], grid[1:]].sum())
