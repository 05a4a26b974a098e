"""``attacker-metrics study``: train, attack, score, annotate and report, from one file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attacker_metrics.commands.options import (
    BAD_USAGE,
    INTERRUPTED,
    OK,
    Interrupted,
    UsageError,
    add_overwrite,
    device_of,
    say,
)
from attacker_metrics.files.terminal import printable
from attacker_metrics.files.writing import OutputError, check_outputs
from attacker_metrics.jobs.processes import AgreedError, Processes

if TYPE_CHECKING:
    from attacker_metrics.study import Config

_HELP = {
    "run": "all steps, one after the other",
    "train": "train the classifiers, or load them",
    "attack": "reconstruct images from the gradients that clients share",
    "score": "score every reconstruction by every metric",
    "annotate": "take over people's votes, or let machine annotators pick; write the tasks for people",
    "report": "leakage, correlations, and what they rest on",
}


def add(commands: Any) -> None:
    """Add the command's parsers."""
    study = commands.add_parser(
        "study",
        help="run a whole study: classifiers, defences, attacks, metrics, who recognises what",
        description="A study from one YAML file. Steps that are done are skipped; changed settings redo a step and those"
        " after it. The folder holds image data. Needs the extra 'study'.",
    )
    parts = study.add_subparsers(required=True, metavar="STEP")
    command = parts.add_parser("config", help="print the built-in study's file, to start from")
    command.set_defaults(command=config)
    for name, text in _HELP.items():
        command = parts.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(command=run, step=name)
        command.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="the study's YAML file")
        command.add_argument("--builtin", action="store_true", help="the built-in study instead of a file")
        command.add_argument(
            "--output", type=Path, default=Path("study"), metavar="DIR", help="the study's folder (default: study)"
        )
        command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps or auto (default: cpu)")
        add_overwrite(command)
        command.add_argument("--quiet", action="store_true", help="print no line per unit of work")


def config(_options: argparse.Namespace) -> int:
    """Print the built-in study's file."""
    print(_library().builtin_text(), end="")
    return OK


def run(options: argparse.Namespace) -> int:
    """Run the step, or all."""
    library, processes = _library(), Processes()

    def tell(line: str) -> None:
        if not options.quiet:
            print(printable(line), flush=True)

    try:
        steps = library.STEPS if options.step == "run" else (options.step,)
        settings, device = processes.agree("config", lambda: (_config(options), _device(options, processes)), *_mistakes())
        processes.agree("writable", lambda: _check_writable(settings, options, processes), *_mistakes())
        library.run_study(settings, options.output, steps=steps, device=device, processes=processes, tell=tell)
    except AgreedError as error:
        if processes.is_first:
            say(error)
        processes.leave()
        return BAD_USAGE
    except KeyboardInterrupt:
        message = "interrupted; what is done is kept. The same command continues." if processes.is_first else ""
        raise Interrupted(message, INTERRUPTED) from None
    processes.leave()
    if processes.is_first and "report" in steps:
        print(f"report: {printable(options.output / 'report.html')}")
    return OK


def _config(options: argparse.Namespace) -> Config:
    if options.builtin == (options.config is not None):
        raise UsageError("pass a study's file, or --builtin for the one that 'attacker-metrics study config' prints.")
    from attacker_metrics.study import builtin_text, parse_config, read_config

    return parse_config(builtin_text(), Path("builtin.yaml")) if options.builtin else read_config(options.config)


def _check_writable(settings: Config, options: argparse.Namespace, processes: Processes) -> None:
    """Refuse a folder in which a study would write over what it reads, or over files of somebody else.

    Raises:
        OutputError: naming the file.
    """
    from attacker_metrics.study import files, units

    if not processes.is_first:
        return
    output, read = options.output, [*_paths(settings.model_dump()), *([options.config] if options.config else [])]
    written: tuple[str, ...] = (files.SCORES, files.ANNOTATIONS, files.PICKS, files.TASKS)
    written += (files.REPORT, files.SUMMARY, files.LEAKAGE, files.CORRELATIONS)
    folders = ("originals", "classifiers", "views", "reconstructions", units.MANIFESTS)
    for path in read:
        for folder in (output / name for name in folders):
            if path.resolve().is_relative_to(folder.resolve()):
                raise OutputError(f"{path} is an input, and {folder} is written to; pass another --output.")
    records = output / units.MANIFESTS
    is_study = (records / ".lock").exists() or any(records.glob("*/**/*.json"))
    taken = [name for name in folders if (output / name).exists() and not (output / name).is_dir()]
    taken += (
        []
        if is_study or options.overwrite
        else [f for f in folders if (output / f).is_dir() and any((output / f).iterdir())]
    )
    if taken:
        raise OutputError(f"{output / taken[0]} exists, and no study made it; pass another --output.")
    check_outputs([output / name for name in written], inputs=read, overwrite=options.overwrite, ours=lambda _: is_study)


def _paths(settings: Any) -> Iterator[Path]:
    """The files and folders that a study's settings name."""
    if isinstance(settings, Path):
        yield settings
    elif isinstance(settings, (dict, list, tuple)):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from _paths(value)


def _device(options: argparse.Namespace, processes: Processes) -> Any:
    return device_of(options.device, processes.local_rank)


def _mistakes() -> tuple[type[Exception], ...]:
    from attacker_metrics.study.runner import MISTAKES

    return MISTAKES


def _library() -> Any:
    """The sub-package; an error says what to install."""
    from attacker_metrics import study

    return study
