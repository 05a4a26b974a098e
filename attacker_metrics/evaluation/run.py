"""One process's share of a run: it takes one unfinished part after the other, scores it, and stores it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import torch

from attacker_metrics.evaluation.scoring import PartScores, RunScores, Seconds, score_part
from attacker_metrics.evaluation.unrelated import UnrelatedPairs
from attacker_metrics.jobs.parts import Plan, ResumeError, UnfinishedRun
from attacker_metrics.jobs.processes import Processes
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.pairs.loading import PartRows, load_ahead
from attacker_metrics.pairs.sources import PairSource
from attacker_metrics.reading.strongest import Selection

OnDone = Callable[[int], None]
Tell = Callable[[], None]

LARGEST_PART = 256
"""Pairs per part by default: what a crash costs each process."""


def default_part_size(total: int, processes: int, batch_size: int) -> int:
    """Pairs per part: at least a batch, at most 256, otherwise eight parts for each process, lest one has to wait long."""
    return max(min(LARGEST_PART, -(-total // (8 * processes))), min(batch_size, -(-total // processes)))


def evaluate_remaining(
    source: PairSource,
    privacy: MultiAttackerPrivacy,
    run: UnfinishedRun,
    plan: Plan,
    processes: Processes,
    *,
    columns: list[str],
    device: torch.device,
    batch_size: int,
    workers: int,
    on_done: Callable[[int], None],
    counter: str = "parts",
) -> Seconds:
    """Take parts that no other process has taken until there is none left.

    Batches never span parts, so that the scores do not depend on which process takes which part.

    Args:
        source: the pairs.
        privacy: the collection that scores them.
        run: where the parts are stored.
        plan: the parts.
        processes: who shares the work.
        columns: what :func:`~attacker_metrics.evaluation.scoring.columns_of` says.
        device: where to compute.
        batch_size: pairs of equal size that are scored at once.
        workers: threads that read and decode files; 0 reads between the computations.
        on_done: called with the number of pairs that this process has finished just now.
        counter: by which the processes take turns; one of its own for every plan.

    Returns:
        Where the time went.
    """
    seconds, begin = Seconds(), time.perf_counter()
    privacy = privacy.to(device)

    def taken() -> Iterator[PartRows]:
        while (turn := processes.take(counter)) < len(plan.remaining):
            number = plan.remaining[turn]
            start, stop = plan.rows(number)
            yield PartRows(number, start, source.rows(start, stop))

    stream = load_ahead(source, taken(), workers=workers, ahead=batch_size + 2 * workers)
    for part, group in itertools.groupby(stream, key=lambda item: item[0]):
        scores = PartScores.empty(part.start, len(part.table), len(columns))
        pairs = (pair for _, pair in group)
        score_part(pairs, scores, privacy, device=device, batch_size=batch_size, seconds=seconds, on_done=on_done)
        run.write(part.number, scores.beside(part.kept))
    seconds.total = time.perf_counter() - begin
    return seconds


def evaluate_unrelated(
    source: PairSource,
    selection: Selection,
    privacy: MultiAttackerPrivacy,
    run: UnfinishedRun,
    processes: Processes,
    progress: Callable[[Plan], AbstractContextManager[tuple[OnDone, Tell]]],
    *,
    columns: list[str],
    device: torch.device,
    batch_size: int,
    workers: int,
) -> RunScores | None:
    """Score unrelated pairs as :func:`evaluate_remaining` scores a run's, in a folder within the run's.

    Args:
        source: the pairs of the run.
        selection: what is compared; the same on every process.
        privacy: the collection that scores them.
        run: the run whose images these are.
        processes: who shares the work.
        progress: makes what is called when pairs are done, and at the end.
        columns: of the run.
        device: where to compute.
        batch_size: pairs of equal size that are scored at once.
        workers: threads that read and decode files.

    Returns:
        The scores on the first process, None on the others.
    """
    second = UnfinishedRun(run.folder / "unrelated")
    size = default_part_size(selection.total, processes.count, batch_size)

    def begin() -> dict[str, Any] | None:
        if not processes.is_first:
            return None
        # Other images may have scores than before an interruption.
        settings = {"run": run.identity, **asdict(selection)}
        return asdict(second.begin_or_renew(settings, selection.total, None, size))

    plan = Plan(**processes.tell("unrelated plan", processes.agree("begin unrelated", begin, ResumeError, OSError)))
    processes.agree("join unrelated", second.join, OSError)
    pairs = UnrelatedPairs(source, selection)
    with progress(plan) as (on_done, tell):
        evaluate_remaining(
            pairs,
            privacy,
            second,
            plan,
            processes,
            columns=columns,
            device=device,
            batch_size=batch_size,
            workers=workers,
            on_done=on_done,
            counter="unrelated parts",
        )
        tell()
        processes.gather("unrelated done", None, tell)
    if not processes.is_first:
        return None
    return RunScores.of_tables(second.tables(plan), columns, plan.total)


def throughput(seconds: list[dict[str, Any]], workers: int, threads: int) -> dict[str, Any]:
    """What ``summary.json`` says about speed.

    Args:
        seconds: every process's :class:`~attacker_metrics.evaluation.scoring.Seconds`, as mappings.
        workers: loading threads of each process.
        threads: torch's threads in each process.
    """
    wall, pairs = max(part["total"] for part in seconds), sum(part["pairs"] for part in seconds)
    sums = {name: round(sum(part[name] for part in seconds), 3) for name in ("read", "decode", "compute", "wait")}
    return {
        "pairs": pairs,
        "seconds": round(wall, 3),
        "pairs_per_second": round(pairs / wall, 3) if wall > 0 else None,
        "processes": len(seconds),
        "pairs_of_process": [part["pairs"] for part in seconds],
        "workers": workers,
        "threads": threads,
        **{f"{name}_seconds": value for name, value in sums.items()},
    }
