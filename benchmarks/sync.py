"""What compute() costs while processes are joined: one collective against torchmetrics' one per state, with its barriers.

python benchmarks/sync.py [--processes 2 4] [--rounds 200] [--output DIR]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import frame
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from torchmetrics import Metric, MetricCollection

from attacker_metrics import MultiAttackerPrivacy

OURS, SINGLY, STOCK = "MultiAttackerPrivacy", "members, each by itself", "the same with torchmetrics' synchronisation"
UNIT = 22
"""Pixels a side: what the states were summed from costs nothing here."""


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="numbers of processes (default: 2 4)")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each contender (default: 200)")
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    parser.add_argument("--rank-of", type=Path, help="internal: take part as one process and write to this file")
    options = parser.parse_args()
    if options.rank_of:
        take_part(options.rank_of, options.rounds)
        return
    results = {str(count): launch(count, options.rounds) for count in options.processes}
    header = ["processes", "contender", "collectives", "ms", "ratio"]
    print(frame.markdown(header, [row for count, found in results.items() for row in rows(count, found)]))
    print(f"wrote {frame.save('sync', {'backend': 'gloo', 'processes': results}, options.output).name}")


def launch(processes: int, rounds: int) -> dict[str, Any]:
    """Run this script in so many processes; what rank 0 measured."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rank0.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += [__file__, "--rank-of", str(file), "--rounds", str(rounds)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def take_part(file: Path, rounds: int) -> None:
    frame.prepare(1)
    dist.init_process_group("gloo")
    steps: dict[str, frame.Step] = {
        OURS: members().compute,
        SINGLY: MetricCollection(dict(members().items())).compute,
        STOCK: MetricCollection(dict(with_stock_synchronisation(members()).items())).compute,
    }
    collectives = {name: counted(step) for name, step in steps.items()}
    # Every rank makes all rounds: one that stopped early would leave the others waiting.
    results = frame.summarise(frame.interleave(steps, rounds=rounds), OURS)
    if dist.get_rank() == 0:
        file.write_text(json.dumps({"collectives": collectives, "results": results}))
    dist.destroy_process_group()


def members() -> MultiAttackerPrivacy:
    metric = MultiAttackerPrivacy(betas=(0.5, 0.5))
    clean = torch.rand(2, 3, UNIT, UNIT, generator=torch.Generator().manual_seed(dist.get_rank()))
    metric.update(1 - clean, clean)
    return metric


def with_stock_synchronisation(metric: MultiAttackerPrivacy) -> MultiAttackerPrivacy:
    for member in metric.values():
        member._sync_dist = Metric._sync_dist.__get__(member)  # type: ignore[method-assign]
    return metric


def counted(step: frame.Step) -> int:
    """Collectives of one call, barriers included, as torch's dispatcher sees them."""
    with profile(activities=[ProfilerActivity.CPU]) as events:
        step()
    return Counter(event.name.startswith("c10d::") for event in events.events())[True]


def rows(processes: str, found: dict[str, Any]) -> list[list[str]]:
    return [
        [
            processes,
            name,
            str(found["collectives"][name]),
            frame.cell(result["wall_s"], 1e3, 2),
            frame.cell(result["wall_s"]["ratio"], 1, 1),
        ]
        for name, result in found["results"].items()
    ]


if __name__ == "__main__":
    main()
