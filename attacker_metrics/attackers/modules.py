"""Torch modules inside of components: found, so that they follow the metric, and kept in evaluation mode while they score.

They are no submodules of the metric: ``parameters()`` would hand them to the optimizer of the model that holds the metric,
``apply`` would initialise them anew, and distributed wrappers would wait for their gradients.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

_DEPTH = 6
_lock = threading.RLock()


def modules_in(thing: Any, *, but: Sequence[nn.Module] = ()) -> list[nn.Module]:
    """The torch modules that a thing is, or holds: partials, bound methods, closures, dataclasses, plain objects.

    Args:
        thing: anything.
        but: modules to leave out, with all in them.
    """
    found: dict[int, nn.Module] = {}
    _search(thing, {id(part) for part in but}, found, _DEPTH)
    return list(found.values())


def _search(thing: Any, seen: set[int], found: dict[int, nn.Module], depth: int) -> None:
    if id(thing) in seen or depth == 0:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        found[id(thing)] = thing
        return
    for part in _parts(thing):
        _search(part, seen, found, depth - 1)


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, tuple | list):
        return thing
    if isinstance(thing, dict):
        return thing.values()
    if isinstance(thing, functools.partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, types.MethodType):
        return (thing.__self__,)
    if isinstance(thing, types.FunctionType):
        return [value for cell in thing.__closure__ or () for value in _content(cell)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return [getattr(thing, field.name, None) for field in dataclasses.fields(thing)]
    if isinstance(thing, type | types.ModuleType):
        return ()
    return vars(thing).values() if hasattr(thing, "__dict__") and callable(thing) else ()


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # a variable that has no value yet
        return ()


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block the modules are in evaluation mode, whatever the mode of the model around the metric.

    Scoring must not change the statistics of batch normalisation, and a score must not depend on the other images of its
    batch, nor on dropout.
    """
    training = [part for module in modules for part in module.modules() if part.training]
    if not training:
        yield
        return
    with _lock:  # two threads would restore each other's modes
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True
