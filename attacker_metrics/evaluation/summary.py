"""Scores -> statistics, gates and a plain reading; everything that ``summary.json`` holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray

from attacker_metrics._version import __version__
from attacker_metrics.evaluation.calibration import RATES, NullCalibration, unread
from attacker_metrics.evaluation.file_flags import file_flags, notes_of
from attacker_metrics.evaluation.gates import READ, READ_RATE, STRONGEST, Gate
from attacker_metrics.evaluation.learned_summary import Learned, in_words
from attacker_metrics.evaluation.not_tried import not_tried
from attacker_metrics.evaluation.scoring import DRAWS, RunScores
from attacker_metrics.evaluation.tails import tails_among, why_refused
from attacker_metrics.files.digest import package_digest
from attacker_metrics.files.writing import CODE
from attacker_metrics.reading.strongest import flags
from attacker_metrics.reading.strongest.success import TOO_FEW
from attacker_metrics.scoring.components import MEANS, MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES, SPEC_VERSION
from attacker_metrics.scoring.suites import SUITES
from attacker_metrics.statistics import Rate

SCHEMA_VERSION = 1
"""Of ``report/summary.schema.json``: it rises when a key changes its meaning or is taken away."""
_FIFTEEN = MS_SSIM_COMPONENT_NAMES + PEARSON_COMPONENT_NAMES
_SINGLE = frozenset(_FIFTEEN).union(*(suite.added + suite.learned for suite in SUITES.values()))
OURS = _SINGLE.union(DRAWS + name for name in _SINGLE)
"""The components whose similarity this library knows, those of suites and on the mean of draws included."""
BOUNDED = OURS.union(MEANS)


def summarize(
    scores: RunScores,
    settings: dict[str, Any],
    gates: list[Gate],
    null: dict[str, Any] | None = None,
    learned: Learned | None = None,
    calibrated: NullCalibration | None = None,
) -> dict[str, Any]:
    """Return the content of ``summary.json``: JSON types only, null where there is no number.

    Args:
        scores: the outcome of a run.
        settings: every setting of the run, by name.
        gates: the limits to judge.
        null: what unrelated originals say about the scores, or None if none were compared.
        learned: the learned attackers, or None if there are none.
        calibrated: what ``null`` tells of, for limits on the strongest attacker; or None.
    """
    scored = scores.scored
    tails = tails_among(scores, scored, BOUNDED)
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "attacker_metrics_version": __version__,
        "spec_version": SPEC_VERSION,
        CODE: package_digest(),
        "torch_version": str(torch.__version__),
        "torchmetrics_version": torchmetrics.__version__,
        "settings": settings,
        "pairs": len(scores),
        "evaluated": int(scored.sum()),
        "skipped": int(scores.skipped.sum()),
        "failed": len(scores.failures),
        "collapsed": int(
            np.logical_or.reduce(
                [scores.collapsed[n] & scored for n in scores.collapsed if n.removeprefix(DRAWS) != "invert_gray"]
            ).sum()
        ),
        "noisy_8bit": scores.noisy_eight_bit,
        "skipped_pairs": [scores.id(index) for index in np.flatnonzero(scores.skipped)],
        "failed_pairs": {scores.id(index): scores.failures[index] for index in sorted(scores.failures)},
        "components": _statistics_of(scores, scored, tails),
        "strongest": _strongest(scores, scored),
        "tails": None if scores.groups is not None else tails,
        "read": (found := _read(null)),
        "risk": found["risk"],
        "not_tried": not_tried(settings, {} if learned is None else learned.fit.refused),
        "null": null,
        "learned": None if learned is None else learned.as_json(),
        "draws": _draws(scores, scored),
        "notes": notes_of(scores),
        "flags": [
            *map(asdict, file_flags(scores, settings.get("unused", {}))),
            *_flags(scores, scored, calibrated, null, learned),
        ],
    }
    if scores.groups is not None:
        groups = np.asarray(scores.groups)
        summary["groups"] = {
            name: {
                "components": _statistics_of(
                    scores, scored & (groups == name), tails_among(scores, scored & (groups == name), BOUNDED)
                ),
                "strongest": _strongest(scores, scored & (groups == name)),
            }
            for name in dict.fromkeys(scores.groups)
        }
    summary["gates"] = [_judge(gate, scores, calibrated, null, learned) for gate in gates]
    summary["readings"] = _readings(scores, summary)
    return summary


def attackers_of(scores: RunScores) -> list[str]:
    """The columns that are components of ours or the user's, the two means aside."""
    return [name for name in scores.columns if name not in MEANS]


