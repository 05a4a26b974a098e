"""The processes of one evaluation: who this one is, and how they share work and words. One process needs none of it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

_JOIN = timedelta(minutes=5)
_FIRST_WAIT, _LONGEST_WAIT = 0.005, 0.5
_MOST_REQUESTS = 2000
"""Per second, of all processes that wait together: one store answers them all."""
_evaluations = itertools.count()
"""A script may run several, one after the other: each has words of its own."""

T = TypeVar("T")


class AgreedError(Exception):
    """One of the processes failed, and all know; the first one tells the user."""


class Processes:
    """This process among those that a launcher such as ``torchrun`` started together, read from its environment variables.

    The processes talk through the launcher's key-value store. They wait for each other by asking it again and again instead
    of in a collective: a wait ends at a signal, and takes as long as the slowest process needs. A process that dies is
    noticed, and the others ended, by the launcher.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        local_rank: number of this process on its host.
        local_count: number of processes on this host.
        restarts: how often an elastic launcher has started the job anew.
    """

    def __init__(self) -> None:
        self.rank, self.count = _variable("RANK", 0), number_of_processes()
        self.local_rank, self.local_count = _variable("LOCAL_RANK", self.rank), _variable("LOCAL_WORLD_SIZE", self.count)
        self.restarts = _variable("TORCHELASTIC_RESTART_COUNT", 0)
        self._store = self._joined() if self.count > 1 else _OwnStore()
        self._longest_wait = max(_LONGEST_WAIT, self.count / _MOST_REQUESTS)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, prints and decides."""
        return self.rank == 0

    def take(self, counter: str) -> int:
        """The next number of a counter, from 0; no two processes get the same."""
        return self._store.add(counter, 1) - 1

    def add(self, counter: str, amount: int) -> int:
        """Add to a counter and return its value."""
        return self._store.add(counter, amount)

    def tell(self, name: str, value: Any = None) -> Any:
        """Hand the first process's JSON value to all."""
        if self.is_first:
            self._store.set(name, json.dumps(value))
            return value
        return self._read(name)

    def gather(self, name: str, value: Any, while_waiting: Callable[[], None] = lambda: None) -> list[Any]:
        """Hand every process's JSON value to the first, by rank; the others get an empty list and do not wait.

        If all of them read what all have written, the requests would grow with the square of their number.
        """
        self._store.set(f"{name}/{self.rank}", json.dumps(value))
        return [self._read(f"{name}/{rank}", while_waiting) for rank in range(self.count)] if self.is_first else []

    def agree(self, name: str, action: Callable[[], T], *errors: type[Exception]) -> T:
        """Do what may fail on some of the processes.

        Raises:
            AgreedError: on every process, if one of ``errors`` was raised on any.
        """
        reason: str | None = None
        try:
            result = action()
        except errors as error:
            reason = str(error)
        reasons = self.gather(name, reason)
        failed = next((rank for rank, reason in enumerate(reasons) if reason is not None), None)
        verdict = None if failed is None else f"process {failed}: {reasons[failed]}" if failed else reasons[0]
        verdict = self.tell(f"{name}/verdict", verdict)
        if verdict is not None:
            raise AgreedError(verdict)
        return result

    def leave(self) -> None:
        """Say goodbye after the last word: the first process's end, should its status not be 0, ends the others.

        The others leave once the first has come here; the first, which may host the store, waits for their goodbye.
        """
        self.gather("left", None)
        self._read("left/0")

    def _read(self, key: str, while_waiting: Callable[[], None] = lambda: None) -> Any:
        wait = _FIRST_WAIT
        while not self._store.check([key]):
            while_waiting()
            time.sleep(wait)
            wait = min(2 * wait, self._longest_wait)
        return json.loads(self._store.get(key))

    def _joined(self) -> Any:
        # Some builds of torch lack them; a single process does without.
        from torch.distributed import PrefixStore  # type: ignore[attr-defined, unused-ignore]
        from torch.distributed.rendezvous import rendezvous

        store = next(rendezvous("env://", self.rank, self.count, timeout=_JOIN))[0]
        return PrefixStore(f"attacker-metrics/{self.restarts}/{next(_evaluations)}", store)


class _OwnStore:
    """What a single process asks of a store; torch's own ``HashStore`` is not there on Windows."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, key: str, amount: int) -> int:
        value = int(self._values.get(key, 0)) + amount
        self._values[key] = str(value)
        return value

    def set(self, key: str, value: str) -> None:
        self._values[key] = value

    def get(self, key: str) -> str:
        return self._values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)


def number_of_processes() -> int:
    """How many processes a launcher has started together with this one, itself included."""
    return _variable("WORLD_SIZE", 1)


def _variable(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)
