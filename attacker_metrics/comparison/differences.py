"""Scores of the same pairs -> paired differences, tested, and what they say in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attacker_metrics.comparison.runs import STRONGEST, Run
from attacker_metrics.evaluation.scoring import DRAWS
from attacker_metrics.evaluation.summary import OURS
from attacker_metrics.reading.kinds import family_of
from attacker_metrics.scoring.components import MEANS
from attacker_metrics.statistics import Estimate, SignFlipTest, holm, mean_interval, sign_flip_test
from attacker_metrics.statistics.paired import RESAMPLES

LEVEL = 0.05
SAME = 4e-5
"""Two scores of ours that are no farther apart are equal: each may be off by half of it in float32."""

FEW_GROUPS = 15
_SUMMARIES = (*MEANS, STRONGEST)


@dataclass(frozen=True)
class Difference:
    """How much more one run leaks than the baseline after one attacker (or in one mean).

    Args:
        run: name of the run.
        baseline: name of the run that it is compared with.
        component: the attacker or mean.
        n: pairs that have a score in both.
        left_out: pairs that lack one.
        baseline_mean: mean score of the baseline over those pairs.
        run_mean: that of the run.
        change: mean of run - baseline per pair, with its 95 % interval; negative = the run leaks less.
        pairs_lower: on how many pairs the run's score is lower.
        pairs_higher: on how many it is higher.
        test: the sign-flip test.
        p_holm: its p-value, corrected over all attackers and runs of the comparison (the means: among themselves).
    """

    run: str
    baseline: str
    component: str
    n: int
    left_out: int
    baseline_mean: float
    run_mean: float
    change: Estimate
    pairs_lower: int
    pairs_higher: int
    test: SignFlipTest
    p_holm: float

    @property
    def verdict(self) -> str:
        """How the run leaks: "less", "more", or "undecided"; an undecided one is not an equal one."""
        if self.p_holm > LEVEL:
            return "undecided"
        return "less" if self.change.value < 0 else "more"

    @property
    def is_attacker(self) -> bool:
        """Whether it is a single attacker, not a mean or the like."""
        return self.component not in _SUMMARIES


def compare_runs(runs: Sequence[Run], *, seed: int = 0) -> list[Difference]:
    """Compare every run with the first, component by component.

    Averages over pairs hide the image that leaks, and averages over attackers the attacker that works: look at the strongest
    one. A significant difference may be too small to matter, and one that is not significant may still be there.

    Args:
        runs: aligned runs; components that not all have are left out.
        seed: of resampling and sign flips.

    Returns:
        A difference per run after the first and component that has a score in both.
    """
    baseline = runs[0]
    names = [name for name in baseline.components if all(name in run.components for run in runs)]
    # So many that the smallest p-value survives the correction, however many tests there are.
    flips = max(RESAMPLES, math.ceil(2 / LEVEL) * len(runs[1:]) * len(names))
    found = [_difference(baseline, run, name, flips, seed) for run in runs[1:] for name in names]
    differences = [difference for difference in found if difference is not None]
    for family in (True, False):
        members = [index for index, difference in enumerate(differences) if difference.is_attacker == family]
        if members:
            corrected = holm([differences[index].test.p_value for index in members])
            for index, p_value in zip(members, corrected, strict=True):
                differences[index] = replace(differences[index], p_holm=float(p_value))
    return differences


def sentences(runs: Sequence[Run], differences: Sequence[Difference]) -> list[str]:
    """What the differences say, in plain words."""
    said = []
    for run in runs[1:]:
        mine = [difference for difference in differences if difference.run == run.name]
        if mine:
            said += _sentences_of(run, runs[0], mine)
    return said


def cautions(runs: Sequence[Run], differences: Sequence[Difference]) -> list[str]:
    """What can make the differences mislead in these very runs."""
    notes = []
    for run in runs:
        unscored = int((~np.isfinite([run.columns[name] for name in run.components])).any(axis=0).sum())
        if unscored:
            notes.append(
                f"{run.name}: {unscored} of {len(run.ids)} pairs lack a score and are left out where they do. If they"
                " failed because they are special, the differences are biased."
            )
        # The negative of any readable picture collapses: only where other attackers do is it news.
        names = [name for name in run.components if _is_ms_ssim(name) and name.removeprefix(DRAWS) != "invert_gray"]
        collapsed = sum(int((run.columns[name] == 0).any()) for name in names)
        if collapsed:
            notes.append(
                f"{run.name}: {collapsed} MS-SSIM components are exactly 0 on some pairs. That is a structure term that was"
                " not positive, not safety: look at sobel_gray and the squared Pearsons."
            )
    own = sorted({name for run in runs for name in run.summary["settings"].get("extra") or ()})
    if own:
        notes.append(
            f"{', '.join(own)}: your own metrics are read like ours, higher = leaks more. For a distance, where identical"
            " pictures score lowest, less and more are swapped."
        )
    eight_bit = [run.summary.get("noisy_8bit", 0) for run in runs]
    if len(set(eight_bit)) > 1:
        counts = ", ".join(f"{count} in {run.name}" for run, count in zip(runs, eight_bit, strict=True))
        notes.append(
            f"Noisy images from 8-bit files: {counts}. They were clipped and quantised before they were scored, so they are"
            " judged more mildly than tensors."
        )
    groups = runs[0].groups
    if groups is not None and len(set(groups)) < FEW_GROUPS:
        notes.append(f"Only {len(set(groups))} groups: intervals of fewer than {FEW_GROUPS} are rough.")
    attackers = [difference for difference in differences if difference.is_attacker]
    if attackers and min(difference.test.smallest for difference in attackers) * len(attackers) > LEVEL:
        notes.append(
            f"So few {'pairs' if groups is None else 'groups'} cannot show a difference of any single attacker: the smallest"
            f" p-value they can give, times {len(attackers)} tests, is above {LEVEL:g}. Evaluate more."
        )
    return notes


def _difference(baseline: Run, run: Run, name: str, flips: int, seed: int) -> Difference | None:
    first, second = baseline.columns[name], run.columns[name]
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return None
    first, second = first[both], second[both]
    groups = None if baseline.groups is None else np.asarray(baseline.groups)[both]
    ours = name in OURS or name in MEANS
    changes = second - first
    if ours:
        changes = np.where(np.abs(changes) <= SAME, 0, changes)
    test = sign_flip_test(changes, groups, resamples=flips, seed=seed)
    return Difference(
        run=run.name,
        baseline=baseline.name,
        component=name,
        n=int(both.sum()),
        left_out=int((~both).sum()),
        baseline_mean=float(first.mean()),
        run_mean=float(second.mean()),
        change=mean_interval(changes, groups, bounds=(-1, 1) if ours else (-np.inf, np.inf), seed=seed),
        pairs_lower=int((changes < 0).sum()),
        pairs_higher=int((changes > 0).sum()),
        test=test,
        p_holm=test.p_value,
    )


def _sentences_of(run: Run, baseline: Run, differences: Sequence[Difference]) -> list[str]:
    attackers = [difference for difference in differences if difference.is_attacker]
    if not any(difference.pairs_lower or difference.pairs_higher for difference in differences):
        partly = " that has them in both" if any(difference.left_out for difference in differences) else ""
        return [f"{run.name} and {baseline.name} have the same scores on every pair{partly}."]
    said = []
    if attackers:
        counts = {v: sum(d.verdict == v for d in attackers) for v in ("less", "more", "undecided")}
        fewest, most = min(d.n for d in attackers), max(d.n for d in attackers)
        where = f"{most} pairs" if fewest == most else f"{fewest} to {most} pairs"
        if run.groups is not None:
            where += f" in {'' if fewest == len(run.ids) else 'at most '}{len(set(run.groups))} groups"
        said.append(
            f"{run.name} leaks less than {baseline.name} after {counts['less']} of {len(attackers)} attackers, more after"
            f" {counts['more']}; {counts['undecided']} are undecided (sign-flip test over {where}, Holm-corrected, 5 %)."
        )
    for family, belongs in (("MS-SSIM", _is_ms_ssim), ("squared Pearson", _is_pearson)):
        members = [difference for difference in attackers if belongs(difference.component)]
        if members:
            before = max(members, key=lambda difference: difference.baseline_mean)
            after = max(members, key=lambda difference: difference.run_mean)
            sentence = (
                f"Strongest {family} attacker on average: {before.component} ({before.baseline_mean:.3f}) on"
                f" {baseline.name}, {after.component} ({after.run_mean:.3f}) on {run.name}."
            )
            if after.run_mean >= before.baseline_mean - SAME and any(member.verdict == "less" for member in members):
                sentence += " The best attacker still reads as much: what others lost is no gain in privacy."
            said.append(sentence)
    return said


def _is_ms_ssim(name: str) -> bool:
    return name in OURS and family_of(name.removeprefix(DRAWS)) == "ms_ssim"


def _is_pearson(name: str) -> bool:
    return name in OURS and family_of(name.removeprefix(DRAWS)) == "pearson"
