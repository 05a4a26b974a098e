"""Encryption-then-compression: blocks shuffled, turned, negated and recoloured so that JPEG still works."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from attacker_metrics.attackers.filters import JPEG
from attacker_metrics.obfuscations.geometry import oriented, reoriented
from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength, Transform
from attacker_metrics.obfuscations.values import inverse, join, split

_COLOUR = "Kurihara et al.: An Encryption-then-Compression System for JPEG/Motion JPEG Standard, IEICE Transactions 2015"
_INDEPENDENT = (
    "Imaizumi and Kiya: A Block-Permutation-Based Encryption Scheme with Independent Processing of RGB, IEICE 2018"
)
_GREYSCALE = (
    "Chuman, Sirichotedumrong and Kiya: Encryption-then-Compression Systems Using Grayscale-Based Encryption, TIFS 2019"
)
_QUALITY = 85
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))


def _scrambled(planes: Tensor, key: Key, side: int, label: str, back: bool) -> Tensor:
    """Shuffle, turn and negate the blocks of ``(C, H, W)``; three planes also change places in every block."""
    blocks = split(planes, side)
    count = len(blocks)
    order = key.permutation(f"{label} order", count)
    turns = key.integers(f"{label} turn", 8, (count,), planes)
    negated = key.signs(f"{label} negation", (count, 1, 1, 1), planes) < 0
    if len(planes) == 3:
        colours = torch.tensor(_ORDERS, device=planes.device)[key.integers(f"{label} colours", 6, (count,), planes)]
    else:
        colours = torch.zeros(count, 1, dtype=torch.int64, device=planes.device)
    if back:
        blocks = blocks.gather(1, colours.argsort(dim=1)[..., None, None].expand_as(blocks))
        blocks = _turned(torch.where(negated, 1 - blocks, blocks), turns, back)
        return join(blocks[inverse(order).to(planes.device)], *planes.shape[1:])
    blocks = _turned(blocks[order.to(planes.device)], turns, back)
    blocks = torch.where(negated, 1 - blocks, blocks)
    return join(blocks.gather(1, colours[..., None, None].expand_as(blocks)), *planes.shape[1:])


def _turned(blocks: Tensor, turns: Tensor, back: bool) -> Tensor:
    turned = torch.stack([(reoriented if back else oriented)(blocks, turn % 4, turn >= 4) for turn in range(8)])
    return turned[turns, torch.arange(len(blocks), device=blocks.device)]


def _colour(image: Tensor, key: Key, side: float, *, back: bool = False) -> Tensor:
    return _scrambled(image, key, int(side), "colour", back)


def _independent(image: Tensor, key: Key, side: float, *, back: bool = False) -> Tensor:
    return torch.cat([_scrambled(image[c : c + 1], key, int(side), f"channel {c}", back) for c in range(3)])


def _greyscale(image: Tensor, key: Key, side: float, *, back: bool = False) -> Tensor:
    matrix = torch.tensor(_TO_YCC, dtype=torch.float64)
    level = image.new_tensor([0.0, 0.5, 0.5]).view(3, 1, 1)
    planes = image if back else _mixed(image, matrix) + level
    tall = planes.reshape(1, 3 * image.shape[1], image.shape[2])
    planes = _scrambled(tall, key, int(side), "grey", back).view(image.shape)
    return _mixed(planes - level, torch.linalg.inv(matrix)) if back else planes.clamp(0.0, 1.0)


def _mixed(planes: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("cd,dhw->chw", matrix.to(planes.dtype).to(planes.device), planes)


def _compressed(image: Tensor, key: Key, side: float, *, encrypt: Transform) -> Tensor:
    sent: Tensor = JPEG(_QUALITY)(encrypt(image, key, side)[None])[0]
    return sent


_WIDE = Strength("side of a block in pixels", 16, 1, 256, whole=True)
_NARROW = Strength("side of a block in pixels", 8, 1, 256, whole=True)
_STEPS = "shuffles, turns or mirrors, and negates blocks"

BLOCK_ENCRYPTION = tuple(
    Obfuscation(
        name + ("-per-image" if key == "per image" else "") + ("-jpeg" if jpeg else ""),
        "block encryption",
        f"{summary}, in {'every picture anew' if key == 'per image' else 'all pictures alike'}"
        + (f"; then JPEG of quality {_QUALITY}, every channel as luma." if jpeg else "."),
        source,
        functools.partial(_compressed, encrypt=encrypt) if jpeg else encrypt,
        key=key,
        undone_by="key" if key == "per image" else "pairs",
        reverse=None if jpeg else functools.partial(encrypt, back=True),
        destroys="what JPEG rounds away" if jpeg else "",
        leaves="the blocks, turned and negated" if key == "per image" else "",
        strength=strength,
        multiple=None,
    )
    for name, summary, source, encrypt, strength in (
        ("etc-colour", f"Colour-based: {_STEPS} and permutes their channels", _COLOUR, _colour, _WIDE),
        ("etc-independent", f"By channel: {_STEPS}, of each channel by itself", _INDEPENDENT, _independent, _WIDE),
        (
            "etc-greyscale",
            f"Greyscale-based: {_STEPS} of luma and chroma as one grey picture",
            _GREYSCALE,
            _greyscale,
            _NARROW,
        ),
    )
    for key in ("fixed", "per image")
    for jpeg in (False, True)
)