def _statistics_of(scores: RunScores, chosen: NDArray[np.bool_], tails: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            **_statistics(column, chosen, scores, tails[name]),
            "collapsed": int((scores.collapsed[name] & chosen).sum()),
        }
        for name, column in scores.columns.items()
    }


def _statistics(
    column: NDArray[np.float32], chosen: NDArray[np.bool_], scores: RunScores, tail: Mapping[str, Any]
) -> dict[str, Any]:
    """Of one component; its interval and its p95 are those of ``tails``: null, and ``refused`` why, where n is too small."""
    indices = np.flatnonzero(chosen & ~np.isnan(column))
    values = column[indices].astype(np.float64)
    names = ("mean", "std", "ci95", "median", "p95", "max", "worst_pair", "refused")
    refused = {name: reason for name, reason in tail["refused"].items() if name in ("mean", "p95")}
    if len(values) == 0:
        return {**dict.fromkeys(names), "refused": refused}
    worst, deviation, interval = int(values.argmax()), None, None
    with np.errstate(invalid="ignore"):  # another library's metric may be infinite
        mean = _finite(values.mean())
        median, highest = (_finite(number) for number in (np.median(values), values[worst]))
        if len(values) > 1:
            deviation = _finite(values.std(ddof=1))
    if tail["mean"] is not None and None not in tail["mean"].values():
        interval = [tail["mean"]["low"], tail["mean"]["high"]]
    p95 = None if tail["p95"] is None else tail["p95"]["value"]
    found = (mean, deviation, interval, median, p95, highest, scores.id(indices[worst]), refused)
    return dict(zip(names, found, strict=True))


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _strongest(scores: RunScores, chosen: NDArray[np.bool_]) -> dict[str, int]:
    """Attacker -> on how many pairs it reads the most, most frequent first."""
    names = [name for name in attackers_of(scores) if name in OURS]
    table = np.stack([scores.columns[name][chosen] for name in names]) if names else np.empty((0, 0))
    if table.size == 0:
        return {}
    winners, counts = np.unique(table.argmax(axis=0), return_counts=True)
    return {names[winners[i]]: int(counts[i]) for i in np.argsort(-counts, kind="stable")}


def _judge(
    gate: Gate,
    scores: RunScores,
    calibrated: NullCalibration | None,
    null: Mapping[str, Any] | None,
    learned: Learned | None,
) -> dict[str, Any]:
    """Whether a limit is kept; what cannot be judged has not kept it: a typo or a small run must not open a gate."""
    column = _judged_column(gate, scores, calibrated)
    known = np.flatnonzero(scores.scored & ~np.isnan(column))
    reason = None
    if gate.component in (STRONGEST, READ) and gate.component not in scores.columns:
        reason = None if null is None else null["refused"]
        if gate.component == READ and null is not None and not reason:
            reason = null["rates"][f"{READ_RATE:g}"]["refused"]
    elif gate.component not in scores.columns:
        refused = {} if learned is None else learned.fit.refused
        reason = " ".join(f"{kind} could not be fitted: {why}" for kind, why in refused.items())
    if reason is None and gate.statistic == "p95":
        reason = why_refused(scores, column, "p95")
    value = None
    if len(known) and (reason is None or gate.statistic == "p95"):
        values = column[known].astype(np.float64)
        with np.errstate(invalid="ignore"):  # another library's metric may be infinite
            found = {"mean": values.mean(), "p95": np.quantile(values, 0.95), "max": values.max()}[gate.statistic]
        value = _finite(float(found))
    limit = 0.5 if gate.component == READ and gate.component not in scores.columns else gate.limit
    above = [scores.id(i) for i in known[np.argsort(-column[known], kind="stable")] if column[i] > limit]
    exceeded = value is None or value > gate.limit or reason is not None
    return {**asdict(gate), "value": value, "exceeded": exceeded, "pairs_above": above, "unsupported": reason}


