"""Tone: every value replaced by a function of itself."""

from __future__ import annotations

import torch
from torch import Tensor

from attacker_metrics.attackers.filters import Equalize
from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength

_EDITORS = "image editors; the point operations of Gonzalez and Woods: Digital Image Processing"
_AUGMENTATION = "augmentation libraries, e.g. the operations of Cubuk et al.: AutoAugment, CVPR 2019"


def _gamma(image: Tensor, _key: Key, exponent: float) -> Tensor:
    return image**exponent


def _gamma_back(sent: Tensor, _key: Key, exponent: float) -> Tensor:
    return sent ** (1 / exponent)


def _negative(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return 1 - image


def _contrast(image: Tensor, _key: Key, contrast: float) -> Tensor:
    return 0.5 + contrast * (image - 0.5)


def _contrast_back(sent: Tensor, _key: Key, contrast: float) -> Tensor:
    return (sent - 0.5) / contrast + 0.5


def _flipped_contrast(image: Tensor, _key: Key, contrast: float) -> Tensor:
    return 0.5 - contrast * (image - 0.5)


def _flipped_contrast_back(sent: Tensor, _key: Key, contrast: float) -> Tensor:
    return (0.5 - sent) / contrast + 0.5


def _darken(image: Tensor, _key: Key, factor: float) -> Tensor:
    return image * factor


def _darken_back(sent: Tensor, _key: Key, factor: float) -> Tensor:
    return sent / factor


def _offset(image: Tensor, _key: Key, offset: float) -> Tensor:
    return image + offset


def _offset_back(sent: Tensor, _key: Key, offset: float) -> Tensor:
    return sent - offset


def _sigmoid(image: Tensor, _key: Key, slope: float) -> Tensor:
    return torch.sigmoid(slope * (image - 0.5))


def _sigmoid_back(sent: Tensor, _key: Key, slope: float) -> Tensor:
    return torch.logit(sent) / slope + 0.5


def _posterise(image: Tensor, _key: Key, levels: float) -> Tensor:
    return (image * levels).floor().clamp(max=levels - 1) / (levels - 1)


def _solarise(image: Tensor, _key: Key, threshold: float) -> Tensor:
    return torch.where(image < threshold, image, 1 - image)


def _equalise(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return Equalize()(image[None])[0].clamp(0.0, 1.0)


def _wrap(image: Tensor, _key: Key, gain: float) -> Tensor:
    return (image * gain).remainder(1.0)


def _jitter(image: Tensor, key: Key, spread: float) -> Tensor:
    contrast = 1 - spread * key.uniform("contrast", (1, 1, 1), image)
    return image * contrast + (1 - contrast) * key.uniform("brightness", (1, 1, 1), image)


def _jitter_back(sent: Tensor, key: Key, spread: float) -> Tensor:
    contrast = 1 - spread * key.uniform("contrast", (1, 1, 1), sent)
    return (sent - (1 - contrast) * key.uniform("brightness", (1, 1, 1), sent)) / contrast


_CONTRAST = Strength("what is left of the contrast", 1e-3, 1e-4, 1.0)

TONE = (
    Obfuscation(
        "gamma",
        "tone",
        "Raises every value to a power, which darkens the picture.",
        _EDITORS,
        _gamma,
        reverse=_gamma_back,
        strength=Strength("exponent", 3.0, 0.2, 4.0),
    ),
    Obfuscation("inversion", "tone", "Turns the picture into its negative.", _EDITORS, _negative, reverse=_negative),
    Obfuscation(
        "low-contrast",
        "tone",
        "Shrinks the contrast around middle grey until nothing is seen.",
        _EDITORS,
        _contrast,
        reverse=_contrast_back,
        strength=_CONTRAST,
    ),
    Obfuscation(
        "flipped-low-contrast",
        "tone",
        "Shrinks the contrast and turns its sign.",
        _EDITORS,
        _flipped_contrast,
        reverse=_flipped_contrast_back,
        strength=Strength("what is left of the contrast", 0.3, 1e-4, 1.0),
    ),
    Obfuscation(
        "darkening",
        "tone",
        "Multiplies every value by a small number.",
        _EDITORS,
        _darken,
        reverse=_darken_back,
        strength=Strength("factor", 0.02, 1e-4, 1.0),
    ),
    Obfuscation(
        "offset",
        "tone",
        "Adds a number to every value, so that the picture leaves what a screen shows.",
        _EDITORS,
        _offset,
        reverse=_offset_back,
        bounds=(-2.0, 3.0),
        strength=Strength("what is added", 1.0, -2.0, 2.0),
    ),
    Obfuscation(
        "sigmoid",
        "tone",
        "Pushes values towards black and white by a logistic curve.",
        _EDITORS,
        _sigmoid,
        reverse=_sigmoid_back,
        strength=Strength("slope at middle grey, times four", 10.0, 1.0, 15.0),
    ),
    Obfuscation(
        "posterisation",
        "tone",
        "Leaves few levels per channel.",
        _AUGMENTATION,
        _posterise,
        destroys="differences within a level",
        strength=Strength("levels per channel", 3, 2, 64, whole=True),
    ),
    Obfuscation(
        "solarisation",
        "tone",
        "Inverts the values from a threshold on.",
        _AUGMENTATION,
        _solarise,
        destroys="whether a value was above or below the threshold",
        strength=Strength("threshold", 0.5, 0.0, 1.0),
    ),
    Obfuscation(
        "histogram-equalisation",
        "tone",
        "Replaces every value by its rank among the picture's values, so that the histogram is flat.",
        _EDITORS,
        _equalise,
        destroys="the histogram; the order of values stays",
    ),
    Obfuscation(
        "wrapped-values",
        "tone",
        "Multiplies every value by a gain and keeps the fraction, as a camera that wraps instead of saturating.",
        "Zhao et al.: Unbounded High Dynamic Range Photography using a Modulo Camera, ICCP 2015",
        _wrap,
        destroys="the whole part, which unwrapping finds where the picture is smooth",
        strength=Strength("gain", 4.0, 1.0, 64.0),
    ),
    Obfuscation(
        "random-tone",
        "tone",
        "Shrinks the contrast and shifts the brightness of every picture by amounts of its own.",
        _AUGMENTATION,
        _jitter,
        key="per image",
        reverse=_jitter_back,
        strength=Strength("greatest loss of contrast", 0.8, 0.0, 0.99),
    ),
)
