"""Rows -> loaded pairs, read and decoded in threads ahead of the computation."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import torch

from attacker_metrics.engine.backends import backend
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, PairSource

_MOST_WORKERS = 8
_ROWS = 256


@dataclass(frozen=True, eq=False)
class PartRows:
    """The rows of one part of a run.

    Args:
        number: the part.
        start: its first row's number in the source.
        table: its rows.
    """

    number: int
    start: int
    table: pa.Table

    @property
    def kept(self) -> pa.Table:
        """The rows as the scores' table shows them: without the places of the images."""
        return self.table.drop_columns([name for name in ("clean", "noisy") if name in self.table.column_names])


def load_ahead(
    source: PairSource, parts: Iterable[PartRows], *, workers: int, ahead: int
) -> Iterator[tuple[PartRows, LoadedPair | FailedPair]]:
    """Load the pairs of the parts in order, also across the border of two parts.

    Threads suffice: decoders and file systems release Python's lock, and a tensor need not be copied to another process.

    Args:
        source: where the rows come from.
        parts: asked for its next element when that is to be read.
        workers: threads that read and decode; 0 does both in this one, when a pair is asked for.
        ahead: pairs that are loaded or being loaded beyond the one asked for.
    """
    if workers == 0:
        for part, index, row in _rows(parts):
            yield part, _load(source, index, row)
        return
    torch.get_num_threads()  # fixes this thread's number: torch would take over what another thread sets first
    pool = ThreadPoolExecutor(workers, "load", initializer=_one_thread)
    try:
        rows, waiting = _rows(parts), deque[tuple[PartRows, Future[LoadedPair | FailedPair]]]()
        while True:
            while len(waiting) <= ahead and (following := next(rows, None)) is not None:
                part, index, row = following
                waiting.append((part, pool.submit(_load, source, index, row)))
            if not waiting:
                return
            part, future = waiting.popleft()
            yield part, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def share_cores(processes_here: int, *, on_cpu: bool) -> tuple[int, int]:
    """Split this process's share of the cores between computing and loading, so that they do not wait for each other.

    At 224 pixels, loading a pair takes a tenth of the time that the torch backend computes, half of what the native kernel
    does (``benchmarks/evaluate.py``): of few cores, one kept for loading would be idle most of the time. So both share
    the cores below four; above, loading has an eighth or a third of them for itself.

    Args:
        processes_here: processes on this host.
        on_cpu: whether the scores are computed on the CPU.

    Returns:
        torch's threads and the threads that load. ``OMP_NUM_THREADS``, which ``torchrun`` sets to 1, decides on torch's.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    mine = max(1, cores // processes_here)
    if not on_cpu:
        return torch.get_num_threads(), min(_MOST_WORKERS, mine)
    workers = min(_MOST_WORKERS, max(1, mine // (3 if backend() == "native" else 8)))
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads(), workers
    return (mine - workers if mine >= 4 else mine), workers


def _rows(parts: Iterable[PartRows]) -> Iterator[tuple[PartRows, int, dict[str, str]]]:
    for part in parts:
        index = part.start
        for batch in part.table.to_batches(max_chunksize=_ROWS):
            for row in batch.to_pylist():
                yield part, index, row
                index += 1


def _load(source: PairSource, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:
    try:
        return source.load(index, row)
    except Exception as error:  # whatever is wrong with one pair must not end the run
        return FailedPair(index, f"{type(error).__name__}: {error}")


def _one_thread() -> None:
    torch.set_num_threads(1)  # of this thread: each would otherwise start a team as large as the computation's
