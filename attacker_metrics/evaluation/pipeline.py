"""Pairs -> decoded -> batches -> scores -> parts -> summary: one run, by one process or several."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacker_metrics._names import COMPARISONS_OF_SUITE, ORIGINALS_PER_PICTURE
from attacker_metrics._options import recorded, settings_that_matter
from attacker_metrics._version import __version__
from attacker_metrics.engine.backends import backend
from attacker_metrics.evaluation import calibration
from attacker_metrics.evaluation.calibration import NullCalibration
from attacker_metrics.evaluation.fitting import Fit, fit_together
from attacker_metrics.evaluation.learned_summary import FIT_PAIRS, Learned
from attacker_metrics.evaluation.options import EvaluateOptions, Found
from attacker_metrics.evaluation.preparation import Prepared, prepared, use_cores
from attacker_metrics.evaluation.run import default_part_size, evaluate_remaining, evaluate_unrelated, throughput
from attacker_metrics.evaluation.scoring import RunScores, competing
from attacker_metrics.evaluation.summary import summarize
from attacker_metrics.evaluation.unrelated import choose
from attacker_metrics.files.digest import package_digest
from attacker_metrics.files.run_files import REPORT, SCORES, SUMMARY, check_writable
from attacker_metrics.files.writing import CODE, check_apart
from attacker_metrics.jobs.ending import GATE_EXCEEDED, OK, SOME_FAILED, UsageError, bad_usage
from attacker_metrics.jobs.parts import SPLIT, Plan, ResumeError, UnfinishedRun
from attacker_metrics.jobs.processes import Processes
from attacker_metrics.jobs.progress import progress
from attacker_metrics.pairs.folders import FolderPairs
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs
from attacker_metrics.pairs.split import fit_rows, sides
from attacker_metrics.reading.strongest import Selection
from attacker_metrics.scoring.components import SPEC_VERSION

MISTAKES = (UsageError, ManifestError, ResumeError, OSError)
"""What a user can cause, beside an interruption."""


@dataclass(frozen=True)
class Evaluated:
    """What a run came to, on its first process.

    Args:
        work: what it worked with; its source holds the pairs that were scored.
        scores: of every pair.
        summary: all that ``summary.json`` holds.
        calibrated: the scores among those of unrelated pairs; None where there are none, or they were refused.
        learned: the learned attackers, if there are any.
    """

    work: Prepared
    scores: RunScores
    summary: dict[str, Any]
    calibrated: NullCalibration | None
    learned: Learned | None


def evaluate_together(
    options: EvaluateOptions, processes: Processes, run: UnfinishedRun, stack: ExitStack
) -> Evaluated | int | None:
    """What every process does; where one of them decides, it is the first.

    Args:
        options: what is asked for.
        processes: who shares the work.
        run: where its parts are kept.
        stack: holds the lock of the output folder.

    Returns:
        The outcome on the first process, None on the others; on all the exit status of a run that had been finished before.

    Raises:
        AgreedError: for a mistake that all processes have heard of.
    """
    work = processes.agree("prepare", lambda: prepared(options, processes), *MISTAKES)
    workers = use_cores(work, processes)
    lock = run.held() if processes.is_first else nullcontext()
    processes.agree("lock", lambda: stack.enter_context(lock), OSError)
    begun = processes.tell("plan", processes.agree("begin", lambda: _begun(work, processes, run), *MISTAKES))
    if "finished" in begun:
        finished: int = begun["finished"]
        return finished
    plan, settings = Plan(begun["total"], begun["part_size"], begun["remaining"]), begun["settings"]
    processes.agree("join", run.join, OSError)
    fit: Fit | None = None
    if work.attackers:
        split = processes.agree("split", lambda: run.kept(SPLIT), OSError)
        to_fit, source = sides(work.source, np.frombuffer(split, bool))
        work = replace(work, source=source)
        bar = partial(progress, processes=processes, what="fitting on")
        fit = fit_together(
            to_fit, work.attackers, run, processes, bar, named=work.named, device=work.device, workers=workers
        )
        work = work.without(fit.refused)
    scores, seconds = _scored(work, run, plan, processes, workers)
    calibrated: NullCalibration | str | None = None
    if settings["null"]:
        calibrated = _calibrated(work, processes, run, scores, settings["null"], fit, workers)
    if scores is None:
        return None
    ran = {
        "backend": ", ".join(sorted({part["backend"] for part in seconds})),
        "throughput": {
            **throughput(seconds, workers, torch.get_num_threads()),
            "pairs_resumed": plan.total - plan.remaining_pairs,
            "null_seconds": calibrated.seconds if isinstance(calibrated, NullCalibration) else None,
        },
    }
    learned = None
    if fit is not None:
        attackers = {kind: attacker for kind, attacker in work.attackers.items() if kind not in fit.refused}
        learned = Learned(fit, attackers, settings["split_by"])
    return _summarized(work, scores, calibrated, learned, settings, ran)


def check_outputs_of(work: Prepared) -> None:
    """Refuse to write over what is somebody else's; asked before the work and, as hours may have passed, after it.

    Raises:
        OSError: naming the file.
    """
    names = [SUMMARY, SCORES, REPORT, *([FIT_PAIRS] if work.attackers else [])]
    many = work.source.files if isinstance(work.source, (FolderPairs, ManifestPairs)) else tuple
    check_writable(work.options.output, names, [work.options.manifest], overwrite=work.options.overwrite, many=many)


def status_of(summary: dict[str, Any]) -> int:
    """The exit status of a run with this summary."""
    if any(gate["exceeded"] for gate in summary["gates"]):
        return GATE_EXCEEDED
    learned = summary.get("learned")
    return SOME_FAILED if summary["failed"] or (learned and learned["failed"]) else OK


def _begun(work: Prepared, processes: Processes, run: UnfinishedRun) -> dict[str, Any] | None:
    """The first process looks at all pairs and at what is already done; the others wait for what it finds."""
    if not processes.is_first:
        return None
    options, source, fits = work.options, work.source, bool(work.attackers)
    check_apart(options.output, (options.clean, options.noisy))
    check_outputs_of(work)
    with bad_usage(ValueError):
        total, digest = source.check()
        in_fit, rule = fit_rows(source, total, options.fit_split) if fits else (np.zeros(total, bool), None)
    pairs = total - int(in_fit.sum())
    null = min(COMPARISONS_OF_SUITE, ORIGINALS_PER_PICTURE * pairs) if options.suite or fits else 0
    found = Found(
        null=null if options.null is None else options.null,
        fit_pairs=total - pairs,
        split_by=rule,
        pairs=pairs,
        pairs_digest=digest,
        unmatched=list(source.unmatched),
        unused=dict(source.unused),
    )
    settings = {**recorded(options), **recorded(found)}
    del settings["part_size"]
    again = processes.restarts > 0
    if again and (status := _status_of_finished(options.output, settings)) is not None and not run.exists:
        return {"finished": status}
    size = default_part_size(pairs, processes.count, options.batch_size)
    versions = {"attacker_metrics_version": __version__, "spec_version": SPEC_VERSION, CODE: package_digest()}
    identity = {**versions, **settings_that_matter(options), **settings_that_matter(found)}
    with bad_usage(ResumeError):
        plan = run.begin(identity, pairs, options.part_size, size, resume=options.resume or again)
    if fits:
        run.keep(SPLIT, in_fit.tobytes())
    return {**asdict(plan), "settings": {**settings, "part_size": plan.part_size}}


def _status_of_finished(output: Path, settings: dict[str, Any]) -> int | None:
    """The exit status of this very run if its outputs are there: a launcher starts anew after a status that is not 0."""
    try:
        summary = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
        same = {name: summary["settings"].get(name) for name in settings} == json.loads(json.dumps(settings))
        return status_of(summary) if same else None
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError):  # no summary of ours
        return None


def _scored(
    work: Prepared, run: UnfinishedRun, plan: Plan, processes: Processes, workers: int
) -> tuple[RunScores | None, list[dict[str, Any]]]:
    """Score what is left; on the first process the scores of all pairs, and every process's seconds."""
    with progress(plan, processes) as (on_done, tell):
        seconds = evaluate_remaining(
            work.source,
            work.privacy,
            run,
            plan,
            processes,
            columns=work.columns,
            device=work.device,
            batch_size=work.options.batch_size,
            workers=workers,
            on_done=on_done,
        )
        tell()
        everyone = processes.gather("seconds", {**asdict(seconds), "backend": str(backend(work.device))}, tell)

    def collected() -> RunScores | None:
        if not processes.is_first:
            return None
        return RunScores.of_tables(run.tables(plan), work.columns, plan.total, work.source.groups)

    return processes.agree("collect", collected, *MISTAKES), everyone


