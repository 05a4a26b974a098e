"""Tables, plot and pictures from what ``cloak.py`` wrote; several files, such as one per seed, are read as one.

::

    python benchmarks/cloak_report.py [FILE.json ...]    # default: benchmarks/results/cloak-<version>.json
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import frame
import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from scipy import stats

import attacker_metrics

mpl.use("Agg")
import matplotlib.pyplot as plt

Run = dict[str, Any]
THUMBNAIL = 88


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval over seeds, by Student's t."""
    if len(values) < 2:
        return values[0], math.nan
    factor = float(stats.t.ppf(0.975, len(values) - 1))
    return statistics.mean(values), factor * statistics.stdev(values) / math.sqrt(len(values))


def cell(runs: Sequence[Run], of: Callable[[Run], float]) -> str:
    """``mean ± half width`` over runs."""
    mean, half = interval([of(run) for run in runs])
    return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of every arm, in the order of the first seed."""
    return {arm: [run for run in runs if run["arm"] == arm] for arm in dict.fromkeys(run["arm"] for run in runs)}


def table(runs: Sequence[Run], quantity: str) -> str:
    """Agreement, and one quantity after every judge, per arm."""
    names = list(runs[0]["judges"])
    rows = [
        [
            arm,
            str(len(of_arm)),
            cell(of_arm, lambda run: float(run["agreement"])),
            *(cell(of_arm, lambda run, name=name: float(run["judges"][name][quantity])) for name in names),  # type: ignore[misc]
            cell(of_arm, lambda run: max(float(judge[quantity]) for judge in run["judges"].values())),
        ]
        for arm, of_arm in by_arm(runs).items()
    ]
    return frame.markdown(["privacy term", "seeds", "agreement", *names, "strongest"], rows)


def trained_on(runs: Sequence[Run]) -> str:
    """What the terms themselves say about the cloaks, per arm."""
    keys = {"ms_ssim": "mean of nine MS-SSIMs", "pearson": "mean of six r²", "collapsed": "RGB MS-SSIM is 0", "rmse": "RMSE"}
    rows = [
        [arm, *(cell(of_arm, lambda run, key=key: float(run[key])) for key in keys)]  # type: ignore[misc]
        for arm, of_arm in by_arm(runs).items()
    ]
    return frame.markdown(["privacy term", *keys.values()], rows)


def costs(seconds: dict[str, float]) -> str:
    """CPU milliseconds of a step per arm, and the privacy term's share."""
    base = seconds["none"]
    rows = [[arm, f"{1e3 * value:.0f}", f"{1 - base / value:.0%}"] for arm, value in seconds.items()]
    return frame.markdown(["privacy term", "step, CPU ms", "the term's share"], rows)


def plot(runs: Sequence[Run], path: Path) -> None:
    """Training curves, and what the strongest judge restores over the agreement, one point per run."""
    figure, (task, privacy, result) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for arm, of_arm in by_arm(runs).items():
        for axes, key in ((task, "task"), (privacy, "privacy")):
            curves = np.array([[step[key] for step in run["curve"]] for run in of_arm])
            smooth = np.apply_along_axis(np.convolve, 1, curves, np.full(5, 0.2), mode="valid")
            (line,) = axes.plot(smooth.mean(axis=0), label=arm)
            axes.fill_between(
                range(smooth.shape[1]), smooth.min(axis=0), smooth.max(axis=0), color=line.get_color(), alpha=0.2
            )
        result.scatter(
            [run["agreement"] for run in of_arm],
            [max(judge["ms_ssim"] for judge in run["judges"].values()) for run in of_arm],
            label=arm,
        )
    task.set(title="task: KL to the decision on the clean crop", xlabel="step")
    privacy.set(title="privacy term (each arm's own)", xlabel="step", ylim=(0, 1))
    result.set(
        title="held-out photographs", xlabel="agreement", ylabel="MS-SSIM, strongest judge", xlim=(0, 1), ylim=(0.5, 1.01)
    )
    result.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def pictures(cloaked: dict[str, torch.Tensor], path: Path) -> None:
    """One crop: a row per arm; the original, what was sent, and what every judge makes of it."""
    rows = [torch.cat(list(images[0]), dim=2) for images in cloaked.values()]
    grid = Image.fromarray(torch.cat(rows, dim=1).mul(255).byte().permute(1, 2, 0).numpy())
    columns, side = next(iter(cloaked.values())).shape[1], THUMBNAIL
    small = grid.resize((columns * side, len(rows) * side), Image.Resampling.BOX)
    small.quantize(128).save(path, optimize=True)


def main() -> None:
    parser = frame.parser(__doc__)
    default = frame.RESULTS / f"cloak-{attacker_metrics.__version__}.json"
    parser.add_argument("files", nargs="*", type=Path, default=[default])
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the plot and the pictures")
    options = parser.parse_args()
    read = [json.loads(file.read_text(encoding="utf-8")) for file in options.files]
    runs = [run for one in read for run in one["runs"]]
    plot(runs, options.output / "cloak.png")
    kept = options.files[0].with_suffix(".pt")
    if kept.exists():
        pictures(torch.load(kept, weights_only=True), options.output / "cloak-pictures.png")
    for title, text in (
        ("MS-SSIM after each judge", table(runs, "ms_ssim")),
        ("r² after each judge", table(runs, "r2")),
        ("What training saw", trained_on(runs)),
        ("Cost", costs(read[0]["cost_cpu_s"])),
    ):
        print(f"### {title}\n\n{text}\n")


if __name__ == "__main__":
    main()
