"""Cloaks as a network would learn them, linear and not, with weights that follow from the seed."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength
from attacker_metrics.obfuscations.values import join, split

_ANY = (-math.inf, math.inf)
_BLOCK = 8
_LENGTH = 3 * _BLOCK**2
_ROTATION = "Chen and Liu: Privacy Preserving Data Classification with Rotation Perturbation, ICDM 2005"
_PROJECTION = "Liu, Kargupta and Ryan: Random Projection-Based Multiplicative Data Perturbation, IEEE TKDE 2006"
_NETWORK = "private random networks, as Yala et al.: NeuraCrypt, 2021"


def _convolved(image: Tensor, weight: Tensor) -> Tensor:
    margin = weight.shape[-1] // 2
    return F.conv2d(F.pad(image[None], (margin,) * 4, mode="replicate"), weight)[0]


def _weight(key: Key, label: str, shape: tuple[int, int, int, int], like: Tensor) -> Tensor:
    return key.normal(label, shape, like) / math.sqrt(math.prod(shape[1:]))


def _linear(image: Tensor, key: Key, radius: float) -> Tensor:
    side = 2 * int(radius) + 1
    return _convolved(image, _weight(key, "filter", (3, 3, side, side), image))


def _network(image: Tensor, key: Key, width: float) -> Tensor:
    hidden, count = image - 0.5, int(width)
    for layer, (inside, outside) in enumerate(((3, count), (count, count), (count, 3))):
        hidden = 2 * _convolved(hidden, _weight(key, f"layer {layer}", (outside, inside, 3, 3), image))
        hidden = F.leaky_relu(hidden, 0.2) if layer < 2 else hidden.sigmoid()
    return hidden


def _coupled(image: Tensor, key: Key, rounds: float, *, back: bool = False) -> Tensor:
    """Add to one channel after the other a network of the two others: invertible whatever the network is."""
    planes = list(image)
    for step in reversed(range(int(rounds))) if back else range(int(rounds)):
        target, *others = ((step + k) % 3 for k in range(3))
        inside = torch.stack([planes[other] for other in others]) - 0.5
        inner = torch.tanh(3 * _convolved(inside, _weight(key, f"inner {step}", (8, 2, 3, 3), image)))
        added = _convolved(inner, _weight(key, f"outer {step}", (1, 8, 3, 3), image))[0]
        planes[target] = planes[target] - added if back else planes[target] + added
    return torch.stack(planes)


def _rotation(key: Key, like: Tensor) -> Tensor:
    """A random orthogonal matrix of the values of a block, as a product of reflections."""
    directions = key.normal("reflections", (_LENGTH, _LENGTH), torch.zeros(0, dtype=torch.float64))
    matrix = torch.eye(_LENGTH, dtype=torch.float64)
    for direction in directions / directions.norm(dim=1, keepdim=True):
        matrix = matrix - 2 * torch.outer(direction, direction @ matrix)
    return matrix.to(like.dtype).to(like.device)


def _rotated(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    matrix, blocks = _rotation(key, image), split(image, _BLOCK)
    return join((blocks.flatten(1) @ (matrix if back else matrix.T)).view_as(blocks), *image.shape[1:])


def _projected(image: Tensor, key: Key, kept: float) -> Tensor:
    blocks = split(image, _BLOCK)
    values = blocks.flatten(1) @ _rotation(key, image).T
    values[:, int(kept) :] = 0
    return join(values.view_as(blocks), *image.shape[1:])


def _patch_network(image: Tensor, key: Key, _strength: float) -> Tensor:
    blocks = split(image, _BLOCK)
    hidden = blocks.flatten(1) - 0.5
    for layer in range(2):
        weight = key.normal(f"layer {layer}", (_LENGTH, _LENGTH), image) / math.sqrt(_LENGTH)
        hidden = torch.tanh(3 * hidden @ weight)
    return join(((hidden + 1) / 2).view_as(blocks), *image.shape[1:])


CLOAKS = (
    Obfuscation(
        "linear-cloak",
        "cloaks",
        "Filters by one random filter that mixes the channels.",
        "linear convolution of random weights, the simplest cloak that a network learns",
        _linear,
        key="fixed",
        undone_by="pairs",
        destroys="frequencies at which the filter has no response",
        bounds=_ANY,
        strength=Strength("pixels that the filter reaches to each side", 2, 0, 31, whole=True),
    ),
    Obfuscation(
        "cnn-cloak",
        "cloaks",
        "Passes the picture through three convolutions of random weights.",
        _NETWORK,
        _network,
        key="fixed",
        undone_by="pairs",
        destroys="what the last three channels do not keep",
        strength=Strength("channels inside", 16, 3, 256, whole=True),
    ),
    Obfuscation(
        "invertible-cloak",
        "cloaks",
        "Passes the picture through an invertible network of random weights; not clipped.",
        "additive coupling layers, as Dinh, Krueger and Bengio: NICE, 2014",
        _coupled,
        key="fixed",
        undone_by="pairs",
        reverse=functools.partial(_coupled, back=True),
        bounds=_ANY,
        strength=Strength("coupling layers", 6, 1, 30, whole=True),
    ),
    Obfuscation(
        "patch-rotation",
        "cloaks",
        "Multiplies the values of every block of 8 x 8 by one random orthogonal matrix.",
        _ROTATION,
        _rotated,
        key="fixed",
        undone_by="pairs",
        reverse=functools.partial(_rotated, back=True),
        bounds=(-14.0, 14.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "patch-rotation-per-image",
        "cloaks",
        "Multiplies the values of every block of 8 x 8 by a random orthogonal matrix of the picture; distances stay.",
        _ROTATION,
        _rotated,
        key="per image",
        undone_by="key",
        leaves="norms and distances of blocks",
        reverse=functools.partial(_rotated, back=True),
        bounds=(-14.0, 14.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "patch-projection",
        "cloaks",
        "Keeps some coordinates of every block of 8 x 8 after a random rotation, the others are 0.",
        _PROJECTION,
        _projected,
        key="fixed",
        undone_by="pairs",
        destroys="the other coordinates",
        bounds=(-14.0, 14.0),
        strength=Strength("coordinates kept of 192", 48, 1, _LENGTH, whole=True),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "patch-network",
        "cloaks",
        "Passes every block of 8 x 8 through two dense layers of random weights.",
        _NETWORK,
        _patch_network,
        key="fixed",
        undone_by="pairs",
        destroys="what saturates",
        multiple=_BLOCK,
    ),
)
