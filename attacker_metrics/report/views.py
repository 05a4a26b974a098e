"""What every attacker sees of one pair, as a picture. These are the only functions that store image data."""

from __future__ import annotations

import math

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics.files.drawing import drawn, plain
from attacker_metrics.metrics.attacker_metric import AttackerMetric
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.pairs.sources import LoadedPair
from attacker_metrics.scoring.pair import Pair

_COLUMNS = 4


def views_png(loaded: LoadedPair, privacy: MultiAttackerPrivacy, *, title: str, dots_per_inch: int = 110) -> bytes:
    """Draw a tile per component and variant: the noisy view on the left, the clean one on the right, its score above.

    Args:
        loaded: the pair.
        privacy: the collection whose components are drawn; means and foreign metrics have no view of their own.
        title: what stands above the grid.
        dots_per_inch: resolution.

    Returns:
        A PNG file's bytes.
    """
    pair = Pair(loaded.noisy[None], loaded.clean[None])
    tiles = []
    with torch.inference_mode():
        for name, metric in privacy.items(keep_base=True, copy_state=False):
            if isinstance(metric, AttackerMetric) and len(metric.components) == 1:
                (component,) = metric.components
                variants = [f"  ({variant})" for variant in component.variants] or [""]
                for variant, (noisy, clean) in zip(variants, pair.views(component), strict=True):
                    label = f"{name}  {float(metric.scores(pair)):.3f}{variant}"
                    tiles.append((label, _picture(torch.cat(_stretched(noisy[0], clean[0]), dim=2))))
    height, width = loaded.clean.shape[-2:]
    rows_of_tiles = math.ceil(len(tiles) / _COLUMNS)
    tile_height = 3.6 * height / (2 * width) + 0.35
    figure = Figure(figsize=(3.6 * _COLUMNS, tile_height * rows_of_tiles + 0.6), layout="constrained")
    figure.suptitle(f"{plain(title, 120)}   (left: noisy, right: clean; {height} x {width} pixels)", fontsize=11)
    grid = figure.subplots(rows_of_tiles, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (label, picture) in zip(grid.flat, tiles, strict=False):
        axes.imshow(picture, vmin=0, vmax=1, cmap="gray", interpolation="nearest")
        axes.set_title(plain(label), fontsize=9)
    return drawn(figure, "png", dots_per_inch)


def _stretched(noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Both views as they are if they use [0, 1]; otherwise (raw edge maps) stretched together to be visible."""
    low, high = min(float(noisy.min()), float(clean.min())), max(float(noisy.max()), float(clean.max()))
    if low >= 0 and 0.5 < high <= 1.001:
        return noisy, clean
    return (noisy - low) / max(high - low, 1e-8), (clean - low) / max(high - low, 1e-8)


def _picture(view: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = view.clamp(0, 1).permute(1, 2, 0).cpu().float().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array
