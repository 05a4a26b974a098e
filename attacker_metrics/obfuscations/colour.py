"""Colour: the three values of a pixel mixed with each other."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from attacker_metrics.attackers.standard import luma
from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength

_EDITORS = "image editors and augmentation libraries"
_ORDERS = tuple(itertools.permutations(range(3)))[1:]


def _order(image: Tensor, key: Key) -> Tensor:
    return torch.tensor(_ORDERS[int(key.integers("order", len(_ORDERS), (1,), image))], device=image.device)


def _swap(image: Tensor, key: Key, _strength: float) -> Tensor:
    return image[_order(image, key)]


def _swap_back(sent: Tensor, key: Key, _strength: float) -> Tensor:
    return sent[torch.argsort(_order(sent, key))]


def _rotate(image: Tensor, _key: Key, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    rest = image - image.mean(dim=0)
    side = (image.roll(1, dims=0) - image.roll(-1, dims=0)) / math.sqrt(3)
    return image.mean(dim=0) + math.cos(angle) * rest + math.sin(angle) * side


def _rotate_back(sent: Tensor, key: Key, degrees: float) -> Tensor:
    return _rotate(sent, key, -degrees)


def _grey(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return luma(image[None])[0].clamp(0.0, 1.0).expand_as(image).contiguous()


def _matrix(image: Tensor, key: Key, mixing: float) -> Tensor:
    """Rows of positive weights that sum to 1, diagonally dominant in a secret order: always invertible."""
    weights = key.uniform("weights", (3, 3), image) + 0.1
    weights = mixing * weights / weights.sum(dim=1, keepdim=True)
    return weights + (1 - mixing) * torch.eye(3, dtype=image.dtype, device=image.device)[_order(image, key)]


def _mix(image: Tensor, key: Key, mixing: float) -> Tensor:
    return torch.einsum("cd,dhw->chw", _matrix(image, key, mixing), image).clamp(0.0, 1.0)


def _mix_back(sent: Tensor, key: Key, mixing: float) -> Tensor:
    return torch.einsum("cd,dhw->chw", torch.linalg.inv(_matrix(sent, key, mixing)), sent)


def _without_brightness(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return image - luma(image[None])[0] + 0.5


def _one_channel(image: Tensor, _key: Key, channel: float) -> Tensor:
    return image[int(channel)].expand_as(image).contiguous()


COLOUR = (
    Obfuscation(
        "channel-permutation",
        "colour",
        "Gives the colour channels another order.",
        _EDITORS,
        _swap,
        key="fixed",
        reverse=_swap_back,
    ),
    Obfuscation(
        "hue-rotation",
        "colour",
        "Turns the colours around the grey axis; not clipped.",
        _EDITORS,
        _rotate,
        reverse=_rotate_back,
        bounds=(-1 / 3, 4 / 3),
        strength=Strength("degrees", 120.0, -180.0, 180.0),
    ),
    Obfuscation(
        "colour-matrix",
        "colour",
        "Mixes the channels of every pixel by a secret matrix.",
        _EDITORS,
        _mix,
        key="fixed",
        reverse=_mix_back,
        strength=Strength("share that is mixed", 0.4, 0.0, 0.45),
    ),
    Obfuscation("greyscale", "colour", "Keeps the brightness only.", _EDITORS, _grey, destroys="the colours"),
    Obfuscation(
        "brightness-removed",
        "colour",
        "Keeps the colours at one brightness; not clipped.",
        "chromaticity coordinates of colour constancy, as in image editors",
        _without_brightness,
        destroys="the brightness",
        ceiling=0.73,
        bounds=(-0.5, 1.5),
    ),
    Obfuscation(
        "single-channel",
        "colour",
        "Keeps one channel in the place of all three.",
        _EDITORS,
        _one_channel,
        destroys="the two other channels",
        strength=Strength("which channel: 0 red, 1 green, 2 blue", 2, 0, 2, whole=True),
    ),
)
