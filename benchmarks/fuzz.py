"""Bytes that nobody meant -> only errors that say what is wrong, for as long as asked.

``python benchmarks/fuzz.py --seconds 3600`` damages files of every kind that is read (``fuzz_targets.py``), each target in
processes of its own: a finding is an error that is none of ours, a process that dies or wants 2 GiB, a file that takes 20
seconds, a program that is started, or a file outside the folder that is written or deleted. Inputs are kept in ``--keep``;
counts go to ``--output``; exit status 1 if something was found. Atheris, where it is installed, steers towards new branches
of the library. The suite reads some hundred inputs in the same way.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GUIDED = importlib.util.find_spec("atheris") is not None
WEIGHTS = dict(picture=3, tiff=2, tensor=2, table=3, run=5, compare=4, checkpoint=2, study=2, votes=3, output=1)  # noqa: C408
"""Target -> its share of the time."""
MEMORY, HANGING = 2 << 30, 20
_LARGEST = 1 << 20
_EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0")
_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        2**31,
        2**63,
        2**64,
        10**400,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "a",
        "1",
        "\0",
        "\ud800",
        "../x",
    ),
    *("\x1b[31m\u202e", "=1+1", "x" * 70_000, [], {}, [[]], [None], {"a": None}, {"": {}}, ["a"], "NaN", "-0", "1e999"),
)
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "socket.connect")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The content with bytes changed, cut out, doubled, or numbers that are extreme, in a few places."""
    result = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        place, kind = int(random.integers(0, max(1, len(result)))), int(random.integers(0, 5))
        size = int(random.integers(1, 9))
        if kind == 0:
            result[place : place + 1] = bytes([int(random.integers(0, 256))])
        elif kind == 1:
            result[place : place + size] = random.bytes(size)
        elif kind == 2:
            del result[place : place + int(random.integers(1, max(2, len(result) // 4)))]
        elif kind == 3:
            result[place:place] = result[place : place + size]
        else:
            result[place : place + 4] = _EXTREMES[int(random.integers(0, len(_EXTREMES)))]
    return bytes(result)


def bent(content: bytes, random: np.random.Generator) -> bytes:
    """Another file of the same kind that is sound by itself: JSON, a table or a database with odd values; else damaged."""
    try:
        if content[:1] in b"{[":
            return json.dumps(_bent_value(json.loads(content), random)).encode()
        if content[:4] == b"PAR1":
            table = _bent_table(pq.ParquetFile(io.BytesIO(content)).read(), random)
            pq.write_table(table, file := io.BytesIO())
            return file.getvalue()
        if content[:6] == b"ARROW1":
            table = _bent_table(pa.ipc.open_file(content).read_all(), random)
            with pa.ipc.new_file(file := io.BytesIO(), table.schema) as written:
                written.write_table(table)
            return file.getvalue()
        if content[:6] == b"SQLite":
            return _bent_database(content, random)
    except Exception:  # damaged before, or a value that the format does not know
        return damaged(content, random)
    return damaged(content, random)


def _bent_value(value: Any, random: np.random.Generator) -> Any:
    if not isinstance(value, (dict, list)) or not value or random.random() < 0.1:
        return _ODD[int(random.integers(len(_ODD)))]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(random.integers(len(keys)))]
    if random.random() < 0.1:
        return {k: v for k, v in value.items() if k != key} if isinstance(value, dict) else value[:key]
    changed = _bent_value(value[key], random)
    return {**value, key: changed} if isinstance(value, dict) else [*value[:key], changed, *value[key + 1 :]]


def _bent_table(table: pa.Table, random: np.random.Generator) -> pa.Table:
    place, kind = int(random.integers(table.num_columns)), int(random.integers(6))
    if kind == 0:
        return table.remove_column(place)
    if kind == 1:
        return table.slice(0, int(random.integers(len(table) + 1)))
    if kind == 2:
        return pa.concat_tables([table] * int(random.integers(2, 5)))
    if kind == 3:
        return table.append_column(table.column_names[place], table[place])
    name, odd = table.column_names[place], _ODD[int(random.integers(len(_ODD)))]
    if kind == 4:
        return table.set_column(place, name, pa.array([odd] * len(table)))
    cells = table[place].to_pylist()
    cells[int(random.integers(len(cells)))] = _bent_value(odd, random)
    return table.set_column(place, table.schema.field(place), pa.array(cells, table.schema.field(place).type))


def _bent_database(content: bytes, random: np.random.Generator) -> bytes:
    import sqlite3

    with sqlite3.connect(":memory:") as connection:
        connection.deserialize(content)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = tables[int(random.integers(len(tables)))]
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = columns[int(random.integers(len(columns)))]
        odd = _ODD[int(random.integers(len(_ODD)))]
        odd = json.dumps(odd) if isinstance(odd, (list, dict)) else odd
        where = "" if random.random() < 0.3 else " WHERE rowid = 1"
        connection.execute(f"UPDATE {table} SET {column} = ?{where}", (odd,))
        connection.commit()
        return connection.serialize()


class Worker:
    """One target in this process, until it is killed.

    Args:
        name: of the target.
        keep: folder of the findings.
    """

    def __init__(self, name: str, keep: Path) -> None:
        import fuzz_targets  # takes seconds: only here, and watched where Atheris is to see its branches

        self.target, self.keep, self.count = fuzz_targets.TARGETS[name], keep, Counter[str]()
        self._outside: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.work = self._folder / "work"
        self._clear()
        self.seeds = self.target.seeds(self.work)
        self.names = sorted(self.seeds)
        for data in self.inputs():
            self.read(data)  # what is read late, and written once, by torch say
        self._outside.clear()
        sys.addaudithook(self._watch)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def inputs(self) -> list[bytes]:
        """The intact files, each behind the number of its name."""
        return [bytes([place]) + self.seeds[name] for place, name in enumerate(self.names)]

    def changed(self, data: bytes, random: np.random.Generator, mutate: Any = damaged) -> bytes:
        """Another input; half of them with checksums that are right."""
        place, content = data[:1] or b"\0", data[1:]
        if random.random() < 0.02:
            place = bytes([int(random.integers(len(self.names)))])
        content = (mutate, damaged, bent)[int(random.integers(3))](content, random)
        return (place + (self.target.repair(content) if random.random() < 0.5 else content))[:_LARGEST]

    def read(self, data: bytes) -> None:
        """Read an input and keep it if something is wrong."""
        (self.keep / "last").write_bytes(data)
        name = self.names[(data[0] if data else 0) % len(self.names)]
        self._clear()
        try:
            self.target.read(self.work, name, data[1:])
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "attacker_metrics" in frame.filename]
            places = [traceback.extract_tb(error.__traceback__)[-1], *frames[-1:]]
            self._found(
                f"{type(error).__name__} {' '.join(f'{Path(f.filename).name}:{f.lineno}' for f in places)}", error, data
            )
        for what in self._outside:
            self._found(what.split(" ")[0], what, data)
        self._outside.clear()
        self.count["inputs"] += 1
        (self.keep / f"count-{os.getpid()}").write_text(str(self.count["inputs"]))

    def _found(self, key: str, error: object, data: bytes) -> None:
        self.count[key] += 1
        if self.count[key] == 1:
            file = self.keep / f"{key.replace(' ', '-').replace(':', '-')}"
            if not file.exists():
                file.write_bytes(data)
                with (self.keep / "found").open("a") as found:
                    found.write(json.dumps({"key": key, "error": str(error)[:300]}) + "\n")

    def _clear(self) -> None:
        self.work.mkdir(exist_ok=True)
        os.chdir(self.work)
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS:
            self._outside.append(f"{event} {arguments!r:.200}")
        elif event in _CHANGES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            for path in arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    place = str(Path(os.fsdecode(path)).absolute())
                    if not place.startswith((f"{self._folder}/", f"{self.keep}/", os.devnull)):
                        self._outside.append(f"{event} {place}")


def work(name: str, keep: Path, seconds: float, seed: int) -> None:
    """Read inputs in this process."""
    faulthandler.enable()
    if GUIDED:
        import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

        with atheris.instrument_imports(include=["attacker_metrics"]):
            worker = Worker(name, keep)
    else:
        worker = Worker(name, keep)
        random, until, inputs = np.random.default_rng(seed), time.monotonic() + seconds, worker.inputs()
        while time.monotonic() < until:
            worker.read(worker.changed(inputs[int(random.integers(len(inputs)))], random))
        return

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        def by_atheris(content: bytes, _: Any) -> bytes:
            return bytes(atheris.Mutate(content, max(1, min(largest - 1, len(content) + 64))))

        return worker.changed(data, np.random.default_rng(seed), by_atheris)[:largest]

    corpus = keep / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(worker.inputs()):
        (corpus / f"seed-{number}").write_bytes(data)
    signals = [f"-handle_{name}=0" for name in ("segv", "bus", "abrt", "ill", "fpe", "xfsz", "usr1", "usr2")]
    options = [
        f"-max_total_time={int(seconds) or 1}",
        f"-max_len={_LARGEST}",
        f"-seed={seed + 1}",
        "-rss_limit_mb=0",
        *signals,
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], worker.read, custom_mutator=mutate)
    atheris.Fuzz()


def watch(name: str, keep: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Fuzz a target in other processes, begin anew after each that dies, and count."""
    keep.mkdir(parents=True, exist_ok=True)
    left = seconds
    while left > 1:
        command = [sys.executable, __file__, "--worker", name, "--keep", str(keep), "--seed", str(seed)]
        with (keep / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--seconds", str(min(left, 300))], stdout=log, stderr=log)
            hangs, read = _waited(process, keep / "last")
        left -= max(read, 1.0)
        if hangs or process.returncode:
            text = (keep / "log").read_text(errors="replace")
            if not (keep / "last").exists():
                raise RuntimeError(f"{name} does not begin: {text[-2000:]}")
            where = next((line.strip() for line in text.splitlines() if line.strip().startswith("File ")), "")
            key = f"{'hangs' if hangs else f'dies {process.returncode}'} {where}"
            shutil.copy(keep / "last", keep / f"death-{seed}")
            with (keep / "found").open("a") as file:
                file.write(json.dumps({"key": key, "error": text[-2000:]}) + "\n")
        seed += 1
    counts = [int(file.read_text() or 0) for file in keep.glob("count-*")]
    found = [json.loads(line) for line in (keep / "found").read_text().splitlines()] if (keep / "found").exists() else []
    return {
        "seconds": round(seconds - left),
        "inputs": sum(counts),
        "found": {f["key"]: f["error"] for f in found},
    }


def _waited(process: subprocess.Popen[bytes], last: Path) -> tuple[bool, float]:
    """Wait for the end of a process; whether it was killed because an input took it too long, and how long it has read.

    Too long are 20 seconds of the processor, or three minutes on the clock of a machine that has other work.
    """
    begun, first, latest, used = time.time(), 0.0, 0.0, 0.0
    while process.poll() is None:
        time.sleep(0.5)
        now, busy = last.stat().st_mtime if last.exists() else 0.0, _seconds_of(process.pid)
        if now < begun:
            continue  # it is still importing
        first = first or now
        if now != latest:
            latest, used = now, busy
        if busy - used > HANGING or time.time() - latest > 9 * HANGING:
            process.send_signal(signal.SIGABRT)
            time.sleep(2)
            process.kill()
            process.wait()
            return True, time.time() - first
    return False, time.time() - first if first else 0.0


def _seconds_of(process: int) -> float:
    """The processor's time that a process has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> int:
    """Run for the time that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (default: %(default)s)")
    parser.add_argument("--only", choices=sorted(WEIGHTS), action="append", help="these targets; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where inputs that are findings go")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker, options.keep, options.seconds, options.seed)
        return 0
    weights = {name: WEIGHTS[name] for name in options.only or WEIGHTS}
    results = {}
    for name, weight in weights.items():
        share = options.seconds * weight / sum(weights.values())
        results[name] = watch(name, options.keep.absolute() / name, share, options.seed)
        print(f"{name}: {results[name]['inputs']} inputs, {len(results[name]['found'])} distinct findings", flush=True)
        for key, error in results[name]["found"].items():
            print(f"  {key}: {error[-200:]!r}", flush=True)
    import frame

    frame.save("fuzz", {"coverage_guided": GUIDED, "targets": results}, options.output)
    return 1 if any(result["found"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
