"""How far a training step is from what the machine can do, and where its time goes.

python benchmarks/roofline.py [--threads N] [--backend torch|native] [--output DIR]

The floor is the arithmetic that the components need, at the rate of the machine's matrix product. Per pixel of an image,
with P = 14 compared planes, 4/3 pixels in a pyramid and two 11-tap passes per filtered map: 4 P maps forward and 3 P maps
backward, about 30 operations forward and 20 backward per plane for the maps' formulas, and the attackers' own (the blur
dominates).
"""

from __future__ import annotations

import cProfile
import math
import pstats
from functools import partial
from pathlib import Path
from typing import Any

import frame
import loss
import torch

import attacker_metrics
from attacker_metrics.engine.backends import backend

SHAPE = (8, 3, 224, 224)
ROUNDS = 9
PLANES, PYRAMID, TAPS, BLUR_TAPS = 14, 4 / 3, 11, 13
FORWARD_FLOP = PLANES * PYRAMID * (4 * 2 * TAPS * 2 + 30) + 2 * (2 * BLUR_TAPS * 2 + 120)
BACKWARD_FLOP = PLANES * PYRAMID * (3 * 2 * TAPS * 2 + 20) + 2 * BLUR_TAPS * 2 + 150
STAGES = {
    "views": "scores.py:_views",
    "planes side by side": "scores.py:_gather",
    "MS-SSIM and its slopes": "ms_ssim.py:ms_ssim",
    "squared Pearsons": "pearson.py:correlate",
    "squared Pearsons' slopes": "pearson.py:slopes",
    "pull-backs": "standard.py:pull_back",
    "checks": "pair.py:__init__",
}


def main() -> None:
    options = frame.engine_options(frame.parser(__doc__))
    pixels = math.prod(SHAPE) / 3
    rate, bandwidth = matrix_product_rate(), copy_bandwidth()
    print(f"{rate / 1e9:.0f} GFLOP/s in a float32 matrix product, {bandwidth / 1e9:.1f} GB/s copied\n")
    rows: list[dict[str, Any]] = []
    for what, flop, backward in (
        ("forward", FORWARD_FLOP, False),
        ("forward + backward", FORWARD_FLOP + BACKWARD_FLOP, True),
    ):
        seconds = median({"step": loss.make_step(loss.OURS, SHAPE, backward, "cpu")})
        floor = flop * pixels / rate
        rows.append({"pass": what, "flop_per_pixel": flop, "floor_s": floor, "s": seconds, "distance": seconds / floor})
    header = ["pass", "FLOP per pixel", "floor, ms", "measured, ms", "measured / floor"]
    cells = [
        [r["pass"], f"{r['flop_per_pixel']:.0f}", *(f"{r[k] * 1e3:.1f}" for k in ("floor_s", "s")), f"{r['distance']:.1f}"]
        for r in rows
    ]
    print(frame.markdown(header, cells) + "\n")
    payload: dict[str, Any] = {"backend": str(backend()), "flop_per_s": rate, "copy_bytes_per_s": bandwidth, "rows": rows}
    if backend() == "torch":
        payload["stages"] = stages()
        cells = [[name, f"{share:.0%}"] for name, share in payload["stages"].items()]
        print(frame.markdown(["stage of forward + backward", "share of the time"], cells) + "\n")
    print(f"wrote {frame.save('roofline-' + backend(), payload, options.output).name}")


def median(steps: dict[str, frame.Step]) -> float:
    name = next(iter(steps))
    result: float = frame.summarise(frame.interleave(steps, rounds=ROUNDS), name)[name]["wall_s"]["median"]
    return result


def matrix_product_rate() -> float:
    a, b = torch.rand(2, 1536, 1536).unbind()
    return 2 * 1536**3 / median({"product": partial(torch.mm, a, b)})


def copy_bandwidth() -> float:
    """Bytes read and written per second."""
    source = torch.rand(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median({"copy": partial(target.copy_, source)})


def stages() -> dict[str, float]:
    """Each stage's share of a step, from Python's profiler; the stages call torch, so its own cost is small."""
    step = loss.make_step(loss.OURS, SHAPE, True, "cpu")
    step()
    torch.autograd.set_multithreading_enabled(False)
    profile = cProfile.Profile()
    profile.runcall(step)
    torch.autograd.set_multithreading_enabled(True)
    found = pstats.Stats(profile)
    package = str(Path(attacker_metrics.__file__).parent)
    spent: dict[str, float] = {}
    for (file, _, function), (_, _, _, cumulative, _) in found.stats.items():  # type: ignore[attr-defined]
        if file.startswith(package):
            name = f"{Path(file).name}:{function}"
            spent[name] = max(spent.get(name, 0.0), cumulative)  # a dispatching function and the methods that it calls
    total: float = found.total_tt  # type: ignore[attr-defined]
    shares = {name: spent[key] / total for name, key in STAGES.items()}
    return {**shares, "the rest": 1 - sum(shares.values())}


if __name__ == "__main__":
    main()
