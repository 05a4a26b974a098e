"""What learned attackers restore of every obfuscation whose key pairs give away: of the zoo, and of others.

python benchmarks/keyed.py [--side 64] [--pairs 200] [--kinds KIND ...] [--rows pairs nobody others NAME ...]
    [--output DIR]

Half of the pairs are fitted on, and no photograph is on both sides. A picture is read where its score, less the mean of its
scores against 20 originals of other photographs, is beyond all but 1 % of such differences of these.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import frame
import skimage.data
import sklearn.datasets
import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics import SquaredPearson
from attacker_metrics.attackers import clamp, luma
from attacker_metrics.attackers.filters import JPEG
from attacker_metrics.obfuscations import ZOO, obfuscation, zoo
from attacker_metrics.obfuscations.values import cosines, from_bytes, join, split, to_bytes
from attacker_metrics.reading.learned import STANDARD_LEARNED

FITTED = ("astronaut", "coffee", "retina", "hubble_deep_field", "immunohistochemistry", "stereo_motorcycle")
SCORED = ("chelsea", "rocket", "china.jpg", "flower.jpg")
UNRELATED = 20
RATE = 0.01
Hide = Callable[[Tensor], Tensor]


def crops(names: tuple[str, ...], count: int, side: int, seed: int) -> tuple[Tensor, list[str]]:
    """Random squares of photographs that take turns, shrunk to one side, in 8 bits; and whose each is."""
    generator, made = torch.Generator().manual_seed(seed), []
    for i in range(count):
        picture = photograph(names[i % len(names)])
        most = min(picture.shape[1:])
        cut = int(torch.randint(min(side, most), most + 1, (), generator=generator))
        top, left = (int(torch.randint(0, size - cut + 1, (), generator=generator)) for size in picture.shape[1:])
        crop = picture[None, :, top : top + cut, left : left + cut]
        crop = F.interpolate(crop, (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)
        made.append(crop.flip(-1) if torch.rand((), generator=generator) < 0.5 else crop)
    return (torch.stack(made) * 255).round() / 255, [names[i % len(names)] for i in range(count)]


@cache
def photograph(name: str) -> Tensor:
    """``(3, H, W)`` in [0, 1]."""
    if name.endswith(".jpg"):
        pixels = sklearn.datasets.load_sample_image(name)
    else:
        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    return torch.tensor(pixels).permute(2, 0, 1).float() / 255


def others(side: int) -> dict[str, Hide]:
    """Obfuscations of one key that the zoo does not hold."""
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


def rows(names: list[str], side: int) -> dict[str, Hide]:
    """The obfuscations that ``--rows`` names."""
    made, found = others(side), {}
    for name in names:
        if name == "others":
            found.update(made)
        elif name in ("pairs", "nobody", "anyone", "key"):
            found.update({entry.name: _of_zoo(entry.name) for entry in zoo(undone_by=name)})
        else:
            found[name] = _of_zoo(name) if name in ZOO else made[name]
    return found


def _of_zoo(name: str) -> Hide:
    offset = iter(range(0, 10**9, 10**4))  # noise is drawn by number

    def hide(x: Tensor) -> Tensor:
        start = next(offset)
        return ZOO[name](x, seed=1, ids=range(start, start + len(x)))

    return hide


def score(views: Tensor, clean: Tensor, whose: list[str]) -> tuple[Tensor, float, float]:
    """Squared correlation of luma of every view with its original; the share read; the mean among unrelated ones."""
    generator = torch.Generator().manual_seed(0)
    seen, truth = luma(clamp(views.float())), luma(clean)
    own = SquaredPearson()(seen, truth)
    unrelated = torch.empty(len(clean), UNRELATED)
    for i, name in enumerate(whose):
        of_others = torch.tensor([k for k, other in enumerate(whose) if other != name])
        drawn = of_others[torch.randint(len(of_others), (UNRELATED,), generator=generator)]
        unrelated[i] = SquaredPearson()(seen[i].expand(UNRELATED, -1, -1, -1), truth[drawn])
    level = unrelated.mean(dim=1)
    bar = (unrelated - level[:, None]).flatten().quantile(1 - RATE)
    return own, float((own - level > bar).float().mean()), float(level.mean())


def main() -> int:
    parser = frame.parser(__doc__)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=[kind for kind in STANDARD_LEARNED if kind != "cnn"])
    parser.add_argument("--rows", nargs="+", default=["pairs", "nobody", "others"])
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    half = options.pairs // 2
    fitted, _ = crops(FITTED, half, options.side, seed=0)
    scored, whose = crops(SCORED, half, options.side, seed=1)
    table = []
    for name, hide in rows(options.rows, options.side).items():
        sent = hide(fitted), hide(scored)
        entry: dict[str, dict[str, Any]] = {}
        for kind in options.kinds:
            attacker, start = STANDARD_LEARNED[kind](), time.process_time()
            try:
                attacker.fit_update(sent[0], fitted, [f"fitted {i}" for i in range(half)])
                attacker.fit_compute()
            except ValueError as error:
                entry[kind] = {"refused": str(error)}
                continue
            seconds = time.process_time() - start
            with torch.inference_mode():
                own, share, unrelated = score(attacker(sent[1]), scored, whose)
            found = getattr(attacker, "found", None)
            entry[kind] = {
                "r2": float(own.median()),
                "read": share,
                "unrelated": unrelated,
                "fit_s": seconds,
                "found": found if found is None or isinstance(found, str) else ", ".join(map(str, found)),
            }
        table.append({"obfuscation": name, **entry})
        cells = [
            f"{kind} {e['r2']:.2f}/{e['read']:.2f} {e['fit_s']:.1f}s {e['found'] or ''}" if "r2" in e else f"{kind} refused"
            for kind, e in entry.items()
        ]
        print(f"{name}: " + " | ".join(cells), flush=True)
    payload = {"side": options.side, "pairs": options.pairs, "rate": RATE, "rows": table}
    print(f"wrote {frame.save(f'keyed-{options.side}', payload, options.output).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