def _calibrated(
    work: Prepared,
    processes: Processes,
    run: UnfinishedRun,
    scores: RunScores | None,
    limit: int,
    fit: Fit | None,
    workers: int,
) -> NullCalibration | str | None:
    """Score the run's images matched anew, all processes together; on the first what follows, or why nothing does."""
    names = competing(work.privacy, draws=work.options.draws is not None)

    def select() -> dict[str, Any] | None:
        if scores is None:
            return None
        try:
            return asdict(choose(work.source, scores, names, limit))
        except ValueError as error:
            return {"refused": str(error)}

    told = processes.tell("selection", processes.agree("select", select, *MISTAKES))
    if "refused" in told:
        return str(told["refused"])
    selection, begin = Selection(**told), time.perf_counter()
    matched = evaluate_unrelated(
        work.source,
        selection,
        work.privacy,
        run,
        processes,
        lambda plan: progress(plan, processes, "unrelated originals"),
        columns=work.columns,
        device=work.device,
        batch_size=work.options.batch_size,
        workers=workers,
    )
    if scores is None or matched is None:
        return None
    took = round(time.perf_counter() - begin, 3)
    try:
        return NullCalibration.of(scores, matched, selection, names, None if fit is None else fit.digest, took)
    except ValueError as error:
        return str(error)


def _summarized(
    work: Prepared,
    scores: RunScores,
    calibrated: NullCalibration | str | None,
    learned: Learned | None,
    settings: dict[str, Any],
    ran: dict[str, Any],
) -> Evaluated:
    null = calibration.refused(calibrated) if isinstance(calibrated, str) else None
    measured = calibrated if isinstance(calibrated, NullCalibration) else None
    if measured is not None:
        null = calibration.as_json(measured, scores.clusters)
    settings = {
        **settings,
        "null_digest": None if null is None else null.get("digest"),
        "fit_digest": None if learned is None else learned.fit.digest,
    }
    summary = summarize(scores, settings, list(work.options.fail_above), null, learned, measured)
    return Evaluated(work, scores, {**summary, **ran}, measured, learned)
