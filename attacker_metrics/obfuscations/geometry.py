"""Geometry: the picture turned, moved or bent."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength

_EDITORS = "image editors and augmentation libraries"
_RESAMPLED = "fine detail, by resampling"
_ORIENTATIONS = (
    ("rotation-90", "Turns the picture by 90 degrees.", 1, False),
    ("rotation-180", "Turns the picture by 180 degrees.", 2, False),
    ("rotation-270", "Turns the picture by 270 degrees.", 3, False),
    ("mirror", "Swaps left and right.", 0, True),
    ("transposition", "Swaps rows and columns.", 1, True),
    ("upside-down", "Swaps top and bottom.", 2, True),
    ("anti-transposition", "Mirrors at the other diagonal.", 3, True),
)


def oriented(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    """Mirror ``(..., H, W)`` if so wished, then turn it by quarters."""
    return torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))


def reoriented(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    """The inverse of :func:`oriented`."""
    turned = torch.rot90(image, -turns, (-2, -1))
    return turned.flip(-1) if mirrored else turned


def _orient(image: Tensor, _key: Key, _strength: float, *, turns: int, mirrored: bool) -> Tensor:
    return oriented(image, turns, mirrored)


def _orient_back(sent: Tensor, _key: Key, _strength: float, *, turns: int, mirrored: bool) -> Tensor:
    return reoriented(sent, turns, mirrored)


def _drawn_orientation(image: Tensor, key: Key) -> tuple[int, bool]:
    index = int(key.integers("orientation", 8, (1,), image))
    return index % 4, index >= 4


def _orient_any(image: Tensor, key: Key, _strength: float) -> Tensor:
    return oriented(image, *_drawn_orientation(image, key))


def _orient_any_back(sent: Tensor, key: Key, _strength: float) -> Tensor:
    return reoriented(sent, *_drawn_orientation(sent, key))


def _shift(image: Tensor, _key: Key, pixels: float) -> Tensor:
    return image.roll((int(pixels), int(pixels)), dims=(1, 2))


def _shift_back(sent: Tensor, key: Key, pixels: float) -> Tensor:
    return _shift(sent, key, -pixels)


def _roll_rows(image: Tensor, key: Key, _strength: float) -> Tensor:
    return _rolled(image, key.integers("shifts", image.shape[2], (image.shape[1],), image))


def _roll_rows_back(sent: Tensor, key: Key, _strength: float) -> Tensor:
    return _rolled(sent, -key.integers("shifts", sent.shape[2], (sent.shape[1],), sent))


def _rolled(image: Tensor, shifts: Tensor) -> Tensor:
    columns = (torch.arange(image.shape[2], device=image.device) - shifts[:, None]).remainder(image.shape[2])
    return image.gather(2, columns.expand(3, -1, -1))


def _coordinates(image: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel's centre in [-1, 1], ``(H, W)`` each."""
    down, across = (
        (2 * torch.arange(side, dtype=image.dtype, device=image.device) + 1) / side - 1 for side in image.shape[1:]
    )
    return down[:, None].expand(image.shape[1:]), across[None].expand(image.shape[1:])


def _sampled(image: Tensor, down: Tensor, across: Tensor, padding: str = "border") -> Tensor:
    grid = torch.stack([across, down], dim=-1)
    return F.grid_sample(image[None], grid[None], padding_mode=padding, align_corners=False)[0].clamp(0.0, 1.0)


def _rotate(image: Tensor, _key: Key, degrees: float) -> Tensor:
    (down, across), angle = _coordinates(image), math.radians(degrees)
    aspect = image.shape[1] / image.shape[2]
    return _sampled(
        image,
        math.cos(angle) * down - math.sin(angle) / aspect * across,
        math.sin(angle) * aspect * down + math.cos(angle) * across,
    )


def _scale(image: Tensor, _key: Key, factor: float) -> Tensor:
    down, across = _coordinates(image)
    return _sampled(image, down / factor, across / factor, "zeros")


