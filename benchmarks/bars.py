"""What this library promises of its speed and memory, measured and asserted: exit status 1 if a promise is broken.

python benchmarks/bars.py [--threads N] [--compile] [--backend torch|native] [--output DIR]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import frame
import loss
import torch
from compositions import COMPOSITIONS
from torch import Tensor

import attacker_metrics
from attacker_metrics import MultiAttackerPrivacy, multi_attacker_scores
from attacker_metrics.engine.backends import backend

BATCH, LARGE = (8, 3, 224, 224), (1, 3, 1024, 1024)
ROUNDS = 9


@dataclass(frozen=True)
class Bar:
    """A ratio that must not be missed: at least ``eager`` (``compiled``), or at most if ``at_most``."""

    measure: str
    eager: float
    compiled: float
    goal: float
    at_most: bool = False

    def holds(self, ratio: float, *, compiled: bool) -> bool:
        bar = self.compiled if compiled else self.eager
        return ratio <= bar if self.at_most else ratio >= bar


BARS = {
    ("torchmetrics", "forward + backward"): Bar("forward + backward: torchmetrics composition / ours", 25, 40, 100),
    ("pytorch_msssim", "forward + backward"): Bar("forward + backward: pytorch-msssim composition / ours", 5.5, 8.5, 20),
    ("torchmetrics", "forward"): Bar("forward: torchmetrics composition / ours", 9, 13, 30),
    ("torchmetrics", BATCH): Bar("peak memory, batch 8 at 224: torchmetrics composition / ours", 12, 12, 30),
    ("torchmetrics", LARGE): Bar("peak memory, batch 1 at 1024: torchmetrics composition / ours", 5, 5, 15),
}
UPDATE = Bar("MultiAttackerPrivacy.update / function without gradient", 1.05, 1.05, 1.0, at_most=True)


def main() -> int:
    options = arguments()
    ours = loss.COMPILED if options.compile else loss.OURS
    rows: list[dict[str, Any]] = []

    def report(bar: Bar, ratio: float, detail: str) -> None:
        held = bar.holds(ratio, compiled=options.compile)
        wanted = bar.compiled if options.compile else bar.eager
        sign = "<=" if bar.at_most else ">="
        rows.append(
            {"measure": bar.measure, "bar": wanted, "goal": bar.goal, "ratio": ratio, "holds": held, "detail": detail}
        )
        print(f"{'held  ' if held else 'BROKEN'} {bar.measure}: {ratio:.2f} ({sign} {wanted}), {detail}", flush=True)

    print(f"backend {backend()}, {torch.get_num_threads()} threads, {ours}")
    metrics = metric_times()  # before the peers, whose freed memory is faulted in again
    for backward in (True, False):
        what = "forward + backward" if backward else "forward"
        names = [ours, *(peer for peer in COMPOSITIONS if (peer, what) in BARS)]
        steps = {name: loss.make_step(name, BATCH, backward, "cpu") for name in names}
        results = frame.summarise(frame.interleave(steps, rounds=ROUNDS, budget_s=120), ours)
        for peer in names[1:]:
            detail = f"{results[peer]['wall_s']['median'] * 1e3:.0f} ms / {results[ours]['wall_s']['median'] * 1e3:.0f} ms"
            report(BARS[peer, what], results[peer]["wall_s"]["ratio"]["median"], detail)
    for shape in (BATCH, LARGE):
        used = [
            frame.peak_memory(partial(loss.make_step, name, shape, True, "cpu"), options.threads)
            for name in ("torchmetrics", ours)
        ]
        if used[0] is not None and used[1] is not None:
            detail = f"{used[0] / 2**20:.0f} MiB / {used[1] / 2**20:.0f} MiB"
            report(BARS["torchmetrics", shape], used[0] / used[1], detail)
    report(UPDATE, metrics["update"]["wall_s"]["ratio"]["median"], f"{metrics['update']['wall_s']['median'] * 1e3:.0f} ms")
    singly = metrics["seventeen classes"]["wall_s"]["median"] / metrics["update"]["wall_s"]["median"]
    print(f"the seventeen classes one by one / collection: {singly:.1f}")
    payload = {"backend": str(backend()), "ours": ours, "bars": rows, "metrics": metrics}
    name = "-".join(["bars", backend(), *(["compiled"] if options.compile else [])])
    print(f"wrote {frame.save(name, payload, options.output).name}")
    return 0 if all(row["holds"] for row in rows) else 1


def arguments() -> argparse.Namespace:
    parser = frame.parser(__doc__)
    parser.add_argument("--compile", action="store_true", help="ours under torch.compile, against the bars for it")
    return frame.engine_options(parser)


def metric_times() -> dict[str, Any]:
    """The collection's ``update`` and the seventeen classes one by one beside the function without gradient."""
    noisy, clean = loss.photographs(BATCH, "cpu")
    collection = MultiAttackerPrivacy()
    classes = [getattr(attacker_metrics, type(metric).__name__)() for metric in collection.values()]

    def update_all() -> None:
        for metric in classes:
            metric.update(noisy, clean)

    @torch.no_grad()
    def function() -> dict[str, Tensor]:
        return multi_attacker_scores(noisy, clean)

    steps: dict[str, frame.Step] = {
        "function": function,
        "update": partial(collection.update, noisy, clean),
        "seventeen classes": update_all,
    }
    return frame.summarise(frame.interleave(steps, rounds=2 * ROUNDS, budget_s=60), "function")


if __name__ == "__main__":
    sys.exit(main())
