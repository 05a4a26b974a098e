"""Obfuscations of one key, as those of the zoo and as chains of them, that the zoo does not hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.attackers.filters import JPEG
from attacker_metrics.obfuscations import obfuscation
from attacker_metrics.obfuscations.values import cosines, from_bytes, join, split, to_bytes

Hide = Callable[[Tensor], Tensor]


def further_keys(side: int) -> dict[str, Hide]:
    """Name -> obfuscation of square pictures of one side; noise is drawn anew in every call."""
    secret = torch.Generator().manual_seed(9)
    noise = torch.Generator().manual_seed(10)
    shape = (3, side, side)
    phases = torch.fft.rfft2(torch.randn(shape, generator=secret))
    phases = phases / phases.abs()
    kernel = torch.rand(9, 9, generator=secret).square()
    disc = ((torch.arange(9) - 4)[:, None] ** 2 + (torch.arange(9) - 4) ** 2 <= 16).float()
    pad = torch.rand(shape, generator=secret)
    steps = torch.randint(0, 256, shape, generator=secret)
    mask = torch.randint(0, 2, (3, side, side), generator=secret).bool()
    places = torch.randperm(3 * side**2, generator=secret)
    pixels = torch.randperm(side**2, generator=secret)
    coefficients = torch.randperm(side**2 - 1, generator=secret) + 1
    table = torch.randperm(256, generator=secret)
    matrix = torch.linalg.qr(torch.randn(48, 48, generator=secret)).Q
    pixel_matrices = torch.randn(side, side, 3, 3, generator=secret)

    def noisy(x: Tensor, level: float) -> Tensor:
        return x + level * torch.randn(x.shape, generator=noise)

    def by_zoo(name: str, strength: float | None = None) -> Hide:
        return lambda x: obfuscation(name)(x, seed=3, strength=strength)

    def spectrum(x: Tensor) -> Tensor:
        turned: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * phases, s=x.shape[-2:])
        return turned

    def convolved(x: Tensor, taps: Tensor, mode: str) -> Tensor:
        weight = (taps / taps.sum()).expand(3, 1, -1, -1)
        return F.conv2d(F.pad(x, (4, 4, 4, 4), mode=mode), weight, groups=3)

    def moved(x: Tensor) -> Tensor:
        return x.flatten(2)[:, :, pixels].view_as(x)

    def cosine_places(x: Tensor) -> Tensor:
        basis = cosines(side, x)
        flat = (basis @ x @ basis.T).flatten(2)
        flat[:, :, 1:] = flat[:, :, coefficients]
        return basis.T @ flat.view_as(x) @ basis

    def rotated_blocks(x: Tensor) -> Tensor:
        return torch.stack([join((split(one, 4).flatten(1) @ matrix).view(-1, 3, 4, 4), side, side) for one in x])

    def pixel_mixing(x: Tensor) -> Tensor:
        return torch.einsum("hwcd,bdhw->bchw", pixel_matrices, x)

    def chained(x: Tensor) -> Tensor:
        values = to_bytes(x).permute(0, 2, 3, 1).flatten(1)
        return from_bytes((values.cumsum(1) % 256).view(len(x), side, side, 3).permute(0, 3, 1, 2), x)

    half = side // 2
    shuffled = by_zoo("block-shuffle", 8)
    return {
        **{f"etc of {size}": by_zoo("etc-colour", size) for size in (4, 8, 32)},
        **{f"block shuffle of {size}": by_zoo("block-shuffle", size) for size in (4, 16)},
        "block shuffle of 8 and noise .5": lambda x: noisy(shuffled(x), 0.5),
        "block shuffle of 16 and noise 1": lambda x: noisy(by_zoo("block-shuffle", 16)(x), 1.0),
        "etc of 8 and noise .3": lambda x: noisy(by_zoo("etc-colour", 8)(x), 0.3),
        "row shuffle and noise .5": lambda x: noisy(by_zoo("row-shuffle")(x), 0.5),
        "etc of 8 and a table": lambda x: table[to_bytes(by_zoo("etc-colour", 8)(x))] / 255,
        "block shuffle of 8 and a table per place": lambda x: by_zoo("substitution-table-per-position")(shuffled(x)),
        "pixel shuffle and pad modulo 1": lambda x: (moved(x) + pad) % 1,
        "value shuffle and xor pad": lambda x: (
            (to_bytes(x).flatten(1)[:, places].view_as(steps[None].expand_as(x)) ^ steps) / 255
        ),
        "pixel shuffle and noise .1": lambda x: noisy(moved(x), 0.1),
        "pixel shuffle and noise .3": lambda x: noisy(moved(x), 0.3),
        "pixel shuffle and a table": lambda x: table[to_bytes(moved(x))] / 255,
        "blur, then pixel shuffle": lambda x: moved(convolved(x, disc, "replicate")),
        "fourier phases and noise .2": lambda x: noisy(spectrum(x), 0.2),
        "fourier phases, then gamma": lambda x: (0.5 + 0.25 * (spectrum(x) - 0.5)).clamp(0, 1) ** 3,
        "tone curve, then fourier phases": lambda x: spectrum(1 - x**3),
        "fourier phases in 8 bits": lambda x: ((0.5 + 0.25 * (spectrum(x) - 0.5)).clamp(0, 1) * 255).round() / 255,
        "circular random filter": lambda x: convolved(x, kernel, "circular"),
        "random filter and noise .02": lambda x: noisy(convolved(x, kernel, "replicate"), 0.02),
        "disc blur in 8 bits": lambda x: (convolved(x, disc, "replicate") * 255).round() / 255,
        "circular shift and noise .3": lambda x: noisy(x.roll((half - 3, 11), (2, 3)), 0.3),
        "cosine coefficients shuffled": cosine_places,
        "a rotation of blocks of 4": rotated_blocks,
        "a rotation of blocks of 4, blocks shuffled": lambda x: shuffled(rotated_blocks(x)),
        "a colour matrix per pixel": pixel_mixing,
        "a colour matrix per pixel and noise .1": lambda x: noisy(pixel_mixing(x), 0.1),
        "a chain of sums modulo 256": chained,
        "signs per place and noise .3": lambda x: noisy(torch.where(mask, 1 - x, x), 0.3),
        "xor pad and jpeg": lambda x: JPEG(85)(by_zoo("xor-pad")(x)),
        "negation per place and jpeg": lambda x: JPEG(85)(torch.where(mask, 1 - x, x)),
        "blocks turned by 180, every other one": lambda x: torch.stack(
            [join(torch.cat([split(one, 8)[::2].rot90(2, (2, 3)), split(one, 8)[1::2]]), side, side) for one in x]
        ),
        "nearest of 8 levels, then pixel shuffle": lambda x: moved((x * 7).round() / 7),
    }
