"""Image -> view: what an attacker makes of a picture before it is compared with the original.

In: floating tensors ``(B, C, H, W)``. Out: views ``(B, C', H', W')``, image by image. ``standard`` holds the attackers of
the fifteen components, ``filters`` those that the suites add, ``slopes`` the operations with fixed derivatives that both are
made of, ``modules`` what attackers that are networks need.
"""

from attacker_metrics.attackers.filters import (
    JPEG,
    AffineFit,
    Equalize,
    Unsharp,
    Wiener,
    draw,
    invert,
    mean_of_draws,
    median,
)
from attacker_metrics.attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
    Attacker,
    Blur,
    Gamma,
    Wavelet,
    clamp,
    gaussian_taps,
    luma,
    minmax,
    pull_back,
    sobel,
    standardize,
)

__all__ = [
    "DEFAULT_GAMMA_ATTACK_VALUES",
    "DEFAULT_GAUSSIAN_BLUR_SIGMA",
    "DEFAULT_WAVELET_SOFT_THRESHOLD",
    "JPEG",
    "AffineFit",
    "Attacker",
    "Blur",
    "Equalize",
    "Gamma",
    "Unsharp",
    "Wavelet",
    "Wiener",
    "clamp",
    "draw",
    "gaussian_taps",
    "invert",
    "luma",
    "mean_of_draws",
    "median",
    "minmax",
    "pull_back",
    "sobel",
    "standardize",
]
