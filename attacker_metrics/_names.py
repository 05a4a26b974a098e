"""Names and defaults that help and messages show, where they cost nothing to import; what they name is elsewhere."""

from __future__ import annotations

from typing import Literal

DEFAULT_GAMMA_ATTACK_VALUES: tuple[float, ...] = (0.5, 2.0)
DEFAULT_GAUSSIAN_BLUR_SIGMA: float = 2.0
DEFAULT_WAVELET_SOFT_THRESHOLD: float = 0.1
DEFAULT_BETAS: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

SuiteName = Literal["standard-v1", "standard-v2"]
LearnedKind = Literal["linear", "block", "cnn", "keyed", "spectrum"]

MOST_COMPARISONS = 1_000_000
COMPARISONS_OF_SUITE = 20_000
"""Comparisons with unrelated originals in the run of a suite, by default."""
ORIGINALS_PER_PICTURE = 20
DEFAULT_FIT_SHARE = 0.5
"""Of the pairs, for learned attackers to be fitted on."""

ZOO_VERSION = "zoo-v1"
"""The name of the table. What it holds does not change; other obfuscations make another version."""
UndoneBy = Literal["anyone", "pairs", "key", "nobody"]
Family = Literal[
    "tone",
    "colour",
    "noise",
    "blur",
    "geometry",
    "permutation",
    "transform",
    "block encryption",
    "pads",
    "covers",
    "mixing",
    "cloaks",
    "quantisation",
    "safe",
]

BACKEND_VARIABLE = "ATTACKER_METRICS_BACKEND"
"""Environment variable that chooses the engine."""
