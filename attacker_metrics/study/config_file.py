"""A study's YAML file -> checked settings; errors name file, line and key."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from attacker_metrics.study.config import SPELLINGS, Config, unknown

Place = tuple[str | int, ...]


_MOST_LEVELS, _MOST_PLACES = 20, 100_000
_LONGEST = 200


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Leaves dates text: no setting is one, and 2024-13-01 would be an error without a line."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class ConfigError(ValueError):
    """A study's file that cannot be used; every line of the message names file, line and key."""


def read_config(path: Path) -> Config:
    """Read and check a study's file.

    Raises:
        ConfigError: naming file, line and key of everything that is wrong.
        OSError: if the file cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        return parse_config(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not a text file in UTF-8.") from error


def builtin_text() -> str:
    """The file of the built-in study."""
    return (resources.files("attacker_metrics.study") / "builtin.yaml").read_text(encoding="utf-8")


def parse_config(text: str, path: Path) -> Config:
    r"""Check the content of a study's file.

    Args:
        text: YAML.
        path: what messages call it; paths in it are relative to its folder.

    Raises:
        ConfigError: naming file, line and key of everything that is wrong.

    Example:
        >>> parse_config("name: mine\nimages: many\n", Path("study.yaml"))
        Traceback (most recent call last):
        ...
        attacker_metrics.study.config_file.ConfigError: study.yaml:1: data: it is missing.
        study.yaml:2: images: Input should be a valid integer, unable to parse string as an integer, got 'many'.
        study.yaml:1: models: it is missing.
        ...
    """
    lines: dict[Place, int] = {(): 1}
    try:
        node = yaml.compose(text, Loader=_Loader)
        twice = list(_number_lines(node, (), lines))
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one # nosec B506
    except RecursionError as error:
        raise ConfigError(
            f"{path}: it is nested too deeply, or unfolds to too much; does an alias (*) stand inside of what it refers to?"
        ) from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise ConfigError(f"{path}:{line}: this is not YAML: {getattr(error, 'problem', None) or error}.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # a tag and a value that is none of that type
        raise ConfigError(f"{path}: this is not YAML: a value is not of the type of its tag: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: a study's file holds keys and values, e.g. 'name: mine'.")
    if twice:
        raise ConfigError("\n".join(f"{path}:{line}: {_dotted(place)}: the key comes twice." for place, line in twice))
    try:
        return Config.model_validate(content, context={"folder": path.absolute().parent})
    except ValidationError as error:
        found = error.errors()
        # A list whose items are all wrong is told to be empty too.
        wrong = {details["loc"][:depth] for details in found for depth in range(len(details["loc"]))}
        found = [details for details in found if details["type"] != "too_short" or details["loc"] not in wrong]
        raise ConfigError("\n".join(_line(path, details, lines) for details in found)) from error


def _number_lines(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Iterable[tuple[Place, int]]:
    """Fill in the line of every key and item; yields keys that come twice.

    Raises:
        RecursionError: if an alias stands inside of what it refers to, or aliases of aliases make a small file huge.
    """
    if len(place) > _MOST_LEVELS or len(lines) > _MOST_PLACES:
        raise RecursionError
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no key of a study, as reading it says
            below = (*place, key.value)
            if below in lines:
                yield below, key.start_mark.line + 1
            lines[below] = key.start_mark.line + 1
            yield from _number_lines(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            below = (*place, index)
            lines[below] = item.start_mark.line + 1
            yield from _number_lines(item, below, lines)


def _line(path: Path, details: ErrorDetails, lines: dict[Place, int]) -> str:
    place = (*details["loc"], *details.get("ctx", {}).get("at", ()))
    place = (*(_as_written(place, depth, lines) for depth in range(len(place))),)
    given = repr(details["input"])
    given = given if len(given) <= _LONGEST else f"{given[:_LONGEST]}..."
    kind, message = details["type"], details["msg"]
    if kind == "invalid_key":
        place = (*place[:-1], str(details["input"]))
    if kind == "extra_forbidden":
        message = unknown(place[-1], _fields(place[:-1]))
    elif kind == "missing":
        message = "it is missing."
    elif kind == "model_type":
        message = f"keys and values belong here, got {given}."
    elif kind == "too_short":
        message = "give one at least."
    elif kind == "literal_error":
        message = unknown(details["input"], re.findall("'([^']*)'", details["ctx"]["expected"]))
    elif kind == "string_pattern_mismatch":
        message = f"{given} is no name: use letters, digits and _ . + -, no blanks."
    elif kind != "study":
        message = f"{message}, got {given}."
    while place not in lines and kind != "missing":
        place = place[:-1]
    where = next(lines[place[:depth]] for depth in range(len(place), -1, -1) if place[:depth] in lines)
    return f"{path}:{where}: {_dotted(place)}{': ' if place else ''}{message}"


def _as_written(place: Place, depth: int, lines: dict[Place, int]) -> str | int:
    """A key as the file spells it."""
    part, before = place[depth], place[:depth]
    for other, ours in SPELLINGS.items():
        if part == ours and (*before, other) in lines and (*before, ours) not in lines:
            return other
    return part


def _dotted(place: Place) -> str:
    shown = (f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in place)
    return "".join(shown).removeprefix(".")


def _plain(key: str) -> str:
    """Without what a terminal would obey."""
    return key if key.isprintable() else repr(key)[1:-1]


def _fields(place: Place) -> list[str]:
    """The keys that there are below a place of the file."""
    model: Any = Config
    for part in place:
        if isinstance(part, str):
            model = _model_in(model.model_fields[SPELLINGS.get(part, part)].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    """The part in ``tuple[Part, ...]``, ``Part | None`` or ``Part``."""
    if typing.get_origin(annotation) in (tuple, types.UnionType, typing.Union):
        return next((found for arg in typing.get_args(annotation) if (found := _model_in(arg)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
