"""The library's one warning category, and at most one warning per public call."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from attacker_metrics._transforms import transforming

_PACKAGES_BETWEEN_US_AND_THE_USER = ("attacker_metrics", "torchmetrics", "torch", "contextlib")
_on_the_way: deque[tuple[torch.cuda.Event, Tensor, str]] = deque()
_lock = threading.Lock()
_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)


class AttackerMetricsWarning(UserWarning):
    """Something about the data that the numbers alone do not tell, such as images that were left out.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("error", AttackerMetricsWarning)  # turn every warning of ours into an error
        >>> warnings.simplefilter("default", AttackerMetricsWarning)
    """


def warn(message: str) -> None:
    """Warn at the user's line, unless :func:`at_most_one_warning` is collecting or a compiler is tracing."""
    if torch.compiler.is_compiling():
        return
    collected = _collected.get()
    if collected is None:
        warnings.warn(message, AttackerMetricsWarning, stacklevel=_users_stack_level())
    elif message not in collected:
        collected.append(message)


def warn_unless(fine: Tensor, message: str) -> None:
    """Warn if any of some flags ``(B,)`` is not set, with their number and B for the two ``{}`` in the message.

    At once on a CPU. A CUDA device is not waited for: the flags are copied to the host behind the work that was queued, and
    the warning comes with the first later call for which they have arrived. Nothing is said while a CUDA graph is captured.
    """
    if transforming():
        _OutsideTransforms.apply(fine, message)
    else:
        _warn_now_or_later(fine, message)


class _OutsideTransforms(torch.autograd.Function):
    """Reads flags inside ``torch.func.vmap``, where no tensor can be read: below the map they are plain ones again."""

    @staticmethod
    def forward(fine: Tensor, message: str) -> Tensor:
        _warn_now_or_later(fine.flatten(), message)
        return fine.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, _inputs: tuple[Tensor, str], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(_info: Any, _dims: tuple[int | None, None], fine: Tensor, message: str) -> tuple[Tensor, None]:
        return _OutsideTransforms.apply(fine, message), None


def _warn_now_or_later(fine: Tensor, message: str) -> None:
    if fine.device.type != "cuda":
        _warn_of_unset(fine, message)
        return
    with torch.cuda.device(fine.device), _lock, at_most_one_warning():
        if torch.cuda.is_current_stream_capturing():
            return
        while _on_the_way and _on_the_way[0][0].query():  # type: ignore[no-untyped-call]
            _, arrived, earlier = _on_the_way.popleft()
            _warn_of_unset(arrived, "In an earlier call " + earlier)
        flags = torch.empty(fine.shape, dtype=torch.bool, pin_memory=True).copy_(fine, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        _on_the_way.append((event, flags, message))


def _warn_of_unset(fine: Tensor, message: str) -> None:
    unset = len(fine) - int(fine.sum())
    if unset:
        warn(message.format(unset, len(fine)))


@contextmanager
def at_most_one_warning() -> Iterator[None]:
    """Gather every :func:`warn` of the block into one warning, emitted when the block ends without an error."""
    if _collected.get() is not None:  # an outer block gathers already
        yield
        return
    messages: list[str] = []
    token = _collected.set(messages)
    try:
        yield
    finally:
        _collected.reset(token)
    if messages:
        warn(" ".join(messages))


def _users_stack_level() -> int:
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").split(".")[0] in _PACKAGES_BETWEEN_US_AND_THE_USER
    ):
        level, frame = level + 1, frame.f_back
    return level
