"""The progress bar of work that several processes share."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from attacker_metrics.jobs.parts import Plan
from attacker_metrics.jobs.processes import Processes

_MOST_MESSAGES = 100
"""About progress, per second, of all processes together."""


@contextlib.contextmanager
def progress(
    plan: Plan, processes: Processes, what: str = "scoring"
) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    """A bar of all processes' pairs, drawn by the first; yields what to call when pairs are done, and at the end.

    Args:
        plan: the pairs.
        processes: who shares the work.
        what: is being done; of its own for every plan.
    """
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    hidden = not (processes.is_first and sys.stderr.isatty())
    done_before = plan.total - plan.remaining_pairs
    with warnings.catch_warnings(), Progress(*columns, console=Console(stderr=True), disable=hidden) as bar:
        warnings.simplefilter("ignore")  # what matters is in the report
        task = bar.add_task(what, total=plan.total, completed=done_before)
        untold, told_at = 0, -math.inf

        def on_done(count: int) -> None:
            nonlocal untold
            untold += count
            if time.monotonic() - told_at >= processes.count / _MOST_MESSAGES:
                tell()

        def tell() -> None:
            nonlocal untold, told_at
            bar.update(task, completed=done_before + processes.add(f"done {what}", untold))
            untold, told_at = 0, time.monotonic()

        yield on_done, tell
