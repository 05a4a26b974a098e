"""Time per pixel of a training step over batch sizes and image sizes; flat within 1.5x or exit status 1.

python benchmarks/scaling.py [--threads N] [--backend torch|native] [--output DIR]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import frame
import loss
import torch

from attacker_metrics.engine.backends import backend

SHAPES: dict[str, tuple[loss.Shape, ...]] = {
    "batch": ((1, 3, 224, 224), (8, 3, 224, 224), (64, 3, 224, 224)),
    "size": ((1, 3, 224, 224), (1, 3, 448, 448), (1, 3, 1024, 1024), (1, 3, 2048, 2048)),
}
FLAT = 1.5
ROUNDS = 7


def main() -> int:
    options = frame.engine_options(frame.parser(__doc__))
    sweeps, flat = {}, True
    for sweep, shapes in SHAPES.items():
        rows = [row(shape, measure(shape)) for shape in shapes]
        times = [entry["ns_per_pixel"] for entry in rows]
        spread = max(times) / min(times)
        flat = flat and spread <= FLAT
        sweeps[sweep] = {"rows": rows, "largest / smallest": spread}
        print(frame.markdown(["shape", "ms", "ns per pixel"], [entry["cells"] for entry in rows]))
        print(f"largest / smallest: {spread:.2f} ({'flat' if spread <= FLAT else 'NOT FLAT'} within {FLAT})\n", flush=True)
    payload = {"backend": str(backend()), "threads": torch.get_num_threads(), "sweeps": sweeps}
    print(f"wrote {frame.save('scaling-' + backend(), payload, options.output).name}")
    return 0 if flat else 1


def measure(shape: loss.Shape) -> list[dict[str, float]]:
    """One size by itself, warm: in turn, a large one would leave a small one cold caches and returned memory."""
    step = loss.make_step(loss.OURS, shape, True, "cpu")
    step()
    return frame.interleave({"step": step}, rounds=ROUNDS, budget_s=60)["step"]


def row(shape: tuple[int, ...], samples: list[dict[str, float]]) -> dict[str, Any]:
    seconds = frame.summarise({"step": samples}, "step")["step"]["wall_s"]["median"]
    per_pixel = seconds * 1e9 / (math.prod(shape) / 3)
    cells = ["x".join(map(str, shape)), f"{seconds * 1e3:.1f}", f"{per_pixel:.0f}"]
    return {"shape": shape, "s": seconds, "ns_per_pixel": per_pixel, "cells": cells}


if __name__ == "__main__":
    sys.exit(main())
