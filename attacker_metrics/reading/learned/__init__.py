"""Attackers that learn from pairs of noisy and clean images: fitted on one part of the data, scored on another."""

from attacker_metrics.reading.learned.attacker import FitOverlapError, LearnedAttacker, NotFittedError, in_fit_split
from attacker_metrics.reading.learned.cnn import CNNAttacker
from attacker_metrics.reading.learned.keyed import KeyedAttacker
from attacker_metrics.reading.learned.linear import LinearAttacker, NormalEquations
from attacker_metrics.reading.learned.metrics import (
    CNNAttackerMSSSIM,
    CNNAttackerPearson,
    LearnedAttackerMetric,
    LinearAttackerMSSSIM,
    LinearAttackerPearson,
)
from attacker_metrics.reading.learned.spectrum import SpectrumAttacker
from attacker_metrics.reading.learned.standard import STANDARD_LEARNED, standard_learned

__all__ = [
    "STANDARD_LEARNED",
    "CNNAttacker",
    "CNNAttackerMSSSIM",
    "CNNAttackerPearson",
    "FitOverlapError",
    "KeyedAttacker",
    "LearnedAttacker",
    "LearnedAttackerMetric",
    "LinearAttacker",
    "LinearAttackerMSSSIM",
    "LinearAttackerPearson",
    "NormalEquations",
    "NotFittedError",
    "SpectrumAttacker",
    "in_fit_split",
    "standard_learned",
]
