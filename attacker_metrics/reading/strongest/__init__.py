"""The strongest attacker per image, on a scale calibrated by unrelated originals, and the self-test of known leaks."""

from attacker_metrics.reading.strongest.assessment import Assessment, assess, attackers_of, score
from attacker_metrics.reading.strongest.content import Shared, shared_content
from attacker_metrics.reading.strongest.flags import Flag, clipped_share, flags, images_needed
from attacker_metrics.reading.strongest.known_leaks import KNOWN_CASES, KnownCase, evaluate_known_cases, is_called_leaking
from attacker_metrics.reading.strongest.null import TIE_RULE, NullDistribution, Strongest
from attacker_metrics.reading.strongest.originals import unrelated_originals
from attacker_metrics.reading.strongest.selection import Selection, noise_of_equal_error
from attacker_metrics.reading.strongest.success import Reading, reading

__all__ = [
    "KNOWN_CASES",
    "TIE_RULE",
    "Assessment",
    "Flag",
    "KnownCase",
    "NullDistribution",
    "Reading",
    "Selection",
    "Shared",
    "Strongest",
    "assess",
    "attackers_of",
    "clipped_share",
    "evaluate_known_cases",
    "flags",
    "images_needed",
    "is_called_leaking",
    "noise_of_equal_error",
    "reading",
    "score",
    "shared_content",
    "unrelated_originals",
]