def _judged_column(gate: Gate, scores: RunScores, calibrated: NullCalibration | None) -> NDArray[Any]:
    """What a limit is on, per pair: scores, percentiles, or 1 for a picture that is read and 0 for another."""
    if gate.component in scores.columns:
        return scores.columns[gate.component]
    if calibrated is None or gate.component not in (STRONGEST, READ):
        return np.full(len(scores), np.nan)
    strongest = calibrated.strongest
    if gate.component == STRONGEST:
        return strongest.percentile
    return np.where(strongest.scored, strongest.success(READ_RATE), np.nan)


def _read(null: Mapping[str, Any] | None) -> dict[str, Any]:
    """How many pictures are read at :data:`READ_RATE`, or why that cannot be said."""
    if null is None:
        return unread("no unrelated originals were compared: pass --null or --suite.", READ_RATE)
    if null["refused"]:
        return unread(null["refused"], READ_RATE)
    found = null["rates"][f"{READ_RATE:g}"]
    return unread(found["refused"], READ_RATE) if found["refused"] else dict(found["read"])


def _draws(scores: RunScores, scored: NDArray[np.bool_]) -> dict[str, Any] | None:
    """How much of the obfuscation is random, and what averaging brings: per attacker the mean score of either."""
    random = scores.random[scored & ~np.isnan(scores.random)].astype(np.float64)
    if not len(random):
        return None
    averaged = {name: name.removeprefix(DRAWS) for name in scores.columns if name.startswith(DRAWS)}
    return {
        "random_share": float(random.mean()),
        "identical": int((random == 0).sum()),
        "gains": {
            single: float((scores.columns[name] - scores.columns[single])[scored].astype(np.float64).mean())
            for name, single in averaged.items()
        },
    }


def _flags(
    scores: RunScores,
    scored: NDArray[np.bool_],
    calibrated: NullCalibration | None,
    null: Mapping[str, Any] | None,
    learned: Learned | None,
) -> list[dict[str, Any]]:
    if not scored.any():
        return []
    columns = {name: scores.columns[name][scored].astype(np.float64) for name in attackers_of(scores) if name in OURS}
    clipped = scores.clipped[scored & ~np.isnan(scores.clipped)]
    random = scores.random[scored & ~np.isnan(scores.random)]
    rates, comparisons = (RATES, null["comparisons"]) if null is not None else ((), None)
    raised = flags(
        {name: column for name, column in columns.items() if name in _SINGLE},
        averaged={name.removeprefix(DRAWS): column for name, column in columns.items() if name.startswith(DRAWS)},
        random=random.tolist(),
        clipped=clipped.tolist(),
        learned=None if learned is None else learned.attackers,
        rates=rates,
        null_count=comparisons,
        shared=() if calibrated is None else calibrated.shared,
        alike=0 if calibrated is None else calibrated.null.outliers,
    )
    return [asdict(flag) for flag in raised]


