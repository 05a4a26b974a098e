"""Ctrl-C and SIGTERM during a run: how they end it, and what is said about what is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from attacker_metrics.jobs.ending import INTERRUPTED, TERMINATED, Interrupted
from attacker_metrics.jobs.parts import UnfinishedRun
from attacker_metrics.jobs.processes import Processes

_PATIENCE = 4.0
"""Seconds after a signal in which a command may end by itself; a read that hangs in the system would hold it for ever."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM raise as Ctrl-C does, so that both are answered in one place, and end the process if nothing answers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watches: list[threading.Timer] = []

    def answer(number: int, _frame: FrameType | None) -> None:
        status, interrupt = (TERMINATED, _Terminated) if number == signal.SIGTERM else (INTERRUPTED, KeyboardInterrupt)
        watch = threading.Timer(_PATIENCE, _end, [status])
        watch.daemon = True
        watch.start()
        watches.append(watch)
        raise interrupt

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for watch in watches:
            watch.cancel()


def _end(status: int) -> None:
    """End the process where it stands: every finished part is on the disk."""
    with contextlib.suppress(OSError):
        os.write(
            2,
            b"attacker-metrics: interrupted; something hangs, so this ends at once. Finished parts are kept,"
            b" --resume continues.\n",
        )
    os._exit(status)


def interrupted(interrupt: KeyboardInterrupt, run: UnfinishedRun, processes: Processes) -> Interrupted:
    """What to end with after an interrupt; the first process tells the user."""
    status = TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
    if not processes.is_first:
        return Interrupted("", status)
    return Interrupted(f"interrupted; {kept(run, processes)}", status)


def kept(run: UnfinishedRun, processes: Processes) -> str:
    """What an unfinished run leaves behind, in words; an empty folder is removed."""
    # Another process may be about to store a part.
    if not (run.identity and run.exists) or (processes.count == 1 and run.remove_if_empty()):
        return "nothing was written."
    return f"{run.stored} finished parts are kept in {run.folder}. The same command with --resume continues."
