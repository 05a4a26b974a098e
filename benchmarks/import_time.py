"""What imports and the command line's first words cost, in fresh interpreters, in wall and CPU time; the bars are asserted.

The functions may take 1.10 times torch's own import, the metrics 1.10 times torchmetrics'; ``--help``, ``--version`` and a
usage error .3 s with the interpreter's start. CPU time counts: a busy machine does not change it as much.

python benchmarks/import_time.py [--rounds N] [--output DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import frame

RATIO, SECONDS = 1.10, 0.3
IMPORTS = {
    "torch": "import torch",
    "multi_attacker_privacy_loss": "from attacker_metrics import multi_attacker_privacy_loss",
    "torchmetrics": "import torchmetrics",
    "MultiAttackerPrivacy": "from attacker_metrics import MultiAttackerPrivacy",
}
PAIRS = {"multi_attacker_privacy_loss": "torch", "MultiAttackerPrivacy": "torchmetrics"}
"""Ours -> what it may take 1.10 times the time of."""
COMMANDS = ("--help", "--version", "evaluate --help", "evaluate --gamma two")
TIMER = (
    "import time; wall, cpu = time.perf_counter(), time.process_time(); {};"
    "print(time.perf_counter() - wall, time.process_time() - cpu)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    steps: dict[str, frame.Step] = {name: partial(import_seconds, statement) for name, statement in IMPORTS.items()}
    steps |= {command: partial(command_seconds, command) for command in COMMANDS}
    results = frame.summarise(frame.interleave(steps, rounds=options.rounds, measure=reading), "torch")
    rows = [
        [name, *(frame.cell(row[quantity], digits=2) for quantity in ("wall_s", "cpu_s"))] for name, row in results.items()
    ]
    print(frame.markdown(["in a fresh interpreter", "s", "CPU s"], rows))
    ratios = {ours: results[ours]["cpu_s"]["median"] / results[theirs]["cpu_s"]["median"] for ours, theirs in PAIRS.items()}
    for ours, ratio in ratios.items():
        print(f"{ours}: {ratio:.3f} times {PAIRS[ours]}; bar {RATIO}")
    payload = {"ratio_bar": RATIO, "seconds_bar": SECONDS, "ratio_of_medians": ratios, "results": results}
    print(f"wrote {frame.save('import_time', payload, options.output).name}")
    assert max(ratios.values()) <= RATIO, ratios
    slow = {command: median for command in COMMANDS if (median := results[command]["cpu_s"]["median"]) > SECONDS}
    assert not slow, f"more than {SECONDS} s: {slow}"


def environment() -> dict[str, str]:
    """As a user's, who has what we import compiled once, as an installed package is."""
    found = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def import_seconds(statement: str) -> dict[str, float]:
    """Seconds that an import takes inside a fresh interpreter."""
    command = [sys.executable, "-c", TIMER.format(statement)]
    wall, cpu = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.split()
    return {"wall_s": float(wall), "cpu_s": float(cpu)}


def command_seconds(command: str) -> dict[str, float]:
    """Seconds from the start of the interpreter to its end."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-m", "attacker_metrics", *command.split()]
    done = subprocess.run(words, env=environment(), capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == (2 if command.endswith("two") else 0), done.stderr
    return {"wall_s": wall, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def reading(step: frame.Step) -> dict[str, float]:
    """The step measures itself."""
    seconds = step()
    assert isinstance(seconds, dict)
    return seconds


if __name__ == "__main__":
    main()
