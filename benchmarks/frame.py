"""The contract of every benchmark: how contenders are run, timed, weighed and reported. README.md says how to read it.

A contender is a name and a factory; the factory makes the inputs and returns the step, a callable without arguments. The
factory must be picklable (a ``functools.partial`` of a module's function) if memory is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import attacker_metrics
from attacker_metrics._names import BACKEND_VARIABLE

Step = Callable[[], object]
Factory = Callable[[], Step]
Measure = Callable[[Step], dict[str, float]]
Samples = dict[str, list[dict[str, float]]]

RESULTS = Path(__file__).parent / "results"
PEERS = ("torch", "torchmetrics", "pytorch-msssim", "piq", "torchvision", "scikit-image", "numpy")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser for a script's own options, described by the script's docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def engine_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add ``--threads``, ``--backend`` and ``--output``, read the command line, and put the first two into effect."""
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--backend", choices=("torch", "native"), help="implementation (default: the library's choice)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON file (default: benchmarks/results)")
    options = parser.parse_args()
    if options.backend:
        os.environ[BACKEND_VARIABLE] = options.backend
    prepare(options.threads)
    return options


def prepare(threads: int | None) -> None:
    """Fix the seed and the number of threads."""
    torch.manual_seed(0)
    torch.set_num_threads(threads or torch.get_num_threads())


def timed(step: Step) -> dict[str, float]:
    """Wall-clock and CPU seconds of one step; a GPU's work is inside."""
    _synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    _synchronise()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def interleave(
    steps: Mapping[str, Step], *, rounds: int, budget_s: float = float("inf"), measure: Measure = timed
) -> Samples:
    """Warm up every contender once, then measure A B C ... round by round.

    Args:
        steps: the contenders' steps.
        rounds: how many rounds at most.
        budget_s: no new round starts after so many seconds, once there are three.
        measure: step -> quantity -> seconds.
    """
    for step in steps.values():
        measure(step)
    samples: Samples = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for done in range(rounds):
            if done < 3 or time.perf_counter() - start < budget_s:
                for name, step in steps.items():
                    samples[name].append(measure(step))
    finally:
        gc.enable()
    return samples


def summarise(samples: Samples, baseline: str) -> dict[str, dict[str, Any]]:
    """Median and quartiles of every quantity, and of its ratio to the baseline of the same round."""
    return {
        name: {"rounds": len(rows)}
        | {
            quantity: _spread([row[quantity] for row in rows])
            | {"ratio": _spread([row[quantity] / base[quantity] for row, base in zip(rows, samples[baseline], strict=True)])}
            for quantity in rows[0]
        }
        for name, rows in samples.items()
    }


def peak_memory(factory: Factory, threads: int | None = None) -> int | None:
    """Bytes that a step holds at its peak beyond what was held before it, measured in a process of its own.

    After one warm-up step. On a GPU by torch's allocator. On a CPU by the kernel: free memory is handed back
    (``malloc_trim``), the high-water mark of the resident set is reset (``/proc/self/clear_refs``), the step runs, and
    ``VmHWM`` is read; this counts every allocator and library. ``None`` where the system has no such mark (not Linux).
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak_here, factory, threads).result()


def save(name: str, payload: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``<name>-<version>.json``, whole or not at all; ``<name>-<version>-dirty.json`` if no commit holds the code.

    Numbers of code that nobody can check out are no results: the other name keeps them out of tables and of those of before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = machine()
    dirty = "-dirty" if (where["commit"] or "").endswith("-dirty") else ""
    path = folder / f"{name}-{attacker_metrics.__version__}{dirty}.json"
    text = json.dumps({"benchmark": name, "machine": where, **payload}, indent=1, allow_nan=False)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False) as file:
        file.write(text + "\n")
    Path(file.name).chmod(0o644)
    return Path(file.name).replace(path)


def machine() -> dict[str, Any]:
    """Where and with what the numbers were taken; nothing that names a host, a user or a path."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if os.name == "posix" else None,
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30) if os.name == "posix" else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}",
        "python": platform.python_version(),
        "attacker_metrics": attacker_metrics.__version__,
        "commit": _commit(),
        **{name: _version(name) for name in PEERS},
    }


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(spread: Mapping[str, float], scale: float = 1.0, digits: int = 0) -> str:
    """``median (first quartile - third quartile)``."""
    return "{} ({}-{})".format(*(f"{spread[key] * scale:.{digits}f}" for key in ("median", "q1", "q3")))


def _spread(values: Sequence[float]) -> dict[str, Any]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median, "q1": low, "q3": high}


def _peak_here(factory: Factory, threads: int | None) -> int | None:
    prepare(threads)
    step = factory()
    step()
    gc.collect()
    if _gpu_in_use():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return None
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def _synchronise() -> None:
    if _gpu_in_use():
        torch.cuda.synchronize()


def _gpu_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call, unused-ignore]


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str | None:
    return next((found.version for found in importlib.metadata.distributions(name=package)), None)


def _commit() -> str | None:
    """The commit of the code that was measured, with -dirty if no commit holds it; results themselves do not count."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", f":(exclude)benchmarks/{RESULTS.name}")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    root = RESULTS.parents[1]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
