"""Mixing: the picture averaged with others, some with signs flipped.

The other pictures are made by rule, also those that stand for other private ones: so a picture comes out the same
in whatever batch it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength
from attacker_metrics.obfuscations.values import procedural_picture

_MIXUP = "Zhang et al.: mixup: Beyond Empirical Risk Minimization, ICLR 2018"
_CUTMIX = "Yun et al.: CutMix, ICCV 2019"
_INSTAHIDE = "Huang et al.: InstaHide: Instance-hiding Schemes for Private Distributed Learning, ICML 2020"
_ATTACK = "undone to a large part by Carlini et al.: Is Private Learning Possible with Instance Encoding?, IEEE S&P 2021"
_PUBLIC = 2
"""Public pictures beside the private ones, in the variant that mixes both."""


def _mixup(image: Tensor, key: Key, share: float) -> Tensor:
    return share * image + (1 - share) * procedural_picture(key, "other", image)


def _mixup_back(sent: Tensor, key: Key, share: float) -> Tensor:
    return (sent - (1 - share) * procedural_picture(key, "other", sent)) / share


def _cutmix(image: Tensor, key: Key, share: float) -> Tensor:
    height, width = image.shape[1:]
    rows, columns = round(height * share**0.5), round(width * share**0.5)
    top = int(key.integers("top", height - rows + 1, (1,), image))
    left = int(key.integers("left", width - columns + 1, (1,), image))
    mixed = image.clone()
    other = procedural_picture(key, "other", image)
    mixed[:, top : top + rows, left : left + columns] = other[:, top : top + rows, left : left + columns]
    return mixed


def _mixture(image: Tensor, key: Key, count: int, public: int) -> Tensor:
    """The weighted sum of the picture and others, in [-1, 1]; each weight at most .65, as published."""
    weights = key.uniform("weights", (count,), image) + 1e-3
    weights = weights / weights.sum()
    # pull towards equal weights until none exceeds .65
    equal = 1 / count
    pull = ((weights.max() - 0.65) / (weights.max() - equal).clamp(min=1e-9)).clamp(0.0, 1.0)
    weights = weights + pull * (equal - weights)
    labels = [f"private {n}" for n in range(1, count - public)] + [f"public {n}" for n in range(public)]
    others = [procedural_picture(key, label, image) for label in labels]
    mixed = torch.einsum("n,nchw->chw", weights, torch.stack([image, *others]))
    return (2 * mixed - 1).clamp(-1.0, 1.0)


def _signed(mixed: Tensor, key: Key) -> Tensor:
    return mixed * key.signs("signs", tuple(mixed.shape), mixed)


def _mix_only(image: Tensor, key: Key, count: float) -> Tensor:
    return _mixture(image, key, int(count), 0)


def _private_instahide(image: Tensor, key: Key, count: float) -> Tensor:
    return _signed(_mixture(image, key, int(count), 0), key)


def _public_instahide(image: Tensor, key: Key, count: float) -> Tensor:
    return _signed(_mixture(image, key, int(count), min(_PUBLIC, int(count) - 1)), key)


def _sign_flips(image: Tensor, key: Key, _strength: float) -> Tensor:
    return _signed(2 * image - 1, key)


def _sign_flips_back(sent: Tensor, key: Key, _strength: float) -> Tensor:
    return (_signed(sent, key) + 1) / 2


_SHARE = Strength("share of the picture", 0.5, 0.01, 1.0)
_COUNT = Strength("pictures that are mixed, this one among them", 4, 1, 32, whole=True)
_MIXED = "what the other pictures cover"

MIXING = (
    Obfuscation(
        "mixup",
        "mixing",
        "Averages every picture with another one.",
        _MIXUP,
        _mixup,
        key="per image",
        destroys="what the other picture covers, unless it is known",
        reverse=_mixup_back,
        strength=_SHARE,
    ),
    Obfuscation(
        "mixup-fixed",
        "mixing",
        "Averages all pictures with the same other one.",
        _MIXUP,
        _mixup,
        key="fixed",
        undone_by="pairs",
        reverse=_mixup_back,
        strength=Strength("share of the picture", 0.2, 0.01, 1.0),
    ),
    Obfuscation(
        "cutmix",
        "mixing",
        "Covers a random rectangle of every picture by another picture.",
        _CUTMIX,
        _cutmix,
        key="per image",
        destroys="the covered rectangle",
        strength=Strength("share of the area", 0.5, 0.0, 1.0),
    ),
    Obfuscation(
        "instance-mixing",
        "mixing",
        "Mixes every picture with others by random weights, without flips of signs; in [-1, 1].",
        _INSTAHIDE,
        _mix_only,
        key="per image",
        destroys=_MIXED,
        ceiling=0.74,
        bounds=(-1.0, 1.0),
        strength=_COUNT,
    ),
    Obfuscation(
        "instahide-private",
        "mixing",
        "Mixes every picture with private ones by random weights, then flips signs at random; in [-1, 1].",
        f"{_INSTAHIDE}; {_ATTACK}",
        _private_instahide,
        key="per image",
        destroys=f"{_MIXED}, and the signs",
        ceiling=0.16,
        bounds=(-1.0, 1.0),
        strength=_COUNT,
    ),
    Obfuscation(
        "instahide-public",
        "mixing",
        "Mixes every picture with private and two public ones by random weights, then flips signs at random; in [-1, 1].",
        f"{_INSTAHIDE}; {_ATTACK}",
        _public_instahide,
        key="per image",
        destroys=f"{_MIXED}, and the signs",
        ceiling=0.12,
        bounds=(-1.0, 1.0),
        strength=Strength("pictures that are mixed, this one among them", 6, 2, 32, whole=True),
    ),
    Obfuscation(
        "sign-flips",
        "mixing",
        "Flips the sign of every value around middle grey by one mask for all pictures; in [-1, 1].",
        _INSTAHIDE,
        _sign_flips,
        key="fixed",
        undone_by="pairs",
        reverse=_sign_flips_back,
        bounds=(-1.0, 1.0),
    ),
    Obfuscation(
        "sign-flips-per-image",
        "mixing",
        "Flips the sign of every value around middle grey at random, in every picture anew; magnitudes stay.",
        _INSTAHIDE,
        _sign_flips,
        key="per image",
        undone_by="key",
        leaves="how far values are from middle grey, which shows shapes",
        reverse=_sign_flips_back,
        bounds=(-1.0, 1.0),
    ),
)
