"""Steps that several families share: 8-bit values, blocks, cosine transforms, and pictures made by rule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key


def to_bytes(image: Tensor) -> Tensor:
    """[0, 1] -> 0..255, int64."""
    return (image * 255).round().long()


def from_bytes(values: Tensor, like: Tensor) -> Tensor:
    """0..255 -> [0, 1], of the dtype of ``like``."""
    return values.to(like.dtype) / 255


def split(image: Tensor, side: int) -> Tensor:
    """``(C, H, W)`` -> blocks ``(N, C, side, side)``, row by row."""
    channels, height, width = image.shape
    blocks = image.reshape(channels, height // side, side, width // side, side)
    return blocks.permute(1, 3, 0, 2, 4).reshape(-1, channels, side, side)


def join(blocks: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`split`."""
    _, channels, side, _ = blocks.shape
    grid = blocks.reshape(height // side, width // side, channels, side, side)
    return grid.permute(2, 0, 3, 1, 4).reshape(channels, height, width)


def inverse(order: Tensor) -> Tensor:
    """The permutation that takes ``order`` back."""
    return torch.argsort(order)


def cosines(length: int, like: Tensor) -> Tensor:
    """The orthonormal cosine transform of ``length`` values, ``(length, length)``."""
    steps = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * (steps + 0.5) * steps[:, None]) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis.to(like.dtype).to(like.device)


def procedural_picture(key: Key, label: str, like: Tensor) -> Tensor:
    """A picture of soft shading and coloured discs, ``(3, H, W)`` in [0, 1], different for every key and label."""
    height, width = like.shape[-2:]
    down = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5)[:, None] / height
    across = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5)[None] / width
    waves, discs = 6, 8
    pace = key.uniform(f"{label} pace", (waves, 2), like) * 6 - 3
    phase = key.uniform(f"{label} phase", (3, waves), like)
    angle = pace[:, 0, None, None] * down + pace[:, 1, None, None] * across
    picture = torch.sin(2 * math.pi * (angle[None] + phase[..., None, None])).mean(dim=1) * 0.5 + 0.5
    place = key.uniform(f"{label} place", (discs, 3), like).tolist()
    colour = key.uniform(f"{label} colour", (discs, 3, 1, 1), like)
    for (top, left, radius), shade in zip(place, colour, strict=True):
        inside = (down - top) ** 2 + (across - left) ** 2 < (0.04 + 0.16 * radius) ** 2
        picture = torch.where(inside, shade, picture)
    return picture
