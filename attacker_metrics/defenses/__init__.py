"""Defences against reconstruction: what clients do to gradients before they share them, and to images before training."""

from attacker_metrics.defenses.augmentation import OPERATIONS, POLICIES, AugmentationPolicy, Operation
from attacker_metrics.defenses.clipped_noise import ClippedNoise
from attacker_metrics.defenses.gradients import (
    Compose,
    Defense,
    GaussianNoise,
    LowBitQuantization,
    MagnitudePruning,
    SignQuantization,
)

DEFENSES: dict[str, type[Defense]] = {
    "noise": GaussianNoise,
    "pruning": MagnitudePruning,
    "sign": SignQuantization,
    "low_bit": LowBitQuantization,
    "clipped_noise": ClippedNoise,
}
"""Defences of gradients by the name that configurations use."""

__all__ = [
    "DEFENSES",
    "OPERATIONS",
    "POLICIES",
    "AugmentationPolicy",
    "ClippedNoise",
    "Compose",
    "Defense",
    "GaussianNoise",
    "LowBitQuantization",
    "MagnitudePruning",
    "Operation",
    "SignQuantization",
]
