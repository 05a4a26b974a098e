"""What ``import attacker_metrics`` costs beside ``import torchmetrics``, in fresh interpreters; the bar is a ratio of 1.10.

python benchmarks/import_time.py [--rounds N] [--output DIR]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import frame

BASELINE, OURS, BEYOND, BAR = "torchmetrics", "attacker_metrics", "attacker_metrics after torchmetrics", 1.10
IMPORTS = {
    BASELINE: ("time", "torchmetrics"),
    OURS: ("time", "attacker_metrics"),
    BEYOND: ("torchmetrics", "attacker_metrics"),
}
"""Contender -> what is imported before the clock starts, and what is timed; the third shows through the noise."""
TIMER = (
    "import time, {}; wall, cpu = time.perf_counter(), time.process_time(); import {};"
    "print(time.perf_counter() - wall, time.process_time() - cpu)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    steps = {name: partial(import_seconds, *modules) for name, modules in IMPORTS.items()}
    results = frame.summarise(frame.interleave(steps, rounds=options.rounds, measure=reading), BASELINE)
    ratios = {
        quantity: results[OURS][quantity]["median"] / results[BASELINE][quantity]["median"]
        for quantity in ("wall_s", "cpu_s")
    }
    rows = [
        [name, *(frame.cell(spread, digits=2) for spread in (row["wall_s"], row["wall_s"]["ratio"], row["cpu_s"]["ratio"]))]
        for name, row in results.items()
    ]
    print(frame.markdown(["import", "s", "ratio", "CPU time ratio"], rows))
    print(f"\nratio of medians: {ratios['wall_s']:.3f} (CPU time {ratios['cpu_s']:.3f}); bar {BAR}")
    payload = {"baseline": BASELINE, "bar": BAR, "ratio_of_medians": ratios, "results": results}
    print(f"wrote {frame.save('import_time', payload, options.output).name}")


def import_seconds(before: str, module: str) -> dict[str, float]:
    """Seconds that importing ``module`` takes inside a fresh interpreter that has imported ``before``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, in the warm-up, as an installed package is
    command = [sys.executable, "-c", TIMER.format(before, module)]
    wall, cpu = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    return {"wall_s": float(wall), "cpu_s": float(cpu)}


def reading(step: frame.Step) -> dict[str, float]:
    """The step measures itself."""
    seconds = step()
    assert isinstance(seconds, dict)
    return seconds


if __name__ == "__main__":
    main()
