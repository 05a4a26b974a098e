"""What the options of every command are made of: types with messages of their own, and what each option affects.

An option is a field of a frozen dataclass: ``Annotated[type, Affects..., Parameter(help=..., converter=...)]``. The command
line is generated from it by cyclopts; what a run records, ``--resume`` needs and ``compare`` asks follows from ``Affects``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from cyclopts import Parameter, Token

from attacker_metrics.files.urls import is_url

OVERWRITE = "replace files that this command did not write; inputs are never written over"


class Affects(Enum):
    """What another value of an option would change."""

    MEANING = "what a score measures: an unfinished run is continued, and runs are compared, only with the same"
    NUMBERS = "which numbers there are: an unfinished run is continued only with the same; a comparison names it"
    SUBJECT = "what is measured: an unfinished run is continued only with the same; comparisons are about it"
    CIRCUMSTANCES = "what may fail, rounding, what is computed beside the scores: a comparison names it"
    SPEED = "how fast it goes"
    OUTPUT = "what is made of the scores"
    SESSION = "this call of the program alone; it is not recorded"

    @property
    def must_agree_to_resume(self) -> bool:
        """Whether an unfinished run is continued only with the same value."""
        return self in (Affects.MEANING, Affects.NUMBERS, Affects.SUBJECT)

    @property
    def is_named_by_compare(self) -> bool:
        """Whether a comparison says, or refuses, that runs differ in it."""
        return self in (Affects.MEANING, Affects.NUMBERS, Affects.CIRCUMSTANCES)


def affected_by(options: Any) -> Mapping[str, Affects]:
    """Field -> what it affects.

    Args:
        options: the class, a dataclass of which every field says so, exactly once.

    Raises:
        TypeError: naming a field that does not.
    """
    found = {}
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        said = [mark for mark in getattr(hints[field.name], "__metadata__", ()) if isinstance(mark, Affects)]
        if len(said) != 1:
            raise TypeError(f"{options.__name__}.{field.name} must say what it affects, once; it says {said}.")
        found[field.name] = said[0]
    return MappingProxyType(found)


def recorded(options: Any) -> dict[str, Any]:
    """What a run records of its options, as JSON values: all but :attr:`Affects.SESSION`."""
    kinds = affected_by(type(options))
    return {name: _as_json(getattr(options, name)) for name, kind in kinds.items() if kind is not Affects.SESSION}


def settings_that_matter(options: Any) -> dict[str, Any]:
    """The options that an unfinished run must have been begun with, as JSON values; files by their whole path."""
    kinds = affected_by(type(options))
    return {name: _as_json(getattr(options, name), whole=True) for name, kind in kinds.items() if kind.must_agree_to_resume}


def _as_json(value: Any, *, whole: bool = False) -> Any:
    if isinstance(value, Path):
        return str(value.resolve() if whole else value)
    if isinstance(value, (tuple, list)):
        return [_as_json(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str, dict)) else str(value)


def option(help: str, **more: Any) -> Parameter:  # noqa: A002
    """An option with a value; of several on one command line the last one counts."""
    return Parameter(help=help, **{"allow_repeating": True, **more})


def several(help: str, **more: Any) -> Parameter:  # noqa: A002
    """An option that may be given several times."""
    return Parameter(help=help, show_default=False, **more)


def flag(help: str, **more: Any) -> Parameter:  # noqa: A002
    """An option without a value."""
    return Parameter(help=help, negative=(), show_default=False, allow_repeating=True, **more)


def whole(_type: Any, tokens: Sequence[Token]) -> int:
    """..., -1, 0, 1, 2, ..."""
    text = tokens[-1].value
    if not text.removeprefix("-").isdecimal():
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def count(_type: Any, tokens: Sequence[Token]) -> int:
    """0, 1, 2, ..."""
    text = tokens[-1].value
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive(_type: Any, tokens: Sequence[Token]) -> int:
    """1, 2, 3, ..."""
    text = tokens[-1].value
    if not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number(_type: Any, tokens: Sequence[Token]) -> float:
    """A number."""
    text = tokens[-1].value
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def numbers(_type: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Numbers, each an argument or separated by commas."""
    found: list[float] = []
    for token in tokens:
        try:
            found += [float(part) for part in token.value.split(",") if part]
        except ValueError:  # noqa: PERF203 - the message names the one
            raise ValueError(f"{token.value!r} is not a number or a comma-separated list of numbers") from None
    if not found:
        raise ValueError("there is no number; pass one or more, such as 0.5 2")
    return tuple(found)


def seconds(_type: Any, tokens: Sequence[Token]) -> float:
    """A positive number of seconds."""
    value = _or_nan(tokens[-1].value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{tokens[-1].value!r} is not a positive number of seconds")
    return value


def share(_type: Any, tokens: Sequence[Token]) -> float:
    """A number between 0 and 1, both excluded."""
    value = _or_nan(tokens[-1].value)
    if not 0 < value < 1:
        raise ValueError(f"{tokens[-1].value!r} is not a share between 0 and 1, such as 0.5")
    return value


def path_or_url(_type: Any, tokens: Sequence[Token]) -> Path | str:
    """A URL as text, anything else as a path."""
    text = tokens[-1].value
    return text if is_url(text) else Path(text)


def _or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
