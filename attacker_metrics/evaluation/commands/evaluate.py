"""``attacker-metrics evaluate``: score pairs, alone or together with other processes, and report."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import attacker_metrics
from attacker_metrics.collection import MultiAttackerPrivacy
from attacker_metrics.components import SPEC_VERSION
from attacker_metrics.evaluation import report
from attacker_metrics.evaluation.commands.options import (
    BAD_USAGE,
    GATE_EXCEEDED,
    INTERRUPTED,
    OK,
    SOME_FAILED,
    TERMINATED,
    Interrupted,
    UsageError,
    add_settings,
    bad_usage,
    count,
    device_of,
    positive,
    privacy_of,
    say,
)
from attacker_metrics.evaluation.commands.terminal import progress, show
from attacker_metrics.evaluation.images import is_url
from attacker_metrics.evaluation.loading import share_cores
from attacker_metrics.evaluation.manifest import ManifestError, ManifestPairs
from attacker_metrics.evaluation.pairs import BuiltInPairs, FolderPairs, LoadedPair, PairSource
from attacker_metrics.evaluation.parts import Plan, ResumeError, UnfinishedRun
from attacker_metrics.evaluation.processes import AgreedError, Processes
from attacker_metrics.evaluation.run import default_part_size, evaluate_remaining, throughput
from attacker_metrics.evaluation.scoring import RESERVED, Scores
from attacker_metrics.evaluation.summary import STATISTICS, Gate, summarize
from attacker_metrics.evaluation.views import views_png

_DEFAULT_OUTPUT = Path("attacker-metrics-report")
_HOW_NOT_WHAT = ("command", "json", "resume", "fail_above")
"""Options that are no settings of the summary, or are written there in another form."""

_MISTAKES = (UsageError, ManifestError, OSError)


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def add(commands: Any) -> None:
    """Add the command's parser."""
    command = commands.add_parser(
        "evaluate",
        help="score pairs of images and write a report",
        description="Score pairs of noisy and clean images after every attacker's post-processing. Without images it"
        " evaluates four built-in photographs under six built-in obfuscations. Processes of torchrun share the work.",
        epilog="Exit status: 0 all fine, 1 some pairs failed, 2 bad usage or nothing could be written, 3 a --fail-above"
        " limit was exceeded, 130 or 143 interrupted (--resume continues).",
    )
    command.set_defaults(command=evaluate)
    files = command.add_argument_group("images")
    files.add_argument("--clean", type=Path, metavar="DIR", help="folder of the originals")
    files.add_argument(
        "--noisy",
        type=Path,
        metavar="DIR",
        help="folder of the noisy images, paired with the originals by relative path without suffix: PNG, JPEG, WebP, BMP,"
        " TIFF, or .npy and .pt tensors (3, H, W) in the scale of the originals that may leave [0, 1]",
    )
    files.add_argument("--allow-unmatched", action="store_true", help="leave files without a partner out")
    files.add_argument(
        "--manifest",
        metavar="FILE",
        help="instead of folders, a CSV or Parquet file with the columns id, clean and noisy: paths relative to it, or URLs"
        " (s3://, gs://, http://); further columns go into scores.parquet",
    )
    command.add_argument(
        "--output",
        type=Path,
        default=_DEFAULT_OUTPUT,
        metavar="DIR",
        help="where, on storage that all processes share (default: %(default)s)",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="continue an unfinished run in --output, if there is one, with the same settings",
    )
    command.add_argument(
        "--part-size",
        type=positive,
        metavar="N",
        help="pairs that are stored at once, so that each process loses at most so many to a crash (default: at most 256)",
    )
    command.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="where to compute (default: auto)")
    command.add_argument("--batch-size", type=positive, default=16, metavar="N", help="pairs at once (default: 16)")
    command.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="threads of each process that read and decode files; 0 takes turns with computing (default: by its cores)",
    )
    command.add_argument(
        "--gallery",
        type=count,
        default=0,
        metavar="N",
        help="add what each attacker sees of the N most leaking pairs to the report: this stores image data in it",
    )
    command.add_argument(
        "--fail-above",
        type=_gate,
        action="append",
        default=[],
        metavar="COMPONENT=VALUE[@mean|p95|max]",
        help="exit with status 3 if that statistic (default: mean) of a component is above the value; repeatable",
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON instead of the table")
    add_settings(command)


def evaluate(options: argparse.Namespace) -> int:
    """Score pairs, print the table, write the report."""
    processes = Processes()
    run = UnfinishedRun(options.output)
    try:
        with _signals_raise():
            status = _evaluate_together(options, processes, run)
    except AgreedError as error:
        if processes.is_first:
            say(f"{error} {_kept(run, processes)}" if run.joined else error)
        status = BAD_USAGE
    except _MISTAKES as error:  # of this process alone: its end lets the launcher end the others
        raise UsageError(f"{error} {_kept(run, processes)}") from error
    except KeyboardInterrupt as interrupt:
        raise _interrupted(interrupt, run, processes) from None
    processes.leave()
    return status


def _evaluate_together(options: argparse.Namespace, processes: Processes, run: UnfinishedRun) -> int:
    """What every process does; where one of them decides, it is the first."""
    privacy, device, gates, source = processes.agree("prepare", lambda: _prepared(options, processes), *_MISTAKES)
    workers = _use_cores(options, processes, device)
    begun = processes.agree("begin", lambda: _begin(options, processes, source, run), *_MISTAKES)
    begun = processes.tell("plan", begun)
    if "finished" in begun:
        finished: int = begun["finished"]
        return finished
    plan, settings = Plan(begun["total"], begun["part_size"], begun["remaining"]), begun["settings"]
    processes.agree("join", run.join, OSError)
    with progress(plan, processes) as (on_done, tell):
        seconds = evaluate_remaining(
            source,
            privacy,
            run,
            plan,
            processes,
            device=device,
            batch_size=options.batch_size,
            workers=workers,
            on_done=on_done,
        )
        tell()
        everyone = processes.gather("seconds", asdict(seconds), tell)

    def finish() -> int:
        if not processes.is_first:
            return OK
        speed = throughput(everyone, workers, torch.get_num_threads())
        return _finish(options, source, privacy, run, plan, settings, gates, speed)

    status: int = processes.tell("status", processes.agree("finish", finish, *_MISTAKES))
    if processes.is_first:
        run.remove()
    return status


def _prepared(
    options: argparse.Namespace, processes: Processes
) -> tuple[MultiAttackerPrivacy, torch.device, list[Gate], PairSource]:
    if (options.clean is None) != (options.noisy is None):
        raise UsageError("--clean and --noisy belong together; without both, the built-in photographs are evaluated.")
    privacy, device = privacy_of(options), device_of(options.device, processes.local_rank)
    return privacy, device, [_known(gate, privacy) for gate in options.fail_above], _source(options, privacy)


def _source(options: argparse.Namespace, privacy: MultiAttackerPrivacy) -> PairSource:
    if options.manifest is not None:
        if options.clean is not None or options.allow_unmatched:
            raise UsageError("--manifest lists the pairs: leave --clean, --noisy and --allow-unmatched out.")
        reserved = (*RESERVED, *map(str, privacy.keys(keep_base=True)))
        try:
            return ManifestPairs(options.manifest, side=options.resize, reserved=reserved)
        except ImportError as error:
            raise UsageError(f"{options.manifest}: {error}; pip install 'attacker-metrics[remote]'.") from error
        except ValueError as error:
            raise UsageError(str(error)) from error
    if options.clean is None:
        if options.resize is not None or options.allow_unmatched:
            raise UsageError("--resize and --allow-unmatched need --clean and --noisy.")
        return BuiltInPairs()
    with bad_usage(ValueError):
        return FolderPairs(options.clean, options.noisy, side=options.resize, allow_unmatched=options.allow_unmatched)


def _use_cores(options: argparse.Namespace, processes: Processes, device: torch.device) -> int:
    """Set torch's threads and return the number of threads that load."""
    threads, workers = share_cores(processes.local_count, on_cpu=device.type == "cpu")
    if options.workers is None:
        torch.set_num_threads(threads)
        return workers
    chosen: int = options.workers
    return chosen


def _begin(
    options: argparse.Namespace, processes: Processes, source: PairSource, run: UnfinishedRun
) -> dict[str, Any] | None:
    """The first process looks at all pairs and at what is already done; the others wait for what it finds."""
    if not processes.is_first:
        return None
    with bad_usage(ValueError):
        total, digest = source.check()
    settings = {**_settings(options), "pairs": total, "pairs_digest": digest, "unmatched": list(source.unmatched)}
    again = processes.restarts > 0
    if again and (status := _status_of_finished(options.output, settings)) is not None and not run.exists:
        return {"finished": status}
    size = default_part_size(total, processes.count, options.batch_size)
    with bad_usage(ResumeError):
        plan = run.begin(_identity(options, settings), total, options.part_size, size, resume=options.resume or again)
    return {**asdict(plan), "settings": {**settings, "part_size": plan.part_size}}


def _finish(
    options: argparse.Namespace,
    source: PairSource,
    privacy: MultiAttackerPrivacy,
    run: UnfinishedRun,
    plan: Plan,
    settings: dict[str, Any],
    gates: list[Gate],
    speed: dict[str, Any],
) -> int:
    """Put the parts together, write the outputs, print what a person wants to know."""
    names = list(map(str, privacy.keys(keep_base=True)))
    with bad_usage(ResumeError):
        scores = Scores.of_tables(run.tables(plan), names, plan.total, source.groups)
    speed = {**speed, "pairs_resumed": plan.total - plan.remaining_pairs}
    summary = {**summarize(scores, settings, gates), "throughput": speed}
    with run.publish() as stage:
        report.write_outputs(stage, scores, summary, _gallery(options.gallery, source, scores, privacy))
    show(summary, options.output, as_json=options.json)
    return _status(summary)


def _status(summary: dict[str, Any]) -> int:
    if any(gate["exceeded"] for gate in summary["gates"]):
        return GATE_EXCEEDED
    return SOME_FAILED if summary["failed"] else OK


def _status_of_finished(output: Path, settings: dict[str, Any]) -> int | None:
    """The exit status of this very run if its outputs are there: a launcher starts anew after a status that is not 0."""
    try:
        summary = json.loads((output / report.SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    then = summary["settings"]
    return _status(summary) if {name: then.get(name) for name in settings} == json.loads(json.dumps(settings)) else None


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings = {name: value for name, value in vars(options).items() if name not in _HOW_NOT_WHAT}
    for name, value in settings.items():
        settings[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    del settings["part_size"]
    return {**settings, "fail_above": [str(gate) for gate in options.fail_above]}


def _identity(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What the scores depend on: an unfinished run is continued only with the same."""
    places = {
        name: value if value is None or is_url(value) else str(Path(value).resolve())
        for name, value in ((name, getattr(options, name)) for name in ("clean", "noisy", "manifest"))
    }
    names = ("resize", "gamma", "blur_sigma", "wavelet_threshold", "betas", "extra", "pairs", "pairs_digest")
    versions = {"attacker_metrics_version": attacker_metrics.__version__, "spec_version": SPEC_VERSION}
    return {**versions, **places, **{name: settings[name] for name in names}}


def _gallery(count: int, source: PairSource, scores: Scores, privacy: MultiAttackerPrivacy) -> list[tuple[str, bytes]]:
    shown, privacy = [], privacy.cpu()
    for index in report.most_leaking_pairs(scores, count):
        (row,) = source.rows(index, index + 1).to_pylist()
        pair = source.load(index, row)
        if isinstance(pair, LoadedPair):  # the file could have changed since it was scored
            shown.append((scores.id(index), views_png(pair, privacy, title=scores.id(index), dots_per_inch=80)))
    return shown


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM raise as Ctrl-C does, so that both are answered in one place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(interrupt: KeyboardInterrupt, run: UnfinishedRun, processes: Processes) -> Interrupted:
    status = TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
    if not processes.is_first:
        return Interrupted("", status)
    return Interrupted(f"interrupted; {_kept(run, processes)}", status)


def _kept(run: UnfinishedRun, processes: Processes) -> str:
    # Another process may be about to store a part.
    if processes.count == 1 and run.remove_if_empty():
        return "nothing was written."
    return f"{run.done} finished parts are kept in {run.folder}. The same command with --resume continues."


def _known(gate: Gate, privacy: MultiAttackerPrivacy) -> Gate:
    names = list(privacy.keys(keep_base=True))
    if gate.component not in names:
        raise UsageError(
            f"--fail-above {gate}: there is no component {gate.component!r}; there are {', '.join(map(str, names))}."
        )
    return gate


def _gate(text: str) -> Gate:
    name, equals, rest = text.partition("=")
    value, at, statistic = rest.partition("@")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not (name and equals) or not math.isfinite(limit) or (at and statistic not in STATISTICS):
        raise argparse.ArgumentTypeError(f"{text!r} is not COMPONENT=VALUE[@{'|'.join(STATISTICS)}], e.g. ms_ssim=0.3@p95")
    return Gate(name, limit, statistic or STATISTICS[0])
