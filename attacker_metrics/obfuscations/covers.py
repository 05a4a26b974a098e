"""Bit planes and covers: the picture in the low bits of another one, or faintly on top of it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength
from attacker_metrics.obfuscations.values import from_bytes, inverse, procedural_picture, to_bytes

_LOW_BITS = "steganography in the least significant bits, as Johnson and Jajodia: Exploring Steganography, Computer 1998"
_BLEND = "overlays of image editors and video products"
_BITS = "bit-plane scrambling of image ciphers"


def _low_bits(image: Tensor, key: Key, bits: float) -> Tensor:
    cover = to_bytes(procedural_picture(key, "cover", image))
    kept = 2 ** int(bits)
    return from_bytes(cover - cover % kept + to_bytes(image) // (256 // kept), image)


def _blend(image: Tensor, key: Key, share: float) -> Tensor:
    return (1 - share) * procedural_picture(key, "cover", image) + share * image


def _blend_back(sent: Tensor, key: Key, share: float) -> Tensor:
    return (sent - (1 - share) * procedural_picture(key, "cover", sent)) / share


def _only_low(image: Tensor, _key: Key, bits: float) -> Tensor:
    kept: int = 2 ** int(bits)
    return (to_bytes(image) % kept).to(image.dtype) / (kept - 1)


def _reorder_bits(image: Tensor, order: Tensor) -> Tensor:
    places = torch.arange(8, device=image.device).view(8, 1, 1, 1)
    planes = (to_bytes(image) >> places) & 1
    moved: Tensor = planes[order.to(image.device)] << places
    return from_bytes(moved.sum(dim=0), image)


def _reverse_bits(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return _reorder_bits(image, torch.arange(7, -1, -1))


def _shuffle_bits(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    order = key.permutation("bits", 8)
    return _reorder_bits(image, inverse(order) if back else order)


def _gray_code(image: Tensor, _key: Key, _strength: float) -> Tensor:
    values = to_bytes(image)
    return from_bytes(values ^ (values >> 1), image)


def _gray_code_back(sent: Tensor, _key: Key, _strength: float) -> Tensor:
    values = to_bytes(sent)
    for step in (1, 2, 4):
        values = values ^ (values >> step)
    return from_bytes(values, sent)


_COUNT = Strength("how many low bits", 2, 1, 7, whole=True)

COVERS = (
    Obfuscation(
        "low-bits-of-cover",
        "covers",
        "Puts the picture's high bits into the low bits of a cover, the same for all pictures.",
        _LOW_BITS,
        _low_bits,
        key="fixed",
        destroys="the picture's low bits",
        strength=_COUNT,
    ),
    Obfuscation(
        "low-bits-of-cover-per-image",
        "covers",
        "Puts the picture's high bits into the low bits of a cover of its own.",
        _LOW_BITS,
        _low_bits,
        key="per image",
        destroys="the picture's low bits",
        strength=_COUNT,
        ceiling=0.71,
    ),
    Obfuscation(
        "faint-on-cover",
        "covers",
        "Blends the picture faintly into a cover, the same for all pictures.",
        _BLEND,
        _blend,
        key="fixed",
        undone_by="pairs",
        reverse=_blend_back,
        strength=Strength("share of the picture", 0.02, 0.001, 1.0),
    ),
    Obfuscation(
        "alpha-blend",
        "covers",
        "Blends every picture with a cover of its own.",
        _BLEND,
        _blend,
        key="per image",
        destroys="what the cover hides, unless it is known",
        reverse=_blend_back,
        strength=Strength("share of the picture", 0.4, 0.001, 1.0),
    ),
    Obfuscation(
        "low-bits-only",
        "covers",
        "Keeps the low bits of the 8-bit values, stretched.",
        _BITS,
        _only_low,
        destroys="the high bits, which unwrapping finds where the picture is smooth",
        strength=Strength("how many low bits", 5, 1, 8, whole=True),
    ),
    Obfuscation(
        "bit-reversal",
        "covers",
        "Reverses the order of the bits of every 8-bit value.",
        _BITS,
        _reverse_bits,
        reverse=_reverse_bits,
    ),
    Obfuscation(
        "bit-plane-shuffle",
        "covers",
        "Shuffles the bit planes, in all pictures alike.",
        _BITS,
        _shuffle_bits,
        key="fixed",
        reverse=functools.partial(_shuffle_bits, back=True),
    ),
    Obfuscation(
        "gray-code",
        "covers",
        "Writes every 8-bit value as its Gray code.",
        "Gray: Pulse Code Communication, US patent 2632058, 1953",
        _gray_code,
        reverse=_gray_code_back,
    ),
)
