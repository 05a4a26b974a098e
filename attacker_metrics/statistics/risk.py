"""What an attack adds to guessing: the share of what the control leaves open that the attack closes."""

from __future__ import annotations

import math

from attacker_metrics.statistics.sample import Estimate

_Z = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def residual_risk(attack: float, attack_n: float, control: float, control_n: float) -> Estimate:
    """``max(0, (attack - control) / (1 - control))`` with its 95 % interval, which both rates' sampling errors widen.

    A risk of 0 is what the control alone reaches, 1 an attack that never fails. The risk is one minus the ratio of the
    failures, so its interval is the score interval of a ratio of two proportions.

    Args:
        attack: the rate at which the attack succeeds, in [0, 1].
        attack_n: of how many independent attempts; need not be whole, such as
            :attr:`~attacker_metrics.statistics.Rate.effective`.
        control: the rate of guessing, or of attacks on what is unrelated, in [0, 1].
        control_n: of how many independent attempts.

    Raises:
        ValueError: for rates outside [0, 1] or less than one attempt.

    Source: Miettinen and Nurminen, "Comparative analysis of two rates", 1985; the risk as in Giomi et al., "A unified
    framework for quantifying privacy risk in synthetic data" (Anonymeter), 2023.

    Example:
        >>> [round(number, 3) for number in residual_risk(0.6, 100, 0.1, 100)]
        [0.556, 0.439, 0.659]
    """
    for name, rate in (("attack", attack), ("control", control)):
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} must be a rate in [0, 1], got {rate!r}.")
    for name, count in (("attack_n", attack_n), ("control_n", control_n)):
        if not count >= 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}; a rate of nothing has no interval.")
    if control == 1:
        return Estimate(0.0, 0.0, 1.0)
    from scipy.optimize import brentq

    def score(ratio: float) -> float:
        return _score(ratio, 1 - attack, attack_n, 1 - control, control_n)

    smallest = 1e-9
    low = 0.0 if score(1.0) > -_Z else 1 - brentq(lambda ratio: score(ratio) + _Z, smallest, 1.0)
    high = 1.0
    if score(1.0) >= _Z:
        high = 0.0
    elif score(smallest) > _Z:
        high = 1 - brentq(lambda ratio: score(ratio) - _Z, smallest, 1.0)
    value = max(0.0, (attack - control) / (1 - control))
    return Estimate(value, min(float(low), value), max(float(high), value))


def _score(ratio: float, first: float, first_n: float, second: float, second_n: float) -> float:
    """How far two proportions are from a ratio, in standard errors under that ratio (restricted maximum likelihood)."""
    total = first_n + second_n
    linear = first_n * ratio + first * first_n + second_n + second * second_n * ratio
    both = first * first_n + second * second_n
    root = math.sqrt(max(linear**2 - 4 * total * ratio * both, 0.0))
    restricted = min(1.0, 2 * both / (linear + root)) if both else 0.0
    scaled = min(1.0, ratio * restricted)
    variance = scaled * (1 - scaled) / first_n + ratio**2 * restricted * (1 - restricted) / second_n
    difference = first - ratio * second
    if variance <= 0:
        return 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance * total / (total - 1))
