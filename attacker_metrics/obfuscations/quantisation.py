"""Quantisation: few levels, dithered or not, and strong compression."""

from __future__ import annotations

import torch
from torch import Tensor

from attacker_metrics.attackers.filters import JPEG
from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength

_BAYER = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))
_LOST = "levels between black and white; means of neighbours stay"


def _threshold(image: Tensor, _key: Key, threshold: float) -> Tensor:
    return (image > threshold).to(image.dtype)


def _ordered(image: Tensor, _key: Key, _strength: float) -> Tensor:
    height, width = image.shape[1:]
    tile = (image.new_tensor(_BAYER) + 0.5) / 16
    return (image > tile.repeat(-(-height // 4), -(-width // 4))[:height, :width]).to(image.dtype)


def _random(image: Tensor, key: Key, _strength: float) -> Tensor:
    return (image > key.uniform("thresholds", tuple(image.shape), image)).to(image.dtype)


def _diffused(image: Tensor, _key: Key, _strength: float) -> Tensor:
    """Floyd and Steinberg's, along diagonals: pixels of one value of 2 row + column do not depend on each other."""
    values = image.double().cpu()
    height, width = image.shape[1:]
    padded = torch.zeros(3, height + 1, width + 2, dtype=torch.float64)
    padded[:, :height, 1:-1] = values
    sent = torch.zeros_like(values)
    for diagonal in range(2 * (height - 1) + width):
        rows = torch.arange(max(0, -(-(diagonal - width + 1) // 2)), min(height - 1, diagonal // 2) + 1)
        columns = diagonal - 2 * rows
        here = padded[:, rows, columns + 1]
        sent[:, rows, columns] = (here > 0.5).double()
        error = here - sent[:, rows, columns]
        padded[:, rows, columns + 2] += error * (7 / 16)
        padded[:, rows + 1, columns] += error * (3 / 16)
        padded[:, rows + 1, columns + 1] += error * (5 / 16)
        padded[:, rows + 1, columns + 2] += error * (1 / 16)
    return sent.to(image.dtype).to(image.device)


def _palette(image: Tensor, _key: Key, _strength: float) -> Tensor:
    levels = image.new_tensor([8.0, 8.0, 4.0]).view(3, 1, 1)
    return torch.minimum((image * levels).floor(), levels - 1) / (levels - 1)


def _jpeg(image: Tensor, _key: Key, quality: float) -> Tensor:
    sent: Tensor = JPEG(int(quality))(image[None])[0]
    return sent


QUANTISATION = (
    Obfuscation(
        "threshold",
        "quantisation",
        "Makes every value black or white.",
        "binarisation of scanners and fax machines",
        _threshold,
        destroys="all but one bit of a value",
        strength=Strength("threshold", 0.5, 0.0, 1.0),
    ),
    Obfuscation(
        "ordered-dither",
        "quantisation",
        "Makes every value black or white by thresholds of a 4 x 4 pattern.",
        "Bayer: An Optimum Method for Two-level Rendition of Continuous-tone Pictures, ICC 1973",
        _ordered,
        destroys=_LOST,
    ),
    Obfuscation(
        "random-dither",
        "quantisation",
        "Makes every value black or white by random thresholds, drawn for every picture.",
        "Roberts: Picture Coding Using Pseudo-random Noise, IRE Transactions on Information Theory 1962",
        _random,
        key="per image",
        destroys=_LOST,
    ),
    Obfuscation(
        "error-diffusion",
        "quantisation",
        "Makes every value black or white and hands the error to the neighbours.",
        "Floyd and Steinberg: An Adaptive Algorithm for Spatial Greyscale, 1976",
        _diffused,
        destroys=_LOST,
    ),
    Obfuscation(
        "palette",
        "quantisation",
        "Leaves 8 levels of red and green and 4 of blue.",
        "8-bit displays (RGB 3-3-2)",
        _palette,
        destroys="differences within a level",
    ),
    Obfuscation(
        "jpeg",
        "quantisation",
        "Compresses by JPEG of low quality, every channel as luma.",
        "ITU-T T.81: Digital Compression and Coding of Continuous-tone Still Images, 1992",
        _jpeg,
        destroys="small cosine coefficients",
        strength=Strength("quality", 5, 1, 100, whole=True),
    ),
)
