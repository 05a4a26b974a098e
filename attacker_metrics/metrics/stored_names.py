"""The names under which releases before 0.2 stored the states of metrics, so that what they saved can be loaded."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from typing import Any

from attacker_metrics.metrics.identity import is_of_this_library

_HOMES = {
    "AttackerMetric": "attacker_metrics.attacker_metric",
    **dict.fromkeys(
        (
            "LearnedAttackerMetric",
            "LinearAttackerMSSSIM",
            "LinearAttackerPearson",
            "CNNAttackerMSSSIM",
            "CNNAttackerPearson",
        ),
        "attacker_metrics.learned.metrics",
    ),
    **dict.fromkeys(("clamp", "luma", "minmax", "sobel", "standardize"), "attacker_metrics.attackers"),
    **dict.fromkeys(("invert", "median", "mean_of_draws"), "attacker_metrics.filters"),
}
"""Where classes and functions of this library lived, where it was not ``attacker_metrics.metrics``: it was in the names."""


def digest_before(metric_class: type, components: tuple[Any, ...]) -> str:
    """The eight digits at the end of the old names of a metric's states."""
    described = f"{_home(metric_class)}.{metric_class.__qualname__} {_describe(components)}"
    return hashlib.sha256(described.encode()).hexdigest()[:8]


def _home(thing: Any) -> str:
    if is_of_this_library(thing):
        return _HOMES.get(thing.__qualname__, "attacker_metrics.metrics")
    return str(thing.__module__)


def _describe(thing: Any) -> str:
    if isinstance(thing, tuple | list):
        return f"[{', '.join(map(_describe, thing))}]"
    if dataclasses.is_dataclass(thing):
        values = (f"{f.name}={_describe(getattr(thing, f.name))}" for f in dataclasses.fields(thing) if f.compare)
        return f"{type(thing).__qualname__}({', '.join(values)})"
    if isinstance(thing, functools.partial):
        return f"partial({_describe((thing.func, thing.args, sorted(thing.keywords.items())))})"
    if isinstance(thing, types.FunctionType):
        line = thing.__code__.co_firstlineno if "<" in thing.__qualname__ else ""
        inside = [cell.cell_contents for cell in thing.__closure__ or ()] + [thing.__defaults__, thing.__kwdefaults__]
        return f"{_home(thing)}.{thing.__qualname__}{line}{_describe(inside)}"
    text = repr(thing)
    return type(thing).__qualname__ if " at 0x" in text else text
