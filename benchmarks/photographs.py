"""Photographs that come with scikit-image, scikit-learn and matplotlib, and crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import skimage.data
import skimage.io
import sklearn.datasets
import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def photograph(name: str) -> Tensor:
    """``(3, H, W)`` in [0, 1]; a grey one in three equal channels."""
    if name == "grace_hopper.jpg":
        pixels = skimage.io.imread(Path(mpl.get_data_path()) / "sample_data" / name)
    elif name.endswith(".jpg"):
        pixels = sklearn.datasets.load_sample_image(name)
    else:
        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    picture = torch.from_numpy(np.array(pixels)).float() / 255
    return picture[None].repeat(3, 1, 1) if picture.ndim == 2 else picture.permute(2, 0, 1).contiguous()


def squares(
    names: Sequence[str], count: int, side: int, seed: int, *, least_contrast: float = 0.05
) -> tuple[Tensor, list[str]]:
    """Random squares of photographs that take turns, shrunk to one side, half of them mirrored, in 8 bits.

    Args:
        names: of the photographs.
        count: how many squares.
        side: of the result, and the least side of a square.
        seed: of everything random.
        least_contrast: standard deviation of all values; flatter squares are drawn again.

    Returns:
        ``(count, 3, side, side)``, and of which photograph each is.
    """
    generator = torch.Generator().manual_seed(seed)
    made: list[Tensor] = []
    while len(made) < count:
        picture = photograph(names[len(made) % len(names)])
        most = min(picture.shape[1:])
        cut = int(torch.randint(min(side, most), most + 1, (), generator=generator))
        top, left = (int(torch.randint(0, size - cut + 1, (), generator=generator)) for size in picture.shape[1:])
        crop = picture[None, :, top : top + cut, left : left + cut]
        crop = F.interpolate(crop, (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)
        crop = crop.flip(-1) if torch.rand((), generator=generator) < 0.5 else crop
        if float(crop.std()) >= least_contrast:
            made.append(crop)
    return (torch.stack(made) * 255).round() / 255, [names[i % len(names)] for i in range(count)]