def _readings(scores: RunScores, summary: dict[str, Any]) -> list[str]:
    """What the numbers say, in plain words."""
    readings = []
    if not summary["evaluated"]:
        readings.append("No pair could be scored: there is nothing to conclude.")
    for group, part in summary.get("groups", {"": summary}).items():
        components = {name: part["components"][name] for name in attackers_of(scores)}
        known = {n: s["mean"] for n, s in components.items() if s["mean"] is not None and n in OURS}
        if not known:
            continue
        strongest = max(known, key=lambda name: known[name])
        zeros = [name for name in known if name in MS_SSIM_COMPONENT_NAMES and components[name]["max"] == 0]
        sentence = f"{group or 'Strongest on average'}: {strongest} reads {known[strongest]:.2f} of at most 1."
        if zeros:
            ms_ssims = sum(name in MS_SSIM_COMPONENT_NAMES for name in known)
            sentence += f" {len(zeros)} of {ms_ssims} MS-SSIM components are 0 on every pair; that alone would look safe."
        readings.append(sentence)
    readings += _calibrated_readings(summary)
    if summary["learned"] is not None:
        readings.append(in_words(summary["learned"]))
    if summary["draws"] is not None:
        share, identical = summary["draws"]["random_share"], summary["draws"]["identical"]
        readings.append(
            f"Of the draws' squared error {share:.0%} varies from draw to draw, which a mean over draws reduces; draws_NAME"
            f" is what NAME reads in that mean. On {identical} of {summary['evaluated']} pairs all draws are identical."
        )
    for gate in summary["gates"]:
        if gate["unsupported"]:
            readings.append(
                f"The limit on {gate['component']} {gate['statistic']} counts as exceeded, because it can be judged on these"
                f" pairs alone or not at all: {gate['unsupported']}"
            )
    if summary["collapsed"]:
        readings.append(
            f"On {summary['collapsed']} of {summary['evaluated']} pairs an MS-SSIM component is exactly 0 because a"
            ' structure term was not positive. Such a 0 does not mean "safe": an attacker who inverts the picture undoes it.'
            " Look at sobel_gray and the squared Pearsons of those pairs."
        )
    if summary["noisy_8bit"]:
        readings.append(
            f"{summary['noisy_8bit']} noisy images were 8-bit files, so they were clipped and quantised before they were"
            " scored: scores may understate the leakage of what was really sent. Store tensors (.npy, .pt) to be exact."
        )
    if summary["skipped"]:
        readings.append(f"{summary['skipped']} pairs hold NaN or infinite pixels and are left out of every number.")
    if summary["failed"]:
        readings.append(f"{summary['failed']} pairs could not be scored and are left out of every number.")
    readings.append(
        "MS-SSIM and squared Pearson are different scales: a 0.5 of one is not a 0.5 of the other. Both are 1 for a picture"
        " that is fully readable."
    )
    return readings


def _calibrated_readings(summary: Mapping[str, Any]) -> list[str]:
    """How often the strongest attacker succeeds, or why that cannot be said."""
    null, read = summary["null"], summary["read"]
    if null is None:
        return []
    if null["refused"]:
        return [f"The strongest attacker was not calibrated: {null['refused']}"]
    readings = []
    for rate, found in null["rates"].items():
        if found["refused"]:  # a flag says so
            continue
        success, interval = Rate(**found["success"]["strongest"]), found["read"]
        readings.append(
            f"The strongest attacker reads {success} of the pictures at a false-positive rate of {float(rate):.1%}, realised"
            f" {found['realised']:.2%} of {null['comparisons']} comparisons with unrelated originals; with the error of"
            f" these {interval['low']:.3g} .. {interval['high']:.3g}."
        )
    if read["reason"] is None:
        risk = read["risk"]
        readings.append(
            f"{read['verdict'][0].upper()}{read['verdict'][1:]}: beyond chance"
            f" {risk['value']:.3g} ({risk['low']:.3g} .. {risk['high']:.3g}) of the pictures are read. Not tried:"
            f" {'; '.join(summary['not_tried']) or 'nothing that this library has'}."
        )
    else:
        readings.append(f"{TOO_FEW[0].upper()}{TOO_FEW[1:]}: {read['reason'].removeprefix(f'{TOO_FEW}: ')}")
    return readings
