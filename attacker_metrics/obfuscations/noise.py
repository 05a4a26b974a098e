"""Noise: each picture's own, drawn anew from seed and id."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength, Transform
from attacker_metrics.obfuscations.values import from_bytes, to_bytes

_TEXTBOOK = "textbook noise model, e.g. Gonzalez and Woods: Digital Image Processing"
_DIFFERENTIAL = "Dwork et al.: Calibrating Noise to Sensitivity in Private Data Analysis, TCC 2006"
_ANY = (-math.inf, math.inf)
_LOST = "what the noise covers; a denoised picture remains"
_DEVIATION = Strength("standard deviation", 0.3, 0.0, 10.0)
_WIDTH = Strength("half width of the distribution", 0.5, 0.0, 10.0)
_EPSILON = Strength("epsilon of one channel of one pixel, whose values differ by at most 1", 2.0, 0.01, 100.0)


def _gaussian(image: Tensor, key: Key, deviation: float) -> Tensor:
    return image + deviation * key.normal("noise", tuple(image.shape), image)


def _gaussian_clipped(image: Tensor, key: Key, deviation: float) -> Tensor:
    return _gaussian(image, key, deviation).clamp(0.0, 1.0)


def _gaussian_smooth(image: Tensor, key: Key, deviation: float) -> Tensor:
    coarse = key.normal("noise", (3, -(-image.shape[1] // 8), -(-image.shape[2] // 8)), image)
    fine = coarse.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    return image + deviation * fine[:, : image.shape[1], : image.shape[2]]


def _uniform(image: Tensor, key: Key, width: float) -> Tensor:
    return image + width * (2 * key.uniform("noise", tuple(image.shape), image) - 1)


def _uniform_clipped(image: Tensor, key: Key, width: float) -> Tensor:
    return _uniform(image, key, width).clamp(0.0, 1.0)


def _laplace(image: Tensor, key: Key, epsilon: float) -> Tensor:
    return image + key.laplace("noise", tuple(image.shape), image) / epsilon


def _laplace_clipped(image: Tensor, key: Key, epsilon: float) -> Tensor:
    return _laplace(image, key, epsilon).clamp(0.0, 1.0)


def _salt_and_pepper(image: Tensor, key: Key, share: float) -> Tensor:
    places = key.uniform("places", (1, *image.shape[1:]), image) < share
    return torch.where(places, key.integers("colours", 2, (1, *image.shape[1:]), image).to(image.dtype), image)


def _speckle(image: Tensor, key: Key, deviation: float) -> Tensor:
    return image * (1 + deviation * key.normal("noise", tuple(image.shape), image))


def _speckle_clipped(image: Tensor, key: Key, deviation: float) -> Tensor:
    return _speckle(image, key, deviation).clamp(0.0, 1.0)


def _shot(image: Tensor, key: Key, photons: float) -> Tensor:
    return image + (image / photons).sqrt() * key.normal("noise", tuple(image.shape), image)


def _flip_bits(image: Tensor, key: Key, share: float) -> Tensor:
    flips = key.uniform("flips", (8, *image.shape), image) < share
    weights = 2 ** torch.arange(8, device=image.device).view(8, 1, 1, 1)
    return from_bytes(to_bytes(image) ^ (flips * weights).sum(dim=0), image)


def _noise(
    name: str,
    summary: str,
    hide: Transform,
    strength: Strength,
    source: str = _TEXTBOOK,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Obfuscation:
    return Obfuscation(
        name, "noise", summary, source, hide, key="per image", destroys=_LOST, bounds=bounds, strength=strength
    )


NOISE = (
    _noise("gaussian-noise", "Adds Gaussian noise; not clipped.", _gaussian, _DEVIATION, bounds=_ANY),
    _noise("gaussian-noise-clipped", "Adds Gaussian noise and clips.", _gaussian_clipped, _DEVIATION),
    _noise(
        "gaussian-noise-coarse",
        "Adds Gaussian noise of squares of 8 pixels; not clipped.",
        _gaussian_smooth,
        _DEVIATION,
        bounds=_ANY,
    ),
    _noise("uniform-noise", "Adds uniform noise; not clipped.", _uniform, _WIDTH, bounds=(-10.0, 11.0)),
    _noise("uniform-noise-clipped", "Adds uniform noise and clips.", _uniform_clipped, _WIDTH),
    _noise(
        "laplace-noise",
        "Adds the Laplace noise that makes every value of a pixel differentially private by itself; not clipped.",
        _laplace,
        _EPSILON,
        _DIFFERENTIAL,
        _ANY,
    ),
    _noise(
        "laplace-noise-clipped",
        "Adds Laplace noise that is calibrated to an epsilon per value, and clips.",
        _laplace_clipped,
        _EPSILON,
        _DIFFERENTIAL,
    ),
    _noise(
        "salt-and-pepper",
        "Replaces a share of the pixels by black or white.",
        _salt_and_pepper,
        Strength("share of the pixels", 0.4, 0.0, 1.0),
    ),
    _noise(
        "multiplicative-noise",
        "Multiplies every value by a Gaussian of mean 1 (speckle); not clipped.",
        _speckle,
        Strength("standard deviation of the factor", 0.5, 0.0, 10.0),
        bounds=_ANY,
    ),
    _noise(
        "multiplicative-noise-clipped",
        "Multiplies every value by a Gaussian of mean 1 and clips.",
        _speckle_clipped,
        Strength("standard deviation of the factor", 0.5, 0.0, 10.0),
    ),
    _noise(
        "shot-noise",
        "Adds Gaussian noise whose variance grows with brightness, as that of counted photons; not clipped.",
        _shot,
        Strength("photons at white", 10.0, 0.1, 1e6),
        bounds=_ANY,
    ),
    _noise(
        "randomised-response",
        "Flips every bit of the 8-bit values with some probability.",
        _flip_bits,
        Strength("probability of a flip; 0.5 leaves nothing", 0.2, 0.0, 0.5),
        "Warner: Randomized Response, Journal of the American Statistical Association 1965",
    ),
)
