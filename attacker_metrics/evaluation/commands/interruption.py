"""Ctrl-C and SIGTERM during ``evaluate``: how they end it, and what is said about what is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from attacker_metrics.evaluation.commands.options import INTERRUPTED, TERMINATED, Interrupted
from attacker_metrics.evaluation.parts import UnfinishedRun
from attacker_metrics.evaluation.processes import Processes


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM raise as Ctrl-C does, so that both are answered in one place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted(interrupt: KeyboardInterrupt, run: UnfinishedRun, processes: Processes) -> Interrupted:
    """What to end with after an interrupt; the first process tells the user."""
    status = TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
    if not processes.is_first:
        return Interrupted("", status)
    return Interrupted(f"interrupted; {kept(run, processes)}", status)


def kept(run: UnfinishedRun, processes: Processes) -> str:
    """What an unfinished run leaves behind, in words; an empty folder is removed."""
    # Another process may be about to store a part.
    if not run.exists or (processes.count == 1 and run.remove_if_empty()):
        return "nothing was written."
    return f"{run.stored} finished parts are kept in {run.folder}. The same command with --resume continues."
