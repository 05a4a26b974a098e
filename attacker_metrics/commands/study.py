"""``attacker-metrics study``: train, attack, score, annotate and report, from one file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from attacker_metrics._options import OVERWRITE, flag, option
from attacker_metrics.commands.parsing import add_command, application
from attacker_metrics.files.terminal import printable
from attacker_metrics.jobs.ending import BAD_USAGE, INTERRUPTED, OK, Interrupted, UsageError, say
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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What every step of ``study`` is asked for."""

    config: Annotated[Path | None, option("the study's YAML file")] = field(default=None, kw_only=False)
    builtin: Annotated[bool, flag("the built-in study instead of a file")] = False
    output: Annotated[Path, option("the study's folder")] = Path("study")
    device: Annotated[str, option("cpu, cuda, mps or auto")] = "cpu"
    overwrite: Annotated[bool, flag(OVERWRITE)] = False
    quiet: Annotated[bool, flag("print no line per unit of work")] = False


_DEFAULTS = StudyOptions()


def add(app: App) -> None:
    """Add the commands."""
    study = application(
        "study",
        "Run a whole study: classifiers, defences, attacks, metrics, who recognises what.\n\nA study from one YAML file."
        " Steps that are done are skipped; changed settings redo a step and those after it. The folder holds image data."
        " Needs the extra 'study'.",
    )
    add_command(study, config)
    for step in _HELP:
        add_command(study, _step(step), name=step)
    add_command(app, study)


def _step(name: str) -> Callable[[StudyOptions], int]:
    """The command of a step."""

    def command(options: StudyOptions = _DEFAULTS) -> int:
        return run(name, options)

    command.__doc__ = f"{_HELP[name][0].upper()}{_HELP[name][1:]}."
    return command


def config() -> int:
    """Print the built-in study's file, to start from."""
    print(_library().builtin_text(), end="")
    return OK


def run(step: str, options: StudyOptions) -> int:
    """Run the step, or all."""
    from attacker_metrics.jobs.devices import device_of

    library, processes = _library(), Processes()

    def tell(line: str) -> None:
        if not options.quiet:
            print(printable(line), flush=True)

    try:
        steps = library.STEPS if step == "run" else (step,)
        settings, device = processes.agree(
            "config", lambda: (_config(options), device_of(options.device, processes.local_rank)), *_mistakes()
        )
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


def _config(options: StudyOptions) -> "Config":
    if options.builtin == (options.config is not None):
        raise UsageError("pass a study's file, or --builtin for the one that 'attacker-metrics study config' prints.")
    from attacker_metrics.study import builtin_text, parse_config, read_config

    return parse_config(builtin_text(), Path("builtin.yaml")) if options.config is None else read_config(options.config)


def _check_writable(settings: "Config", options: StudyOptions, processes: Processes) -> None:
    """Refuse a folder in which a study would write over what it reads, or over files of somebody else.

    Raises:
        OutputError: naming the file.
    """
    from attacker_metrics.files.writing import OutputError, check_outputs
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


def _mistakes() -> tuple[type[Exception], ...]:
    from attacker_metrics.study.runner import MISTAKES

    return MISTAKES


def _library() -> Any:
    """The sub-package; an error says what to install."""
    from attacker_metrics import study

    return study
