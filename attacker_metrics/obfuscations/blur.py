"""Blur, pixelation and redaction: detail averaged away or covered."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.attackers.standard import gaussian_taps
from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength

_PRODUCTS = "products that hide faces and number plates in street views and video"
_REDACTION = "redaction in document and video products"
_FINE = "detail finer than the blur, below rounding"
_BLOCKS = "differences within a block"


def _filtered(image: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Filter by rows and columns of odd length; the border is repeated."""
    padded = F.pad(image[None], (len(across) // 2,) * 2 + (len(down) // 2,) * 2, mode="replicate")[0][:, None]
    return F.conv2d(F.conv2d(padded, down.view(1, 1, -1, 1)), across.view(1, 1, 1, -1))[:, 0].clamp(0.0, 1.0)


def _gaussian(image: Tensor, _key: Key, sigma: float) -> Tensor:
    taps = image.new_tensor(gaussian_taps(sigma, math.ceil(3 * sigma)))
    return _filtered(image, taps, taps)


def _box(image: Tensor, _key: Key, radius: float) -> Tensor:
    side = 2 * int(radius) + 1
    taps = image.new_full((side,), 1 / side)
    return _filtered(image, taps, taps)


def _motion(image: Tensor, _key: Key, radius: float) -> Tensor:
    side = 2 * int(radius) + 1
    return _filtered(image, image.new_ones(1), image.new_full((side,), 1 / side))


def _enlarged(means: Tensor, like: Tensor, side: int) -> Tensor:
    large = means.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
    return large[:, : like.shape[1], : like.shape[2]]


def _block_means(image: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(image[None], side, ceil_mode=True)[0]


def _pixelate(image: Tensor, _key: Key, side: float) -> Tensor:
    return _enlarged(_block_means(image, int(side)), image, int(side)).clamp(0.0, 1.0)


def _subsample(image: Tensor, _key: Key, side: float) -> Tensor:
    return _enlarged(image[:, :: int(side), :: int(side)], image, int(side))


def _downscale(image: Tensor, _key: Key, factor: float) -> Tensor:
    size = image.shape[1:]
    small = F.adaptive_avg_pool2d(image[None], (max(1, round(size[0] / factor)), max(1, round(size[1] / factor))))
    return F.interpolate(small, size, mode="bilinear", align_corners=False)[0].clamp(0.0, 1.0)


def _private_pixels(image: Tensor, key: Key, epsilon: float) -> Tensor:
    means = _block_means(image, 16)
    scale = 16 / (16**2 * epsilon)
    return _enlarged(means + scale * key.laplace("noise", tuple(means.shape), image), image, 16).clamp(0.0, 1.0)


def _mosaic(image: Tensor, key: Key, cells: float) -> Tensor:
    height, width = image.shape[1:]
    count = int(cells)
    seeds = key.uniform("seeds", (count, 2), image).double()
    down, across = torch.arange(height, device=image.device) + 0.5, torch.arange(width, device=image.device) + 0.5
    rows = (down.double()[:, None] - seeds[:, 0] * height).square()
    columns = (across.double()[:, None] - seeds[:, 1] * width).square()
    nearest = torch.stack([(row + columns).argmin(dim=1) for row in rows]).flatten()
    sizes = torch.bincount(nearest, minlength=count).clamp(min=1).to(image.dtype)
    sums = image.new_zeros(3, count).index_add_(1, nearest, image.flatten(1))
    return (sums / sizes)[:, nearest].view_as(image).clamp(0.0, 1.0)


def _centre(image: Tensor, share: float) -> Tensor:
    """Where the middle is: a rectangle of that share of both sides."""
    inside = torch.zeros(image.shape[1:], dtype=torch.bool, device=image.device)
    top, left = (round(side * (1 - share) / 2) for side in image.shape[1:])
    inside[top : image.shape[1] - top, left : image.shape[2] - left] = True
    return inside


def _redact_centre(image: Tensor, _key: Key, share: float) -> Tensor:
    return image.masked_fill(_centre(image, share), 0.0)


def _pixelate_centre(image: Tensor, key: Key, share: float) -> Tensor:
    return torch.where(_centre(image, share), _pixelate(image, key, 16), image)


def _mask_blocks(image: Tensor, key: Key, share: float) -> Tensor:
    shape = (1, -(-image.shape[1] // 8), -(-image.shape[2] // 8))
    hidden = _enlarged((key.uniform("blocks", shape, image) < share).to(image.dtype), image, 8)
    return image * (1 - hidden) + 0.5 * hidden


_RADIUS = Strength("pixels to each side", 6, 0, 200, whole=True)
_SIDE = Strength("side of a block in pixels", 12, 1, 256, whole=True)

BLUR = (
    Obfuscation(
        "gaussian-blur",
        "blur",
        "Blurs by a Gaussian.",
        _PRODUCTS,
        _gaussian,
        destroys=_FINE,
        strength=Strength("standard deviation in pixels", 4.0, 0.1, 60.0),
    ),
    Obfuscation("box-blur", "blur", "Averages over a square.", _PRODUCTS, _box, destroys=_FINE, strength=_RADIUS),
    Obfuscation("motion-blur", "blur", "Averages along each row.", _PRODUCTS, _motion, destroys=_FINE, strength=_RADIUS),
    Obfuscation(
        "pixelation",
        "blur",
        "Replaces blocks by their means.",
        _PRODUCTS,
        _pixelate,
        destroys=_BLOCKS,
        strength=_SIDE,
        ceiling=0.78,
    ),
    Obfuscation(
        "subsampling",
        "blur",
        "Replaces blocks by their first pixel.",
        _PRODUCTS,
        _subsample,
        destroys="all but one pixel of a block",
        strength=Strength("side of a block in pixels", 4, 1, 256, whole=True),
    ),
    Obfuscation(
        "downscaling",
        "blur",
        "Shrinks the picture by averaging and enlarges it smoothly.",
        "thumbnails; face data sets of very low resolution",
        _downscale,
        destroys="detail finer than a pixel of the small picture",
        strength=Strength("factor", 8.0, 1.0, 256.0),
    ),
    Obfuscation(
        "private-pixelation",
        "blur",
        "Pixelates by 16 and adds Laplace noise that hides 16 pixels (DP-Pix); clipped.",
        "Fan: Image Pixelization with Differential Privacy, DBSec 2018",
        _private_pixels,
        key="per image",
        destroys="differences within a block, and what the noise covers",
        ceiling=0.16,
        strength=Strength("epsilon of a channel, for pictures that differ in 16 pixels", 0.5, 0.001, 100.0),
    ),
    Obfuscation(
        "mosaic",
        "blur",
        "Replaces the cells around random points by their means.",
        "mosaic filters of image editors",
        _mosaic,
        key="per image",
        destroys="differences within a cell",
        strength=Strength("number of cells", 100, 1, 10_000, whole=True),
    ),
    Obfuscation(
        "centre-redaction",
        "blur",
        "Covers the middle of the picture by a black rectangle.",
        _REDACTION,
        _redact_centre,
        destroys="the middle",
        strength=Strength("share of each side that is covered", 0.6, 0.0, 1.0),
    ),
    Obfuscation(
        "centre-pixelation",
        "blur",
        "Pixelates the middle of the picture, by blocks of 16.",
        _PRODUCTS,
        _pixelate_centre,
        destroys="differences within the blocks of the middle",
        strength=Strength("share of each side that is pixelated", 0.6, 0.0, 1.0),
    ),
    Obfuscation(
        "block-masking",
        "blur",
        "Covers a share of the blocks of 8 x 8 pixels, drawn for every picture, by grey.",
        "the masks of He et al.: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
        _mask_blocks,
        key="per image",
        destroys="the covered blocks",
        ceiling=0.78,
        strength=Strength("share of the blocks", 0.75, 0.0, 1.0),
    ),
)
