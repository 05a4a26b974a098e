"""``attacker-metrics evaluate`` with 1 and 2 processes beside a plain script, and its memory over the number of pairs.

python benchmarks/evaluate.py [--pairs N] [--side S] [--rounds N] [--memory N N] [--output DIR]

The plain script is what a user would write: a ``DataLoader`` whose workers read and decode the files, and the fifteen
components composed of torch and torchmetrics' MS-SSIM. Contenders are whole processes, so their start is measured too;
``evaluate``'s own figures, without it, stand beside.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import compositions
import frame
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
import torch
from PIL import Image

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.engine.backends import backend
from attacker_metrics.evaluation.scoring import PartScores, RunScores
from attacker_metrics.jobs.parts import UnfinishedRun
from attacker_metrics.pairs.manifest import ManifestPairs
from attacker_metrics.pairs.sources import LoadedPair

BATCH = 16
BASELINE = "plain script"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of a timed run (default: 1000)")
    parser.add_argument("--side", type=int, default=224, help="pixels of a side (default: 224)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--memory", type=int, nargs="+", default=[1000, 20000], help="pairs (default: 1000 20000)")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rows of the manifest check and the merge (default: 1000000)"
    )
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    if options.plain:
        plain_script(options.plain)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_pairs(folder / "timed", options.pairs, different=options.pairs, side=options.side)
        speeds: dict[str, list[dict[str, Any]]] = {}
        commands = {BASELINE: [sys.executable, __file__, "--plain", str(manifest)]}
        for processes, threads, workers in ((1, 2, 0), (1, 2, 1), (1, 1, 1), (2, 1, 0), (2, 1, 1)):
            title = (
                f"evaluate: {processes} process{'es' * (processes > 1)} of {threads} computing + {workers} loading threads"
            )
            commands[title] = ["env", f"OMP_NUM_THREADS={threads}"]
            commands[title] += evaluate(manifest, folder / "out", processes, "--workers", str(workers))
        steps = {
            title: functools.partial(run, title, command, folder / "out", speeds) for title, command in commands.items()
        }
        results = frame.summarise(frame.interleave(steps, rounds=options.rounds, measure=reading), BASELINE)
        memory = [peak(folder, count) for count in options.memory]
        stages = {**bookkeeping(folder, options.rows), **one_thread(manifest)}
    rows = [
        [
            title,
            frame.cell(row["wall_s"], digits=1),
            frame.cell(row["cpu_s"], digits=1),
            frame.cell(row["wall_s"]["ratio"], digits=3),
        ]
        for title, row in results.items()
    ]
    print(frame.markdown(["contender", "s", "CPU s", f"time / {BASELINE}"], rows), "\n")
    steady = {title: median_speed(rounds[1:]) for title, rounds in speeds.items()}
    columns = ("pairs_per_second", "compute_seconds", "wait_seconds", "read_seconds", "decode_seconds")
    print(
        frame.markdown(
            ["evaluate's own figures", *columns], [[t, *(f"{s[c]:.2f}" for c in columns)] for t, s in steady.items()]
        )
    )
    print(frame.markdown(["pairs", "peak MiB"], [[str(row["pairs"]), f"{row['peak_bytes'] / 2**20:.0f}"] for row in memory]))
    print(frame.markdown(["stage", "figure"], [[name, f"{value:.4g}"] for name, value in stages.items()]))
    payload = {
        "backend": str(backend()),
        "pairs": options.pairs,
        "side": options.side,
        "batch": BATCH,
        "baseline": BASELINE,
        "results": results,
        "throughput": steady,
        "memory": memory,
        "stages": stages,
    }
    print(f"wrote {frame.save('evaluate', payload, options.output).name}")


def write_pairs(folder: Path, count: int, *, different: int, side: int) -> Path:
    """JPEG originals, PNG noisy ones, from crops of photographs; ``count`` rows that name ``different`` pairs of files."""
    folder.mkdir()
    photographs = [getattr(skimage.data, name)()[..., :3] for name in PHOTOGRAPHS]
    for index in range(different):
        generator = np.random.default_rng(index)
        photograph = photographs[index % len(photographs)]
        top, left = (int(generator.integers(0, max(1, size - 300))) for size in photograph.shape[:2])
        clean = Image.fromarray(photograph[top : top + 300, left : left + 300]).resize((side, side))
        noisy = np.clip(np.asarray(clean) + generator.normal(0, 40, (side, side, 3)), 0, 255).astype(np.uint8)
        clean.save(folder / f"{index}.jpg", quality=92)
        Image.fromarray(noisy).save(folder / f"{index}.png")
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "clean", "noisy"])
        rows.writerows([f"pair {row}", f"{row % different}.jpg", f"{row % different}.png"] for row in range(count))
    return folder / "pairs.csv"


def evaluate(manifest: Path, output: Path, processes: int, *options: str) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [
        *(sys.executable, *launch, "-m", "attacker_metrics", "evaluate", "--manifest", str(manifest)),
        *("--output", str(output), "--batch-size", str(BATCH), *options),
    ]


def run(title: str, command: list[str], output: Path, speeds: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Run a contender; a clock outside counts its wall time, the kernel its and its children's CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = frame.timed(
        functools.partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if title != BASELINE:
        speeds.setdefault(title, []).append(json.loads((output / "summary.json").read_text())["throughput"])
    return {
        "wall_s": seconds["wall_s"],
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def reading(step: frame.Step) -> dict[str, float]:
    """The step measures itself."""
    seconds = step()
    assert isinstance(seconds, dict)
    return seconds


def median_speed(rounds: list[dict[str, Any]]) -> dict[str, float]:
    names = ("pairs_per_second", "compute_seconds", "wait_seconds", "read_seconds", "decode_seconds", "seconds")
    return {name: float(np.median([speed[name] for speed in rounds])) for name in names}


def peak(folder: Path, count: int) -> dict[str, int]:
    """Peak of the resident set of one process that evaluates so many tiny pairs; few different files, many rows."""
    manifest = write_pairs(folder / f"memory{count}", count, different=64, side=16)
    command = evaluate(manifest, folder / f"memory-out{count}", 1, "--betas", "1", "--gamma", "2")
    inner = f"import runpy, sys; sys.argv = {command[2:]!r}\n"
    inner += "try: runpy.run_module('attacker_metrics', run_name='__main__')\n"
    # Not ru_maxrss: that begins with what this process, its parent, holds.
    inner += "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", inner], capture_output=True, text=True, check=True)
    return {"pairs": count, "peak_bytes": int(done.stderr.split()[-1]) * 1024}


def bookkeeping(folder: Path, rows: int) -> dict[str, float]:
    """What surrounds the scoring, in one thread: rows per second of the manifest's check and of the merge, bytes per row."""
    ids = [f"subject-{i % 1000:04}/image-{i:010}" for i in range(rows)]
    listed = pa.table(
        {"id": ids, "clean": [f"clean/{name}.jpg" for name in ids], "noisy": [f"noisy/{name}.png" for name in ids]}
    )
    path = folder / "large.parquet"
    pq.write_table(listed, path)
    seconds = {"check": frame.timed(lambda: ManifestPairs(str(path)).check())["cpu_s"]}
    unfinished, names = UnfinishedRun(folder / "large"), [str(name) for name in MultiAttackerPrivacy()]
    plan = unfinished.begin({}, rows, min(65536, rows), 1, resume=False)
    values = np.random.default_rng(0).random((rows, len(names)), np.float32)

    def write() -> None:
        for part in range(plan.parts):
            start, stop = plan.rows(part)
            scores = PartScores.empty(start, stop - start, len(names))
            scores.values[:] = values[start:stop]
            unfinished.write(part, scores.beside(listed.select(["id"]).slice(start, stop - start)))

    seconds["store"] = frame.timed(write)["cpu_s"]
    stored = sum(file.stat().st_size for file in unfinished.folder.glob("part-*"))
    seconds["merge"] = frame.timed(lambda: RunScores.of_tables(unfinished.tables(plan), names, rows))["cpu_s"]
    figures = {f"{name}_rows_per_cpu_s": rows / value for name, value in seconds.items()}
    return {**figures, "manifest_bytes_per_row": path.stat().st_size / rows, "part_bytes_per_row": stored / rows}


