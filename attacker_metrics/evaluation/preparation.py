"""Options -> what a run works with, every mistake that can be seen before the work told first."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch

from attacker_metrics._extras import how_to_install
from attacker_metrics._names import MOST_COMPARISONS
from attacker_metrics.evaluation import calibration, fitting
from attacker_metrics.evaluation.attackers import privacy_of
from attacker_metrics.evaluation.fitting import fittable
from attacker_metrics.evaluation.gates import READ, STATISTICS, STRONGEST, Gate
from attacker_metrics.evaluation.options import LEARNED_KINDS, EvaluateOptions
from attacker_metrics.evaluation.scoring import DRAWS, RESERVED, columns_of
from attacker_metrics.evaluation.summary import BOUNDED
from attacker_metrics.jobs.devices import device_of
from attacker_metrics.jobs.ending import UsageError, bad_usage
from attacker_metrics.jobs.processes import Processes
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.pairs.folders import FolderPairs
from attacker_metrics.pairs.loading import share_cores
from attacker_metrics.pairs.manifest import ManifestPairs
from attacker_metrics.pairs.sources import BuiltInPairs, PairSource
from attacker_metrics.reading.kinds import kinds
from attacker_metrics.reading.learned import LearnedAttacker, LearnedAttackerMetric
from attacker_metrics.reading.strongest import attackers_of
from attacker_metrics.scoring.suites import SUITES


@dataclass(frozen=True)
class Prepared:
    """What every process of a run works with.

    Args:
        options: what was asked for.
        privacy: the collection that scores.
        device: where it computes.
        source: all pairs, those to fit on included.
        columns: the scores of every pair.
        attackers: those that have to be fitted first.
        named: the kinds of them that were asked for by their own names, not by ``--learned all``.
    """

    options: EvaluateOptions
    privacy: MultiAttackerPrivacy
    device: torch.device
    source: PairSource
    columns: list[str]
    attackers: dict[str, LearnedAttacker]
    named: frozenset[str]

    def without(self, refused: Collection[str]) -> Prepared:
        """The same without the scores of attackers that could not be fitted; they leave the collection itself.

        Args:
            refused: kinds of attackers.
        """
        gone = [self.attackers[kind] for kind in refused]
        for name, metric in attackers_of(self.privacy).items():
            if isinstance(metric, LearnedAttackerMetric) and any(metric.attacker is attacker for attacker in gone):
                del self.privacy[name]
        return replace(self, columns=columns_of(self.privacy, draws=self.options.draws is not None))


def prepared(options: EvaluateOptions, processes: Processes) -> Prepared:
    """Check the options and make what they name.

    Raises:
        UsageError: for options that contradict each other, or limits that could not be judged.
        ManifestError: for a manifest that cannot be read.
        OSError: for files that are not there.
    """
    if options.null is not None and options.null > MOST_COMPARISONS:
        raise UsageError(f"--null {options.null}: at most {MOST_COMPARISONS} comparisons are made; pass fewer.")
    if options.draws == 1:
        raise UsageError("--draws 1: a mean takes two draws or more; leave the option out.")
    if (options.clean is None) != (options.noisy is None):
        raise UsageError("--clean and --noisy belong together; without both, the built-in photographs are evaluated.")
    privacy, device = privacy_of(options, options.learned), device_of(options.device, processes.local_rank)
    attackers = fittable(privacy)
    if options.fit_split is not None and not attackers:
        raise UsageError("--fit-split says how many pairs the --learned attackers are fitted on: name one, or leave it out.")
    columns = columns_of(privacy, draws=options.draws is not None)
    unrelated = bool(options.suite or attackers) if options.null is None else options.null > 0
    for gate in options.fail_above:
        _check(gate, columns, unrelated=unrelated)
    for gate, other in itertools.combinations(options.fail_above, 2):
        if (gate.component, gate.statistic) == (other.component, other.statistic):
            raise UsageError(f"--fail-above {gate}: there are two limits on one statistic; keep the one that is meant.")
    by_all = () if set(options.learned) < set(LEARNED_KINDS) else LEARNED_KINDS
    named = frozenset(attackers).difference(by_all)
    return Prepared(options, privacy, device, _source(options, columns), columns, attackers, named)


def use_cores(work: Prepared, processes: Processes) -> int:
    """Set torch's threads and return the number of threads that load."""
    threads, workers = share_cores(processes.local_count, on_cpu=work.device.type == "cpu")
    if work.options.workers is None:
        torch.set_num_threads(threads)
        return workers
    return work.options.workers


def _source(options: EvaluateOptions, columns: list[str]) -> PairSource:
    if options.manifest is not None:
        if options.clean is not None or options.allow_unmatched:
            raise UsageError("--manifest lists the pairs: leave --clean, --noisy and --allow-unmatched out.")
        reserved = (*RESERVED, *fitting.RESERVED, *calibration.STRONGEST, *columns)
        try:
            return ManifestPairs(
                str(options.manifest),
                side=options.resize,
                reserved=reserved,
                draws=options.draws or 1,
                decoding=options.decoding,
            )
        except ImportError as error:
            raise UsageError(f"{options.manifest}: {error}; {how_to_install('remote')}.") from error
        except ValueError as error:
            raise UsageError(str(error)) from error
    if options.clean is None or options.noisy is None:
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
            decoding=options.decoding,
        )


def _check(gate: Gate, columns: list[str], *, unrelated: bool) -> None:
    """Refuse a limit that cannot be exceeded or judged: a gate that cannot close is worse than none."""
    own = gate.component not in columns and gate.component in (STRONGEST, READ)
    if not own and gate.component not in columns:
        raise UsageError(
            f"--fail-above {gate}: there is no component {gate.component!r}; there are"
            f" {', '.join([*columns, STRONGEST, READ])}.{_how_to_have(gate.component, columns)}"
        )
    if own and not unrelated:
        raise UsageError(
            f"--fail-above {gate}: {gate.component} is measured against unrelated originals; pass --null or --suite."
        )
    if own and gate.component == READ and gate.statistic != STATISTICS[0]:
        raise UsageError(f"--fail-above {gate}: {READ} is one rate and has no {gate.statistic}; pass {READ}={gate.limit:g}.")
    if (own or gate.component in BOUNDED) and not 0 <= gate.limit <= 1:
        raise UsageError(f"--fail-above {gate}: {gate.component} lies in [0, 1], so its limit does too, such as 0.3.")


def _how_to_have(component: str, columns: list[str]) -> str:
    """The options that would add a score of this library's; empty for another name."""
    name, asked = component.removeprefix(DRAWS), []
    if name in kinds() and name not in columns:
        kind = kinds()[name].attacker
        suite = next((suite.name for suite in SUITES.values() if name in suite.added), None)
        asked += [f"--suite {suite}"] if suite else [f"--learned {kind}"] if kind in LEARNED_KINDS else []
    if name != component and (asked or name in columns):
        asked.append("--draws")
    return f" Pass {' and '.join(asked)}." if asked else ""
