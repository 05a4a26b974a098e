"""The fit split -> fitted attackers: all processes take the pairs in, a part at a time; the first merges and solves.

The pairs are cut into parts whatever the number of processes, and the parts are merged in their order: a fit is the same
however many share it. What a part holds is stored as a part's scores are, so that ``--resume`` repeats no finished one; and
so are the fitted attackers, which every process loads.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import torch

from attacker_metrics.files.tensors import load_tensors
from attacker_metrics.jobs.parts import Plan, ResumeError, UnfinishedRun
from attacker_metrics.jobs.processes import Processes
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.pairs.loading import PartRows, load_ahead
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, PairSource
from attacker_metrics.reading.learned import LearnedAttacker, LearnedAttackerMetric
from attacker_metrics.reading.strongest import attackers_of

FAILURE = "fit_failure"
"""Column of the fit split's rows: why no attacker, or not every one, has learned from the pair; null if all have. Parts hold
JSON in it: reason -> the kinds of attackers, none for all of them."""
_STATE = "_state"
RESERVED = (FAILURE, _STATE)
MOST_PARTS, SMALLEST_PART = 64, 16
"""Parts of a fit: each stores up to 14 MB, and more processes than parts have nothing to do meanwhile."""

Attackers = Mapping[str, LearnedAttacker]
Progress = Callable[[Plan], AbstractContextManager[tuple[Callable[[int], None], Callable[[], None]]]]


class FitError(ValueError):
    """An attacker that could not be fitted on the fit split."""


@dataclass(frozen=True)
class Fit:
    """What became of the fit split.

    Args:
        rows: a row per pair: ``id``, whatever else the source knows, and :data:`FAILURE`.
        digest: tells fits of other attackers, or on other pairs, apart.
        refused: kind of an attacker that could not be fitted -> why.
    """

    rows: pa.Table
    digest: str
    refused: Mapping[str, str]


def fittable(privacy: MultiAttackerPrivacy) -> dict[str, LearnedAttacker]:
    """The attackers of a collection that have to be fitted, by their short names, such as ``linear`` of ``linear_gray``.

    One whose short name another has bears the name of its first score.
    """
    found: dict[str, LearnedAttacker] = {}
    for name, metric in attackers_of(privacy).items():
        if not isinstance(metric, LearnedAttackerMetric) or metric.attacker.is_fitted:
            continue
        if all(metric.attacker is not attacker for attacker in found.values()):
            kind = metric.components[0].attacker
            found[name if kind in found else kind] = metric.attacker
    return found


def fit_together(
    source: PairSource,
    attackers: Attackers,
    run: UnfinishedRun,
    processes: Processes,
    progress: Progress,
    *,
    named: Collection[str],
    device: torch.device,
    workers: int,
) -> Fit:
    """Fit the attackers, in place, on every process alike; those that cannot be fitted stay as they are.

    Args:
        source: the pairs of the fit split; they are read one by one.
        attackers: kind -> attacker that is not fitted yet.
        run: the run to which the fit belongs, and which stores it.
        processes: who shares the work.
        progress: makes what is called when pairs are done, and at the end.
        named: the kinds that were asked for by their own names.
        device: where to compute.
        workers: threads that read and decode files.

    Raises:
        AgreedError: on every process, if none of those named could be fitted, or something could not be stored or read.
    """
    fitted = UnfinishedRun(run.folder / "fitted")

    def look() -> list[int]:
        return fitted.begin_or_renew({"run": run.identity}, 1, 1, 1).remaining if processes.is_first else []

    is_fitted = not processes.tell("fit is stored", processes.agree("look for fit", look, ResumeError, OSError))
    processes.agree("join fitted", fitted.join, OSError)
    if not is_fitted:
        parts, plan = _take_in(source, attackers, run, processes, progress, device=device, workers=workers)

        def solve() -> None:
            if processes.is_first:
                _solve(attackers, parts.tables(plan), run, fitted, named, _where(device))
                parts.remove()

        processes.agree("solve", solve, FitError, ResumeError, OSError)
    return processes.agree("load fit", lambda: _load(attackers, fitted), ResumeError, OSError)


def _take_in(
    source: PairSource,
    attackers: Attackers,
    run: UnfinishedRun,
    processes: Processes,
    progress: Progress,
    *,
    device: torch.device,
    workers: int,
) -> tuple[UnfinishedRun, Plan]:
    """Feed every part to attackers of its own and store what they took in."""
    parts = UnfinishedRun(run.folder / "fit")

    def begin() -> dict[str, Any] | None:
        total = source.check()[0]
        size = max(SMALLEST_PART, -(-total // MOST_PARTS))
        return asdict(parts.begin_or_renew({"run": run.identity}, total, None, size)) if processes.is_first else None

    plan = Plan(**processes.tell("fit plan", processes.agree("begin fit", begin, ResumeError, OSError)))
    processes.agree("join fit", parts.join, OSError)

    def taken() -> Iterator[PartRows]:
        while (turn := processes.take("fit parts")) < len(plan.remaining):
            number = plan.remaining[turn]
            start, stop = plan.rows(number)
            yield PartRows(number, start, source.rows(start, stop))

    where = _where(device)
    stream = load_ahead(source, taken(), workers=workers, ahead=2 * workers)
    with progress(plan) as (on_done, tell):
        for part, group in itertools.groupby(stream, key=lambda item: item[0]):
            fresh = {kind: copy.deepcopy(attacker).to(where) for kind, attacker in attackers.items()}
            names = part.table["id"].to_pylist()
            failures: list[str | None] = []
            for (_, pair), name in zip(group, names, strict=True):
                failures.append(_learn(fresh, pair, name, where))
                on_done(1)
            # The split already keeps fitted and scored pairs apart: the attackers' own memory of them would grow with them.
            states = {kind: {**attacker.fit_state(), "seen": []} for kind, attacker in fresh.items()}
            parts.write(part.number, _table(part.kept.append_column(FAILURE, pa.array(failures, pa.string())), states))
        tell()
        processes.gather("fit done", None, tell)
    return parts, plan


def _learn(attackers: Attackers, pair: LoadedPair | FailedPair, name: str, device: torch.device) -> str | None:
    """Feed one pair to every attacker; why, and which of them, cannot learn from it."""
    if isinstance(pair, FailedPair):
        return json.dumps({pair.reason: []})
    noisy, clean = pair.noisy[None].to(device), pair.clean[None].to(device)
    if not bool(noisy.isfinite().all() and clean.isfinite().all()):
        return json.dumps({"a pixel is NaN or infinite.": []})
    reasons: dict[str, list[str]] = {}
    for kind, attacker in attackers.items():
        try:
            attacker.fit_update(noisy, clean, [name])
        except ValueError as error:  # noqa: PERF203
            reasons.setdefault(str(error), []).append(kind)
    return json.dumps(reasons) if reasons else None


def _in_words(rows: pa.Table, of: Collection[str]) -> pa.Table:
    """The rows with every :data:`FAILURE` as a text, as far as it concerns some kinds of attackers."""
    texts: list[str | None] = []
    for failure in rows[FAILURE].to_pylist():
        found = {}
        for reason, kinds in json.loads(failure or "{}").items():
            concerned = [kind for kind in kinds if kind in of]
            if concerned or not kinds:
                found[reason] = f"{', '.join(concerned)}: {reason}" if concerned else reason
        texts.append(" ".join(found.values()) or None)
    return rows.set_column(rows.column_names.index(FAILURE), FAILURE, pa.array(texts, pa.string()))


def _where(device: torch.device) -> torch.device:
    return device if device.type == "cuda" else torch.device("cpu")  # the sums are float64


def _solve(
    attackers: Attackers,
    tables: Iterator[pa.Table],
    run: UnfinishedRun,
    fitted: UnfinishedRun,
    named: Collection[str],
    device: torch.device,
) -> None:
    rows = []
    for attacker in attackers.values():
        attacker.to(device)
    with _of_this_run(run):
        for table in tables:
            for kind, state in _states(table).items():
                attackers[kind].fit_merge(state)
            rows.append(table.drop_columns([_STATE]))
        whole = pa.concat_tables(rows)
    outcomes: dict[str, Any] = {}
    for kind, attacker in attackers.items():
        try:
            attacker.fit_compute()
            outcomes[kind] = attacker.state_dict()
        except ValueError as error:  # noqa: PERF203
            outcomes[kind] = f"{error}{_first_failure(_in_words(whole, [kind]))}"
    learned = [kind for kind, outcome in outcomes.items() if not isinstance(outcome, str)]
    if named and not set(named) & set(learned):
        run.remove_if_unscored()  # the same pairs would fail again
        raise FitError(" ".join(f"--learned {kind}: {outcomes[kind]}" for kind in attackers if kind in named))
    fitted.write(0, _table(_in_words(whole, learned), outcomes))


def _load(attackers: Attackers, fitted: UnfinishedRun) -> Fit:
    with _of_this_run(fitted):
        (table,) = fitted.tables(Plan(1, 1, []))
        refused = {}
        for kind, state in _states(table).items():
            if isinstance(state, str):
                refused[kind] = state
            else:
                attackers[kind].load_state_dict(state)
        rows = table.drop_columns([_STATE])
    done = [f"{kind}: {attacker!r}" for kind, attacker in attackers.items() if kind not in refused]
    digest = hashlib.blake2b(json.dumps((done, rows["id"].to_pylist())).encode(), digest_size=16).hexdigest()
    return Fit(rows, digest, refused)


def _first_failure(rows: pa.Table) -> str:
    failed = rows.filter(rows[FAILURE].is_valid())
    if not len(failed):
        return ""
    share = f"{len(failed)} of {len(rows)} pairs of the fit split"
    return f" {share} could not be used, such as {failed['id'][0]}: {failed[FAILURE][0]}"


def _table(rows: pa.Table, states: Mapping[str, Any]) -> pa.Table:
    """The rows, and in the first of them the attackers' states."""
    buffer = io.BytesIO()
    torch.save(dict(states), buffer)
    return rows.append_column(_STATE, pa.array([buffer.getvalue(), *[None] * (len(rows) - 1)], pa.large_binary()))


@contextlib.contextmanager
def _of_this_run(stored: UnfinishedRun) -> Iterator[None]:
    """Tell of a stored fit that is none: whoever can write it can give it a right digest.

    Raises:
        ResumeError: if so.
    """
    try:
        yield
    except ResumeError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ResumeError(
            f"what {stored.folder} holds is no fit of this run ({type(error).__name__}: {error}); delete it to start over."
        ) from error


def _states(table: pa.Table) -> dict[str, Any]:
    if table.schema.field("id").type != pa.string() or table.schema.field(FAILURE).type != pa.string():
        raise TypeError("a column is of another kind")
    states: dict[str, Any] = load_tensors(table[_STATE][0].as_py(), "the state of the learned attackers", own=True)
    return states
