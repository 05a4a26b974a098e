"""``attacker-metrics evaluate``: score pairs, alone or together with other processes, and report."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacker_metrics._extras import how_to_install
from attacker_metrics._version import __version__
from attacker_metrics.commands.evaluate_options import MOST_PAIRS, NULL_OF_SUITE, add_parser
from attacker_metrics.commands.interruption import interrupted, kept, signals_raise
from attacker_metrics.commands.options import (
    BAD_USAGE,
    GATE_EXCEEDED,
    OK,
    SOME_FAILED,
    Unexpected,
    UsageError,
    bad_usage,
    device_of,
    privacy_of,
    say,
)
from attacker_metrics.commands.reading_options import reading_of
from attacker_metrics.commands.terminal import progress, show
from attacker_metrics.engine.backends import backend
from attacker_metrics.evaluation import calibration, fitting
from attacker_metrics.evaluation.calibration import Calibration
from attacker_metrics.evaluation.fitting import Fit, fit_together, fittable
from attacker_metrics.evaluation.learned_summary import FIT_PAIRS, Learned
from attacker_metrics.evaluation.run import default_part_size, evaluate_remaining, evaluate_unrelated, throughput
from attacker_metrics.evaluation.scoring import RESERVED, Scores, columns_of, competing
from attacker_metrics.evaluation.summary import BOUNDED, READ, STATISTICS, STRONGEST, Gate, summarize
from attacker_metrics.evaluation.unrelated import Selection, choose
from attacker_metrics.files.digest import package_digest
from attacker_metrics.files.images import is_url
from attacker_metrics.files.writing import CODE, check_apart
from attacker_metrics.jobs.parts import SPLIT, Plan, ResumeError, UnfinishedRun
from attacker_metrics.jobs.processes import AgreedError, Processes
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.pairs.folders import FolderPairs
from attacker_metrics.pairs.loading import share_cores
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs
from attacker_metrics.pairs.sources import BuiltInPairs, LoadedPair, PairSource
from attacker_metrics.pairs.split import fit_rows, sides
from attacker_metrics.reading.learned import STANDARD_LEARNED
from attacker_metrics.reading.strongest.originals import PER_PICTURE
from attacker_metrics.report import outputs as report
from attacker_metrics.report.null_picture import null_svg
from attacker_metrics.report.views import views_png
from attacker_metrics.scoring.components import SPEC_VERSION

_HOW_NOT_WHAT = ("command", "json", "resume", "fail_above", "overwrite")
"""Options that are no settings of the summary, or are written there in another form."""

_MISTAKES = (UsageError, ManifestError, ResumeError, OSError)


def add(commands: Any) -> None:
    """Add the command's parser."""
    command = add_parser(commands)
    command.set_defaults(command=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Score pairs, print the table, write the report."""
    processes = Processes()
    run = UnfinishedRun(options.output)
    with ExitStack() as stack:  # holds the lock until it is said what is kept
        try:
            with signals_raise():
                status = _evaluate_together(options, processes, run, stack)
        except AgreedError as error:
            if processes.is_first:
                say(f"{error} {kept(run, processes)}" if run.joined else error)
            status = BAD_USAGE
        except _MISTAKES as error:  # of this process alone: its end lets the launcher end the others
            raise UsageError(f"{error} {kept(run, processes)}") from error
        except KeyboardInterrupt as interrupt:
            raise interrupted(interrupt, run, processes) from None
        except Exception as error:
            raise Unexpected(kept(run, processes)) from error
    processes.leave()
    return status


def _evaluate_together(options: argparse.Namespace, processes: Processes, run: UnfinishedRun, stack: ExitStack) -> int:
    """What every process does; where one of them decides, it is the first."""
    privacy, device, gates, source = processes.agree("prepare", lambda: _prepared(options, processes), *_MISTAKES)
    workers = _use_cores(options, processes, device)
    attackers = fittable(privacy)
    lock = run.held() if processes.is_first else nullcontext()
    processes.agree("lock", lambda: stack.enter_context(lock), OSError)
    begun = processes.agree("begin", lambda: _begin(options, processes, source, run, fits=bool(attackers)), *_MISTAKES)
    begun = processes.tell("plan", begun)
    if "finished" in begun:
        finished: int = begun["finished"]
        return finished
    plan, settings = Plan(begun["total"], begun["part_size"], begun["remaining"]), begun["settings"]
    processes.agree("join", run.join, OSError)
    fit: Fit | None = None
    if attackers:
        split = processes.agree("split", lambda: run.kept(SPLIT), OSError)
        to_fit, source = sides(source, np.frombuffer(split, bool))
        bar = partial(progress, processes=processes, what="fitting on")
        fit = fit_together(to_fit, attackers, run, processes, bar, device=device, workers=workers)
    columns = columns_of(privacy, draws=options.draws is not None)
    with progress(plan, processes) as (on_done, tell):
        seconds = evaluate_remaining(
            source,
            privacy,
            run,
            plan,
            processes,
            columns=columns,
            device=device,
            batch_size=options.batch_size,
            workers=workers,
            on_done=on_done,
        )
        tell()
        everyone = processes.gather("seconds", {**asdict(seconds), "backend": str(backend(device))}, tell)

    def collect() -> Scores | None:
        return Scores.of_tables(run.tables(plan), columns, plan.total, source.groups) if processes.is_first else None

    scores = processes.agree("collect", collect, *_MISTAKES)
    calibrated: Calibration | str | None = None
    if settings["null"]:
        calibrated = _calibrated(
            options, processes, source, privacy, run, scores, settings["null"], columns, fit, device, workers
        )

    def finish() -> int:
        if scores is None:
            return OK
        ran = {
            "backend": ", ".join(sorted({part["backend"] for part in everyone})),
            "throughput": throughput(everyone, workers, torch.get_num_threads()),
        }
        learned = None if fit is None else Learned(fit, attackers, settings["split_by"])
        return _finish(options, source, privacy, run, plan, scores, calibrated, learned, settings, gates, ran)

    status: int = processes.tell("status", processes.agree("finish", finish, *_MISTAKES))
    if processes.is_first:
        run.remove()
    return status


def _prepared(
    options: argparse.Namespace, processes: Processes
) -> tuple[MultiAttackerPrivacy, torch.device, list[Gate], PairSource]:
    if options.null is not None and options.null > MOST_PAIRS:
        raise UsageError(f"--null {options.null}: at most {MOST_PAIRS} comparisons are made; pass fewer.")
    if options.draws == 1:
        raise UsageError("--draws 1: a mean takes two draws or more; leave the option out.")
    if (options.clean is None) != (options.noisy is None):
        raise UsageError("--clean and --noisy belong together; without both, the built-in photographs are evaluated.")
    options.learned = [kind for kind in STANDARD_LEARNED if {kind, "all"} & {*options.learned}]
    privacy, device = privacy_of(options, options.learned), device_of(options.device, processes.local_rank)
    if options.fit_split is not None and not fittable(privacy):
        raise UsageError("--fit-split says how many pairs the --learned attackers are fitted on: name one, or leave it out.")
    columns = columns_of(privacy, draws=options.draws is not None)
    unrelated = options.null if options.null is not None else bool(options.suite or fittable(privacy))
    gates = [_known(gate, columns, unrelated=bool(unrelated)) for gate in options.fail_above]
    twice = [gate for gate, other in itertools.combinations(gates, 2) if _same_place(gate, other)]
    if twice:
        raise UsageError(f"--fail-above {twice[0]}: there are two limits on one statistic; keep the one that is meant.")
    return privacy, device, gates, _source(options, columns)


def _source(options: argparse.Namespace, columns: list[str]) -> PairSource:
    if options.manifest is not None:
        if options.clean is not None or options.allow_unmatched:
            raise UsageError("--manifest lists the pairs: leave --clean, --noisy and --allow-unmatched out.")
        reserved = (*RESERVED, *fitting.RESERVED, *calibration.STRONGEST, *columns)
        try:
            return ManifestPairs(
                options.manifest,
                side=options.resize,
                reserved=reserved,
                draws=options.draws or 1,
                reading=reading_of(options),
            )
        except ImportError as error:
            raise UsageError(f"{options.manifest}: {error}; {how_to_install('remote')}.") from error
        except ValueError as error:
            raise UsageError(str(error)) from error
    if options.clean is None:
        if options.resize is not None or options.allow_unmatched:
            raise UsageError("--resize and --allow-unmatched need --clean and --noisy.")
        if options.learned:
            raise UsageError(
                "--learned needs pairs of one obfuscation, by --manifest or --clean and --noisy: the built-in photographs"
                " are hidden in six ways, and attacker-metrics selftest fits on each."
            )
        return BuiltInPairs(options.draws or 1)
    if options.draws is not None:
        raise UsageError("--draws needs --manifest: folders hold one noisy image of each picture.")
    with bad_usage(ValueError):
        return FolderPairs(
            options.clean,
            options.noisy,
            side=options.resize,
            allow_unmatched=options.allow_unmatched,
            reading=reading_of(options),
        )


def _use_cores(options: argparse.Namespace, processes: Processes, device: torch.device) -> int:
    """Set torch's threads and return the number of threads that load."""
    threads, workers = share_cores(processes.local_count, on_cpu=device.type == "cpu")
    if options.workers is None:
        torch.set_num_threads(threads)
        return workers
    chosen: int = options.workers
    return chosen


def _begin(
    options: argparse.Namespace, processes: Processes, source: PairSource, run: UnfinishedRun, *, fits: bool
) -> dict[str, Any] | None:
    """The first process looks at all pairs and at what is already done; the others wait for what it finds."""
    if not processes.is_first:
        return None
    check_apart(options.output, (options.clean, options.noisy))
    _check_writable(options, source, fits=fits)
    with bad_usage(ValueError):
        total, digest = source.check()
        in_fit, rule = fit_rows(source, total, options.fit_split) if fits else (np.zeros(total, bool), None)
    pairs = total - int(in_fit.sum())
    null = (
        options.null if options.null is not None else min(NULL_OF_SUITE, PER_PICTURE * pairs) if options.suite or fits else 0
    )
    settings = {
        **_settings(options),
        "null": null,
        "fit_pairs": total - pairs,
        "split_by": rule,
        "pairs": pairs,
        "pairs_digest": digest,
        "unmatched": list(source.unmatched),
        "unused": dict(source.unused),
    }
    again = processes.restarts > 0
    if again and (status := _status_of_finished(options.output, settings)) is not None and not run.exists:
        return {"finished": status}
    size = default_part_size(pairs, processes.count, options.batch_size)
    with bad_usage(ResumeError):
        plan = run.begin(_identity(options, settings), pairs, options.part_size, size, resume=options.resume or again)
    if fits:
        run.keep(SPLIT, in_fit.tobytes())
    return {**asdict(plan), "settings": {**settings, "part_size": plan.part_size}}


def _check_writable(options: argparse.Namespace, source: PairSource, *, fits: bool) -> None:
    names = [report.SUMMARY, report.SCORES, report.REPORT, *([FIT_PAIRS] if fits else [])]
    many = source.files if isinstance(source, (FolderPairs, ManifestPairs)) else tuple
    report.check_writable(options.output, names, [options.manifest], overwrite=options.overwrite, many=many)


def _calibrated(
    options: argparse.Namespace,
    processes: Processes,
    source: PairSource,
    privacy: MultiAttackerPrivacy,
    run: UnfinishedRun,
    scores: Scores | None,
    limit: int,
    columns: list[str],
    fit: Fit | None,
    device: torch.device,
    workers: int,
) -> Calibration | str | None:
    """Score the run's images matched anew, all processes together; on the first what follows, or why nothing does."""
    names = competing(privacy, draws=options.draws is not None)

    def select() -> dict[str, Any] | None:
        if scores is None:
            return None
        try:
            return asdict(choose(source, scores, names, limit))
        except ValueError as error:
            return {"refused": str(error)}

    told = processes.tell("selection", processes.agree("select", select, *_MISTAKES))
    if "refused" in told:
        return str(told["refused"])
    selection, begin = Selection(**told), time.perf_counter()
    matched = evaluate_unrelated(
        source,
        selection,
        privacy,
        run,
        processes,
        lambda plan: progress(plan, processes, "unrelated originals"),
        columns=columns,
        device=device,
        batch_size=options.batch_size,
        workers=workers,
    )
    if scores is None or matched is None:
        return None
    took = round(time.perf_counter() - begin, 3)
    try:
        return Calibration.of(scores, matched, selection, names, None if fit is None else fit.digest, took)
    except ValueError as error:
        return str(error)


def _finish(
    options: argparse.Namespace,
    source: PairSource,
    privacy: MultiAttackerPrivacy,
    run: UnfinishedRun,
    plan: Plan,
    scores: Scores,
    calibrated: Calibration | str | None,
    learned: Learned | None,
    settings: dict[str, Any],
    gates: list[Gate],
    ran: dict[str, Any],
) -> int:
    """Write the outputs, print what a person wants to know."""
    ran["throughput"]["pairs_resumed"] = plan.total - plan.remaining_pairs
    null = calibration.refused(calibrated) if isinstance(calibrated, str) else None
    more, drawing = {}, None
    measured = calibrated if isinstance(calibrated, Calibration) else None
    if isinstance(calibrated, Calibration):
        null, more = calibration.as_json(calibrated, scores.clusters), calibrated.columns()
        drawing = null_svg(calibrated)
    ran["throughput"]["null_seconds"] = None if measured is None else measured.seconds
    settings = {
        **settings,
        "null_digest": None if null is None else null.get("digest"),
        "fit_digest": None if learned is None else learned.fit.digest,
    }
    summary = {**summarize(scores, settings, gates, null, learned, measured), **ran}
    _check_writable(options, source, fits=learned is not None)  # hours may have passed
    with run.publish() as stage:
        report.write_outputs(stage, scores, summary, _gallery(options.gallery, source, scores, privacy), more, drawing)
        if learned is not None:
            learned.write(stage)
    show(summary, options.output, as_json=options.json)
    return _status(summary)


def _status(summary: dict[str, Any]) -> int:
    if any(gate["exceeded"] for gate in summary["gates"]):
        return GATE_EXCEEDED
    learned = summary.get("learned")
    return SOME_FAILED if summary["failed"] or (learned and learned["failed"]) else OK


def _status_of_finished(output: Path, settings: dict[str, Any]) -> int | None:
    """The exit status of this very run if its outputs are there: a launcher starts anew after a status that is not 0."""
    try:
        summary = json.loads((output / report.SUMMARY).read_text(encoding="utf-8"))
        same = {name: summary["settings"].get(name) for name in settings} == json.loads(json.dumps(settings))
        return _status(summary) if same else None
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError):  # no summary of ours
        return None


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
    names = (
        "draws",
        "resize",
        "orientation",
        "gamma",
        "blur_sigma",
        "wavelet_threshold",
        "betas",
        "suite",
        "extra",
        "learned",
        "fit_split",
        "fit_pairs",
        "split_by",
        "pairs",
        "pairs_digest",
    )
    versions = {
        "attacker_metrics_version": __version__,
        "spec_version": SPEC_VERSION,
        CODE: package_digest(),
    }
    return {**versions, **places, **{name: settings[name] for name in names}}


