"""Options -> a report and an exit status: a whole run, its mistakes and interruptions answered."""

from __future__ import annotations

from contextlib import ExitStack

from attacker_metrics.evaluation.options import EvaluateOptions
from attacker_metrics.evaluation.pipeline import MISTAKES, Evaluated, check_outputs_of, evaluate_together, status_of
from attacker_metrics.jobs.ending import BAD_USAGE, OK, Unexpected, UsageError, say
from attacker_metrics.jobs.interruption import interrupted, kept, signals_raise
from attacker_metrics.jobs.parts import UnfinishedRun
from attacker_metrics.jobs.processes import AgreedError, Processes
from attacker_metrics.pairs.sources import LoadedPair
from attacker_metrics.report.null_picture import null_svg
from attacker_metrics.report.outputs import most_leaking_pairs, write_outputs
from attacker_metrics.report.terminal import show


def evaluate(options: EvaluateOptions) -> int:
    """Score pairs, print the table, write the report; what remains of a run that ends early is said.

    Raises:
        UsageError: for a mistake that this process alone has made.
        Interrupted: by Ctrl-C or SIGTERM.
        Unexpected: for a bug of ours, its cause.
    """
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
        except MISTAKES as error:  # of this process alone: its end lets the launcher end the others
            raise UsageError(f"{error} {kept(run, processes)}") from error
        except KeyboardInterrupt as interrupt:
            raise interrupted(interrupt, run, processes) from None
        except Exception as error:
            raise Unexpected(kept(run, processes)) from error
    processes.leave()
    return status


def _evaluate_together(options: EvaluateOptions, processes: Processes, run: UnfinishedRun, stack: ExitStack) -> int:
    outcome = evaluate_together(options, processes, run, stack)
    if isinstance(outcome, int):
        return outcome
    written = processes.agree("finish", lambda: OK if outcome is None else _published(outcome, run), *MISTAKES)
    status: int = processes.tell("status", written)
    if processes.is_first:
        run.remove()
    return status


def _published(outcome: Evaluated, run: UnfinishedRun) -> int:
    """Write the outputs, print what a person wants to know."""
    options, calibrated = outcome.work.options, outcome.calibrated
    check_outputs_of(outcome.work)
    with run.publish() as stage:
        write_outputs(
            stage,
            outcome.scores,
            outcome.summary,
            _gallery(outcome),
            {} if calibrated is None else calibrated.columns(),
            None if calibrated is None else null_svg(calibrated),
        )
        if outcome.learned is not None:
            outcome.learned.write(stage)
    show(outcome.summary, options.output, as_json=options.json)
    return status_of(outcome.summary)


def _gallery(outcome: Evaluated) -> list[tuple[str, bytes]]:
    """Caption and picture of the most leaking pairs."""
    if not outcome.work.options.gallery:
        return []
    from attacker_metrics.report.views import views_png

    shown, scores, source, privacy = [], outcome.scores, outcome.work.source, outcome.work.privacy.cpu()
    for index in most_leaking_pairs(scores, outcome.work.options.gallery):
        (row,) = source.rows(index, index + 1).to_pylist()
        pair = source.load(index, row)
        if isinstance(pair, LoadedPair):  # the file could have changed since it was scored
            shown.append((scores.id(index), views_png(pair, privacy, title=scores.id(index), dots_per_inch=80)))
    return shown