def one_thread(manifest: Path) -> dict[str, float]:
    """CPU seconds per pair of decoding and of computing, in one thread, and bytes per pair of the files."""
    torch.set_num_threads(1)
    pairs = ManifestPairs(str(manifest))
    total = min(pairs.check()[0], 4 * BATCH)
    rows = pairs.rows(0, total).to_pylist()
    loaded: list[LoadedPair] = []

    def load() -> None:
        loaded[:] = [pair for i, row in enumerate(rows) if isinstance(pair := pairs.load(i, row), LoadedPair)]

    privacy = MultiAttackerPrivacy()

    def compute() -> None:
        for start in range(0, total, BATCH):
            batch = loaded[start : start + BATCH]
            privacy.update(torch.stack([pair.noisy for pair in batch]), torch.stack([pair.clean for pair in batch]))

    steps = {"load": load, "compute": compute}
    spent = frame.summarise(frame.interleave(steps, rounds=3), "load")
    files = sum((manifest.parent / row[side]).stat().st_size for row in rows for side in ("clean", "noisy"))
    figures = {f"{name}_cpu_s_per_pair": spent[name]["cpu_s"]["median"] / total for name in steps}
    return {**figures, "file_bytes_per_pair": files / total}


def plain_script(manifest: Path) -> None:
    """The baseline."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))

    class Pairs(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            sides = (np.array(Image.open(manifest.parent / rows[index][side]).convert("RGB")) for side in ("noisy", "clean"))
            noisy, clean = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 for pixels in sides)
            return noisy, clean

    workers = max(1, (os.cpu_count() or 1) - 1)
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=BATCH, num_workers=workers)
    loss, sums = compositions.COMPOSITIONS["torchmetrics"], dict[str, float]()
    with torch.inference_mode():
        for noisy, clean in loader:
            for name, value in loss(noisy, clean).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(noisy)
    print(json.dumps({name: total / len(rows) for name, total in sums.items()}))


if __name__ == "__main__":
    main()
