"""The library's one warning category, and at most one warning per public call."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_PACKAGES_BETWEEN_US_AND_THE_USER = ("attacker_metrics", "torchmetrics", "torch", "contextlib")
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
