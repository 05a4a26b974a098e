"""A small residual network with a fixed budget, trained on a bounded sample of tiles."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacker_metrics.reading.learned.attacker import LearnedAttacker, _hash, gathered

if torch.distributed.is_available():
    # torch's optimizers import this module, whose default arguments keep a process group that exists by then alive beyond
    # destroy_process_group(); its threads then meet the end of Python, which aborts the process now and then.
    import torch.distributed.nn.functional

_TILE, _TILES, _BATCH = 32, 512, 16
_WIDTH, _BLOCKS = 16, 2
_RATE = 3e-3
_DTYPE = torch.float32
"""Of weights and statistics, whatever torch's default: the fit is the same."""
_LEAST_STEPS = 300  # the rate falls to 0 with the budget: any short training seems to stand still at its end
_STANDSTILL, _NEGLIGIBLE = 0.05, 0.01


class CNNAttacker(LearnedAttacker):
    """A residual network of 10,000 weights, trained by Adam for a fixed number of steps from a fixed seed.

    It learns from at most 512 tiles of 32 x 32 pixels: those whose hashed names come first, so that memory is bounded, and
    the sample does not depend on batching, order or the number of processes. The same images give the same attacker on the
    same machine. A lower bound of what a determined attacker learns, not an upper one. An unfinished fit (``fit_state``,
    ``state_dict``) holds the tiles, so pixels of the pictures; a finished one does not.

    Args:
        steps: number of Adam steps; the suite ``standard-v1`` takes the default.
        seed: of the initial weights and the batches.

    Raises:
        ValueError: if there is no step; in ``fit_update``, for images below 32 pixels.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 64, 64)
        >>> attacker = CNNAttacker(steps=100)
        >>> attacker.fit_update(1 - clean, clean)
        >>> attacker.fit_compute()
        >>> bool((attacker(1 - clean) - clean).abs().mean() < 0.1)
        True
    """

    __jit_ignored_attributes__: ClassVar[list[str]] = ["level", "spread"]  # whose annotations are text
    level: Tensor
    spread: Tensor

    def __init__(self, steps: int = 600, seed: int = 0) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps!r}.")
        self.steps, self.seed = steps, seed
        self.converged: bool | None = None
        """Whether the mean loss over all tiles stood still: over the last two fifths of at least 300 steps it changed by at
        most 5 %, or 1 % of the clean tiles' variance; False for fewer steps. It is no proof that more would not help."""
        with torch.inference_mode(mode=False), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
            self.network = _ResidualNetwork()
        self.network.requires_grad_(requires_grad=False)
        self.register_buffer("level", torch.zeros(2, 3, 1, 1, dtype=_DTYPE))
        self.register_buffer("spread", torch.ones(2, 3, 1, 1, dtype=_DTYPE))
        self._tiles: list[tuple[int, bytes, int, Tensor]] = []  # a heap, the largest hash on top, the tile behind

    def __repr__(self) -> str:
        return f"CNNAttacker(steps={self.steps}, seed={self.seed})"

    def get_extra_state(self) -> dict[str, Any]:
        """Also whether the training had converged, which a report must know."""
        return {**super().get_extra_state(), "converged": self.converged}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        super().set_extra_state(state)
        self.converged = state["converged"]

    def _observe(self, noisy: Tensor, clean: Tensor, keys: Sequence[str]) -> None:
        if min(noisy.shape[2:]) < _TILE:
            raise ValueError(f"images must have sides of at least {_TILE} pixels to fit on, got {tuple(noisy.shape[2:])}.")
        both = torch.cat((noisy, clean), dim=1).float()
        for image, key in zip(both, keys, strict=True):
            for top in range(0, image.shape[1] - _TILE + 1, _TILE):
                for left in range(0, image.shape[2] - _TILE + 1, _TILE):
                    rank = -_hash(f"{key} {top} {left}")
                    if self._may_stay(rank):
                        self._keep(rank, image[:, top : top + _TILE, left : left + _TILE].cpu().clone())

    def _may_stay(self, rank: int) -> bool:
        return len(self._tiles) < _TILES or rank >= self._tiles[0][0]

    def _keep(self, rank: int, tile: Tensor) -> None:
        # Draws of one image share its name: their pixels decide, not the order in which they come.
        pixels = hashlib.blake2b(tile.numpy().tobytes(), digest_size=8).digest()
        push = heapq.heappush if len(self._tiles) < _TILES else heapq.heappushpop
        push(self._tiles, (rank, pixels, id(tile), tile))  # tensors cannot be ordered

    def _observed(self) -> dict[str, Any]:
        tiles = [tile for *_, tile in self._tiles]
        return {"ranks": [rank for rank, *_ in self._tiles], "tiles": torch.stack(tiles) if tiles else None}

    def _take_over(self, observed: Mapping[str, Any]) -> None:
        for i, rank in enumerate(observed["ranks"]):
            if self._may_stay(rank):
                self._keep(rank, observed["tiles"][i].clone())

    def _forget(self) -> None:
        self._tiles = []

    def _solve(self) -> None:
        everyones = [ranked for mine in gathered(self._tiles) for ranked in mine]
        chosen = [tile for *_, tile in sorted(everyones, key=lambda ranked: ranked[:2], reverse=True)[:_TILES]]
        if not chosen:
            raise ValueError("CNNAttacker saw no finite pair: call fit_update on the fit split first.")
        pairs = torch.stack(chosen).view(-1, 2, 3, _TILE, _TILE).transpose(0, 1)  # (2, tiles, 3, H, W)
        self.level = pairs.double().mean(dim=(1, 3, 4), keepdim=True)[:, 0].float()
        centred = pairs - self.level[:, None]
        self.spread = centred.double().square().mean(dim=(1, 3, 4), keepdim=True)[:, 0].sqrt().clamp(min=1e-12).float()
        self.level, self.spread = (value.to(self.network.mix.weight) for value in (self.level, self.spread))
        before, after = self._train(*(centred / self.spread.cpu()[:, None]))
        still = abs(after - before) <= max(_STANDSTILL * before, _NEGLIGIBLE)
        self.converged = self.steps >= _LEAST_STEPS and still
        self._tiles = []

    def _train(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Train; the mean loss over all tiles after three fifths of the steps, and at the end."""
        device = self.level.device
        x, y = x.to(self.level), y.to(self.level)
        draws = torch.Generator().manual_seed(self.seed)
        self.network.requires_grad_(requires_grad=True)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.enable_grad(), torch.autocast(device.type, enabled=False), exact:
            for step in range(self.steps):
                if step == self.steps * 3 // 5:
                    before = self._loss(x, y)
                batch = torch.randint(len(x), (_BATCH,), generator=draws)
                loss = F.mse_loss(self.network(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            after = self._loss(x, y)
        self.network.requires_grad_(requires_grad=False)
        return before, after

    @torch.no_grad()
    def _loss(self, x: Tensor, y: Tensor) -> float:
        batches = zip(torch.split(x, _BATCH), torch.split(y, _BATCH), strict=True)
        total = sum(F.mse_loss(self.network(noisy), clean, reduction="sum").double() for noisy, clean in batches)
        return float(total) / y.numel()

    def _view(self, x: Tensor) -> Tensor:
        seen = (x.to(self.level) - self.level[0]) / self.spread[0]
        restored = self.network(seen) * self.spread[1] + self.level[1]
        return cast("Tensor", restored).to(x.dtype)


class _ResidualNetwork(nn.Module):
    """A mix of the channels, plus what the residual blocks add."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, dtype=_DTYPE)
        self.enter = nn.Conv2d(3, _WIDTH, 3, padding=1, dtype=_DTYPE)
        self.blocks = nn.ModuleList(_block(dilation=2**k) for k in range(_BLOCKS))
        self.leave = nn.Conv2d(_WIDTH, 3, 3, padding=1, dtype=_DTYPE)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast("Tensor", self.leave.bias))

    @torch.jit.unused
    def forward(self, x: Tensor) -> Tensor:
        features = self.enter(x)
        for block in self.blocks:
            features = features + block(features)
        return cast("Tensor", self.mix(x) + self.leave(features))


def _block(dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(_WIDTH, _WIDTH, 3, padding=dilation, dilation=dilation, dtype=_DTYPE),
        nn.ReLU(),
        nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, dtype=_DTYPE),
    )
