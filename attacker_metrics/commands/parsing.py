"""Words of the command line -> what is to be run, by cyclopts; its mistakes told as all others are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter
from cyclopts.help import DefaultFormatter

from attacker_metrics._version import __version__
from attacker_metrics.jobs.ending import UsageError

_HELP = ("--help", "-h")
_VERSION = ("--version",)


class _Formatter(DefaultFormatter):
    """Help in panels below a line of usage."""

    def render_usage(self, console: Any, _options: Any, usage: Any) -> None:
        """Print the line of usage."""
        line = str(usage).strip().removeprefix("Usage:").strip()
        console.print(f"usage: {line} [--help]\n", markup=False, highlight=False)


def application(name: str, help: str, **more: Any) -> App:  # noqa: A002
    """A program, or a command that holds others."""
    return App(
        name=name,
        help=help,
        version=f"attacker-metrics {__version__}",
        version_flags=_VERSION if name == "attacker-metrics" else (),
        help_flags=_HELP,
        help_format="plaintext",
        help_formatter=_Formatter(),
        default_parameter=Parameter(negative=()),
        **more,
    )


def add_command(app: App, command: Callable[..., Any] | App, *epilogue: str, name: str | None = None) -> None:
    """Add a command behind those that are there, or one that holds others.

    Args:
        app: what it is added to.
        command: its docstring is its help, lines joined to paragraphs.
        epilogue: lines below its options.
        name: of the command if it is not the function's.
    """
    place = sum(not other.startswith("-") for other in app)
    if isinstance(command, App):
        command.sort_key = place
        app.command(command)
        return
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    help_ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(command, name=name, help=help_, help_epilogue="\n".join(epilogue) or None, sort_key=place)


def parsed(app: App, words: Sequence[str]) -> Callable[[], Any]:
    """What the words ask for, ready to be called.

    Raises:
        UsageError: if they cannot be understood; the message says which, why, and where help is.
    """
    words = list(words)
    chain, apps, rest = app.parse_commands(words)
    help_is = f"'{' '.join(('attacker-metrics', *chain))} --help' shows what there is."
    if {*_VERSION} & {*chain}:
        return functools.partial(print, app.version)
    if not {*_HELP} & {*chain}:  # which cyclopts takes for commands
        if apps[-1].default_command is None:
            there = ", ".join(name for name in apps[-1] if not name.startswith("-"))
            found = f"there is no command {rest[0]!r}" if rest else "required: COMMAND"
            raise UsageError(f"{found}, one of {there}. {help_is}")
        words = [*words[: len(words) - len(rest)], *_unabbreviated(apps[-1], rest, help_is)]
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except MissingArgumentError as error:
        raise UsageError(f"{_missing(app, words, error)}. {help_is}") from error
    except CycloptsError as error:
        raise UsageError(f"{str(error).rstrip('.')}. {help_is}") from error
    bound.apply_defaults()
    return functools.partial(command, *bound.args, **bound.kwargs)


def _unabbreviated(command: App, words: Sequence[str], help_is: str) -> list[str]:
    """The words with every option spelt out of which so much is given that it can be no other."""
    known = [*_HELP, *(name for argument in command.assemble_argument_collection() for name in argument.names)]
    found: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*found, *words[place:]]
        name, equals, value = word.partition("=")
        if name.startswith("--") and name not in known:
            meant = [option for option in known if option.startswith(name)]
            if len(meant) > 1:
                raise UsageError(f"{name} could be {' or '.join(meant)}; write it out. {help_is}")
            name = meant[0] if meant else name
        found.append(name + equals + value)
    return found


def _missing(app: App, words: list[str], error: MissingArgumentError) -> str:
    """Everything that is required and not there, not the first alone."""
    names: list[str] = []
    given = {word.partition("=")[0] for word in words}
    found: CycloptsError | None = error
    while isinstance(found, MissingArgumentError) and found.argument is not None:
        option = found.argument.names[0]
        if option in given:
            return f"{option} needs a value"
        positional = found.argument.index is not None
        names.append(found.argument.field_info.name.upper() if positional else option)
        words, found = [*words, f"{option}=x"], None
        given.add(option)
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as other:
            found = other
    return f"required: {', '.join(names)}"
