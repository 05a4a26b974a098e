"""The processes of one assessment under ``torch.distributed``: who does which share, and how all learn of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from attacker_metrics.reading.learned.attacker import gathered

T = TypeVar("T")


def share(total: int) -> range:
    """The positions of ``total`` that are this process's: a run of neighbours, in the order of ranks."""
    distributed = torch.distributed
    rank, count = 0, 1
    if distributed.is_available() and distributed.is_initialized():
        rank, count = distributed.get_rank(), distributed.get_world_size()
    return range(total * rank // count, total * (rank + 1) // count)


def together(action: Callable[[], T]) -> list[T]:
    """Do what may fail on some of the processes, and return what each returned, in the order of ranks.

    Raises:
        Exception: on the process that failed, its own.
        RuntimeError: on the others, which would wait for it for ever otherwise.
    """
    failure: Exception | None = None
    result: Any = None
    try:
        result = action()
    except Exception as error:
        failure = error
    reason = None if failure is None else f"{type(failure).__name__}: {failure}"
    outcomes = gathered((result, reason))
    if failure is not None:
        raise failure
    for rank, (_, other) in enumerate(outcomes):
        if other is not None:
            raise RuntimeError(f"process {rank} failed: {other}")
    return [result for result, _ in outcomes]


def check_same(arguments: Any) -> None:
    """Raise a ``RuntimeError`` on every process unless all were called with equal arguments, judged by how they print."""
    digests = gathered(hashlib.blake2b(repr(arguments).encode(), digest_size=16).hexdigest())
    different = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if different:
        raise RuntimeError(
            f"processes 0 and {different[0]} assess different things: ids, groups, fit, seed, anchors, attackers and"
            " whether these are fitted must be the same on every process, which take their shares themselves."
        )
