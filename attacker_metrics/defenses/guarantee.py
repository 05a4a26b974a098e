"""The Gaussian mechanism's epsilon, in closed form: for any noise, where numerical accountants give up."""

from __future__ import annotations

import math

import torch

_HALVINGS = 200
_TAIL = 40.0
"""A standard normal value exceeds this with a chance below any positive number that a float can hold."""


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """The exact epsilon of normal noise on a value that one contribution changes by at most 1.

    So many shared values with noise s are one with ``s / sqrt(steps)``.

    Args:
        noise_multiplier: standard deviation of the noise, above 0.
        delta: above 0; from 1 on nothing is asked.

    Returns:
        The epsilon, rounded upwards; infinite only where it exceeds all floats.

    Example:
        >>> round(gaussian_epsilon(1.0, 1e-5), 3), round(gaussian_epsilon(0.001, 1e-5))
        (4.377, 504264)

    Source: Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018.
    """
    half = 0.5 / noise_multiplier
    if math.isinf(half) or math.erf(half / math.sqrt(2)) <= delta:
        return math.inf if math.isinf(half) else 0.0
    # delta falls in `low = epsilon * noise - half`; Mills' ratio in place of differences of huge numbers.
    low, high = max(-half, -_TAIL), _TAIL
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if 0.5 * math.erfc(middle / math.sqrt(2)) - _density(middle) * _mills(middle + 2 * half) > delta:
            low = middle
        else:
            high = middle
    return (high + half) / noise_multiplier * (1 + 1e-12)


def sampled_gaussian_epsilon(noise_multiplier: float, delta: float, sample_rate: float) -> float:
    """The exact epsilon of one step of :func:`gaussian_epsilon` in which a contribution takes part by chance.

    Args:
        noise_multiplier: as there.
        delta: as there.
        sample_rate: the chance, in (0, 1].

    Example:
        >>> sampled_gaussian_epsilon(1.0, 1e-5, 1.0) == gaussian_epsilon(1.0, 1e-5)
        True

    Source: Balle, Barthe and Gaboardi, "Privacy Amplification by Subsampling", NeurIPS 2018.
    """
    whole = gaussian_epsilon(noise_multiplier, delta / sample_rate)
    if sample_rate == 1 or math.isinf(whole):
        return whole
    if whole < 1:
        return math.log1p(sample_rate * math.expm1(whole))
    return whole + math.log(sample_rate + (1 - sample_rate) * math.exp(-whole))


def gaussian_epsilon_by_rdp(noise_multiplier: float, delta: float) -> float:
    """What Renyi differential privacy of all orders gives for :func:`gaussian_epsilon`: an upper bound of it.

    Source: Mironov, "Renyi Differential Privacy", CSF 2017; Balle et al., "Hypothesis Testing Interpretations and Renyi
    Differential Privacy", AISTATS 2020, for the conversion.
    """
    above = torch.logspace(-9, 9, 20_001, dtype=torch.float64, device="cpu")
    orders = 1 + above
    bounds = orders / (2 * noise_multiplier * noise_multiplier) + torch.log1p(-1 / orders)
    bounds = bounds - (math.log(delta) + orders.log()) / above
    return max(0.0, float(bounds.min()))


def _density(value: float) -> float:
    return math.exp(-value * value / 2) / math.sqrt(2 * math.pi)


def _mills(value: float) -> float:
    """The chance to exceed a positive value, over the density there."""
    scaled = torch.tensor(value / math.sqrt(2), dtype=torch.float64, device="cpu")
    return math.sqrt(math.pi / 2) * float(torch.special.erfcx(scaled))