def _perspective(image: Tensor, key: Key, amount: float) -> Tensor:
    down, across = _coordinates(image)
    tilt = key.signs("tilt", (2,), image) * (0.3 + 0.2 * key.uniform("amount", (2,), image))
    depth = 1 + amount * (tilt[0] * down + tilt[1] * across)
    zoom = 1 + amount  # so that all of the picture stays in sight
    return _sampled(image, zoom * down / depth, zoom * across / depth, "zeros")


def _swirl(image: Tensor, _key: Key, turn: float) -> Tensor:
    down, across = _coordinates(image)
    angle = turn * (1 - (down.square() + across.square()).sqrt()).clamp(min=0)
    return _sampled(image, angle.cos() * down - angle.sin() * across, angle.sin() * down + angle.cos() * across)


def _warp(image: Tensor, key: Key, amount: float) -> Tensor:
    down, across = _coordinates(image)
    coarse = 2 * key.uniform("field", (1, 2, 5, 5), image) - 1
    field = amount * F.interpolate(coarse, image.shape[1:], mode="bicubic", align_corners=True)[0]
    return _sampled(image, down + field[0], across + field[1])


GEOMETRY = (
    *(
        Obfuscation(
            name,
            "geometry",
            summary,
            _EDITORS,
            functools.partial(_orient, turns=turns, mirrored=mirrored),
            reverse=functools.partial(_orient_back, turns=turns, mirrored=mirrored),
            square=turns % 2 == 1,
        )
        for name, summary, turns, mirrored in _ORIENTATIONS
    ),
    Obfuscation(
        "random-orientation",
        "geometry",
        "Gives every picture one of the eight orientations.",
        _EDITORS,
        _orient_any,
        key="per image",
        reverse=_orient_any_back,
        square=True,
    ),
    Obfuscation(
        "shift",
        "geometry",
        "Moves the picture down and to the right; what leaves comes in at the other side.",
        _EDITORS,
        _shift,
        reverse=_shift_back,
        strength=Strength("pixels", 8, -4096, 4096, whole=True),
    ),
    Obfuscation(
        "row-rolling",
        "geometry",
        "Rolls every row by an amount of its own, the same in all pictures.",
        "line rotation of analogue pay television (cut and rotate, e.g. VideoCrypt)",
        _roll_rows,
        key="fixed",
        undone_by="anyone",
        reverse=_roll_rows_back,
    ),
    Obfuscation(
        "row-rolling-per-image",
        "geometry",
        "Rolls every row of every picture by an amount of its own; neighbouring rows give it away.",
        "line rotation of analogue pay television (cut and rotate, e.g. VideoCrypt)",
        _roll_rows,
        key="per image",
        undone_by="anyone",
        reverse=_roll_rows_back,
    ),
    Obfuscation(
        "small-rotation",
        "geometry",
        "Turns the picture by some degrees.",
        _EDITORS,
        _rotate,
        destroys="the corners, and fine detail by resampling",
        strength=Strength("degrees", 15.0, -180.0, 180.0),
    ),
    Obfuscation(
        "scaling",
        "geometry",
        "Shrinks the picture within a black frame.",
        _EDITORS,
        _scale,
        destroys=_RESAMPLED,
        strength=Strength("factor", 0.75, 0.05, 1.0),
    ),
    Obfuscation(
        "perspective",
        "geometry",
        "Tilts the picture as a sheet of paper, always in the same way.",
        _EDITORS,
        _perspective,
        key="fixed",
        destroys=_RESAMPLED,
        strength=Strength("depth of the tilt", 0.5, 0.0, 0.9),
    ),
    Obfuscation(
        "swirl",
        "geometry",
        "Turns the picture around its middle, most in the middle.",
        "image editors; a suspect's face was restored from it for Interpol in 2007",
        _swirl,
        destroys=_RESAMPLED,
        strength=Strength("radians in the middle", 4.0, -12.0, 12.0),
    ),
    Obfuscation(
        "elastic-warp",
        "geometry",
        "Bends the picture by a smooth random field, the same for all pictures.",
        "Simard, Steinkraus and Platt: Best Practices for Convolutional Neural Networks, ICDAR 2003 (elastic distortions)",
        _warp,
        key="fixed",
        undone_by="pairs",
        destroys="what is squeezed or leaves the frame",
        strength=Strength("greatest displacement in halves of a side", 0.15, 0.0, 0.5),
    ),
)
