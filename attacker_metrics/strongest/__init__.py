"""The strongest attacker per image, on a scale calibrated by unrelated pairs, and the self-test of known leaks."""

from attacker_metrics.strongest.assessment import Assessment, assess, attackers_of, noise_of_equal_error, score
from attacker_metrics.strongest.null import NullDistribution, Strongest, Threshold, unrelated_pairs

__all__ = [
    "Assessment",
    "NullDistribution",
    "Strongest",
    "Threshold",
    "assess",
    "attackers_of",
    "noise_of_equal_error",
    "score",
    "unrelated_pairs",
]
