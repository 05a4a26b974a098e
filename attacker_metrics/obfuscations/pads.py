"""Pads and tables that are used again: values changed by a key of their position, or by a table."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength
from attacker_metrics.obfuscations.values import from_bytes, inverse, join, split, to_bytes

_REUSED = "stream ciphers whose key stream is used again (two-time pad)"
_BLOCKWISE = "AprilPyone and Kiya: Block-wise Image Transformation with Secret Key, IEEE TIFS 2021"
_PIXELWISE = "Sirichotedumrong, Kinoshita and Kiya: Pixel-Based Image Encryption without Key Management, IEEE Access 2019"
_STEPS = 2**20
"""The grid on which pads are added modulo 1. Sums of floats would tell by their last bits whether they had wrapped."""


def xor_pad(image: Tensor, key: Key, _strength: float) -> Tensor:
    """Exclusive or of the 8-bit values and a pad; its own inverse."""
    return from_bytes(to_bytes(image) ^ key.integers("pad", 256, tuple(image.shape), image), image)


def modulo_pad(image: Tensor, key: Key, _strength: float) -> Tensor:
    """Add a uniform pad modulo 1, in steps of 2^-20."""
    values = (image * (_STEPS - 1)).round().long()
    return ((values + key.integers("pad", _STEPS, tuple(image.shape), image)) % _STEPS).to(image.dtype) / _STEPS


def modulo_pad_back(sent: Tensor, key: Key, _strength: float) -> Tensor:
    """The inverse of :func:`modulo_pad`."""
    values = (sent * _STEPS).round().long() - key.integers("pad", _STEPS, tuple(sent.shape), sent)
    return (values % _STEPS).to(sent.dtype) / (_STEPS - 1)


def byte_pad(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    """Add an 8-bit pad modulo 256, or take it away."""
    pad = key.integers("pad", 256, tuple(image.shape), image)
    return from_bytes((to_bytes(image) + (-pad if back else pad)) % 256, image)


def _chain(image: Tensor, key: Key, _strength: float) -> Tensor:
    """Every byte is combined with the one sent before: a running exclusive or, by doubling steps."""
    values = (to_bytes(image) ^ key.integers("pad", 256, tuple(image.shape), image)).flatten()
    step = 1
    while step < len(values):
        values = torch.cat([values[:step], values[step:] ^ values[:-step]])
        step *= 2
    return from_bytes(values.view(image.shape), image)


def _chain_back(sent: Tensor, key: Key, _strength: float) -> Tensor:
    values = to_bytes(sent).flatten()
    values = torch.cat([values[:1], values[1:] ^ values[:-1]]).view(sent.shape)
    return from_bytes(values ^ key.integers("pad", 256, tuple(sent.shape), sent), sent)


def _table(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    table = key.permutation("table", 256)
    return from_bytes((inverse(table) if back else table).to(image.device)[to_bytes(image)], image)


def _tables_of_channels(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    tables = [key.permutation(f"table {c}", 256) for c in range(3)]
    tables = [(inverse(table) if back else table).to(image.device) for table in tables]
    return torch.stack([from_bytes(table[to_bytes(plane)], image) for table, plane in zip(tables, image, strict=True)])


def _tables_of_positions(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    """A table per position, as two rounds of a common table and a pad make it."""
    pads = [key.integers(f"pad {n}", 256, tuple(image.shape), image) for n in range(3)]
    tables = [key.permutation(f"table {n}", 256) for n in range(2)]
    values = to_bytes(image)
    if back:
        values = inverse(tables[1]).to(image.device)[values ^ pads[2]]
        values = inverse(tables[0]).to(image.device)[(values - pads[1]) % 256]
        return from_bytes(values ^ pads[0], image)
    values = (tables[0].to(image.device)[values ^ pads[0]] + pads[1]) % 256
    return from_bytes(tables[1].to(image.device)[values] ^ pads[2], image)


def _negate_values(image: Tensor, key: Key, _strength: float) -> Tensor:
    return torch.where(key.signs("signs", tuple(image.shape), image) < 0, 1 - image, image)


def _negate_in_blocks(image: Tensor, key: Key, side: float) -> Tensor:
    blocks = split(image, int(side))
    return join(torch.where(key.signs("signs", (1, *blocks.shape[1:]), image) < 0, 1 - blocks, blocks), *image.shape[1:])


def _pixelwise(image: Tensor, key: Key, strength: float, *, back: bool = False) -> Tensor:
    order = torch.argsort(key.uniform("channels", tuple(image.shape), image.double()), dim=0)
    if back:
        return _negate_values(image.gather(0, order.argsort(dim=0)), key, strength)
    return _negate_values(image, key, strength).gather(0, order)


def _learnable(image: Tensor, key: Key, side: float, *, back: bool = False) -> Tensor:
    """Split the bytes of a block into halves, negate some, shuffle all; every block alike."""
    blocks = to_bytes(split(image, int(side))).flatten(1)
    halves = torch.cat([blocks // 16, blocks % 16], dim=1)
    order = key.permutation("halves", halves.shape[1])
    negated = key.signs("signs", (1, halves.shape[1]), image) < 0
    if back:
        halves = halves[:, inverse(order).to(image.device)]
    halves = torch.where(negated, 15 - halves, halves)
    if not back:
        halves = halves[:, order.to(image.device)]
    high, low = halves.chunk(2, dim=1)
    return join(from_bytes(high * 16 + low, image).view(-1, 3, int(side), int(side)), *image.shape[1:])


def _pattern(image: Tensor, key: Key, amplitude: float) -> Tensor:
    return image + amplitude * (2 * key.uniform("pattern", tuple(image.shape), image) - 1)


def _pattern_back(sent: Tensor, key: Key, amplitude: float) -> Tensor:
    return sent - amplitude * (2 * key.uniform("pattern", tuple(sent.shape), sent) - 1)


def _gains(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    gain = key.signs("sign", tuple(image.shape), image) * (0.1 + 0.9 * key.uniform("gain", tuple(image.shape), image))
    offset = key.uniform("offset", tuple(image.shape), image)
    return (image - offset) / gain if back else gain * image + offset


_BLOCK = Strength("side of a block in pixels", 4, 1, 256, whole=True)
_PADS = (
    ("xor-pad", "Exclusive or with an 8-bit pad, the same for all pictures.", _REUSED, xor_pad, xor_pad),
    ("modulo-pad", "Adds a pad modulo 1, the same for all pictures.", _REUSED, modulo_pad, modulo_pad_back),
    (
        "byte-pad",
        "Adds an 8-bit pad modulo 256, the same for all pictures.",
        _REUSED,
        byte_pad,
        functools.partial(byte_pad, back=True),
    ),
    (
        "xor-chain",
        "Exclusive or with a pad and with the byte sent before (diffusion), the same pad for all pictures.",
        "diffusion stage of image ciphers, as Fridrich: Symmetric Ciphers Based on Two-dimensional Chaotic Maps, 1998",
        _chain,
        _chain_back,
    ),
    (
        "substitution-table",
        "Replaces 8-bit values by a secret table.",
        "simple substitution cipher",
        _table,
        functools.partial(_table, back=True),
    ),
    (
        "substitution-table-per-channel",
        "Replaces 8-bit values by a secret table of each channel.",
        "simple substitution cipher",
        _tables_of_channels,
        functools.partial(_tables_of_channels, back=True),
    ),
    (
        "substitution-table-per-position",
        "Replaces 8-bit values by a secret table of each position, the same for all pictures.",
        "polyalphabetic substitution cipher",
        _tables_of_positions,
        functools.partial(_tables_of_positions, back=True),
    ),
    (
        "pixelwise-negation",
        "Negates values by a mask, the same for all pictures.",
        _PIXELWISE,
        _negate_values,
        _negate_values,
    ),
    (
        "pixelwise-encryption",
        "Negates values and permutes the channels of every pixel, in all pictures alike.",
        _PIXELWISE,
        _pixelwise,
        functools.partial(_pixelwise, back=True),
    ),
    (
        "gain-and-offset",
        "Scales and shifts every value by numbers of its position; not clipped.",
        _REUSED,
        _gains,
        functools.partial(_gains, back=True),
    ),
)

PADS = (
    *(
        Obfuscation(
            name,
            "pads",
            summary,
            source,
            hide,
            key="fixed",
            undone_by="pairs",
            reverse=reverse,
            bounds=(-1.0, 2.0) if name == "gain-and-offset" else (0.0, 1.0),
        )
        for name, summary, source, hide, reverse in _PADS
    ),
    Obfuscation(
        "substitution-table-per-image",
        "pads",
        "Replaces 8-bit values by a secret table of every picture; equal neighbours stay equal.",
        "simple substitution cipher",
        _table,
        key="per image",
        undone_by="key",
        leaves="which values are equal: shapes and their edges",
        reverse=functools.partial(_table, back=True),
    ),
    Obfuscation(
        "pixelwise-encryption-per-image",
        "pads",
        "Negates values and permutes the channels of every pixel, in every picture anew; distances from middle grey stay.",
        _PIXELWISE,
        _pixelwise,
        key="per image",
        undone_by="key",
        leaves="how far values are from middle grey, which shows shapes",
        reverse=functools.partial(_pixelwise, back=True),
    ),
    Obfuscation(
        "block-negation",
        "pads",
        "Negates values by a mask that all blocks share.",
        _BLOCKWISE,
        _negate_in_blocks,
        key="fixed",
        undone_by="pairs",
        reverse=_negate_in_blocks,
        strength=_BLOCK,
        multiple=None,
    ),
    Obfuscation(
        "learnable-encryption",
        "pads",
        "Splits bytes into halves, negates some and shuffles those of a block, in all blocks alike.",
        "Tanaka: Learnable Image Encryption, ICCE-TW 2018",
        _learnable,
        key="fixed",
        undone_by="pairs",
        reverse=functools.partial(_learnable, back=True),
        strength=_BLOCK,
        multiple=None,
    ),
    Obfuscation(
        "fixed-noise",
        "pads",
        "Adds one pattern of noise to all pictures; not clipped.",
        "noise that is drawn once and kept",
        _pattern,
        key="fixed",
        undone_by="pairs",
        reverse=_pattern_back,
        bounds=(-10.0, 11.0),
        strength=Strength("amplitude", 2.0, 0.0, 10.0),
    ),
)