def _gallery(count: int, source: PairSource, scores: Scores, privacy: MultiAttackerPrivacy) -> list[tuple[str, bytes]]:
    shown, privacy = [], privacy.cpu()
    for index in report.most_leaking_pairs(scores, count):
        (row,) = source.rows(index, index + 1).to_pylist()
        pair = source.load(index, row)
        if isinstance(pair, LoadedPair):  # the file could have changed since it was scored
            shown.append((scores.id(index), views_png(pair, privacy, title=scores.id(index), dots_per_inch=80)))
    return shown


def _known(gate: Gate, columns: list[str], *, unrelated: bool) -> Gate:
    """The limit, if it can be exceeded and judged.

    Raises:
        UsageError: if not: a gate that cannot close is worse than none.
    """
    own = gate.component not in columns and gate.component in (STRONGEST, READ)
    if not own and gate.component not in columns:
        hint = ""
        if gate.component.endswith("_gray") and gate.component.split("_")[0] in STANDARD_LEARNED:
            hint = f" Pass --learned {gate.component.split('_')[0]}."
        raise UsageError(
            f"--fail-above {gate}: there is no component {gate.component!r}; there are"
            f" {', '.join([*columns, STRONGEST, READ])}.{hint}"
        )
    if own and not unrelated:
        raise UsageError(
            f"--fail-above {gate}: {gate.component} is measured against unrelated originals; pass --null or --suite."
        )
    if own and gate.component == READ and gate.statistic != STATISTICS[0]:
        raise UsageError(f"--fail-above {gate}: {READ} is one rate and has no {gate.statistic}; pass {READ}={gate.limit:g}.")
    if (own or gate.component in BOUNDED) and not 0 <= gate.limit <= 1:
        raise UsageError(f"--fail-above {gate}: {gate.component} lies in [0, 1], so its limit does too, such as 0.3.")
    return gate


def _same_place(first: Gate, second: Gate) -> bool:
    return (first.component, first.statistic) == (second.component, second.statistic)
