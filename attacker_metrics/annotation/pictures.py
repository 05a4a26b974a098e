"""A trial -> the PNG that its annotator sees: decoded and encoded anew, without names, dates or other metadata."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from attacker_metrics.annotation.database import Trial
from attacker_metrics.annotation.tasks import Item, TaskName
from attacker_metrics.evaluation.images import read_image


def judged_png(folder: Path, items: list[Item], task: TaskName, trial: Trial) -> bytes:
    """What is to be judged: the reconstruction, or in a category task's catch trial the original in its size."""
    item = items[trial.item]
    reconstruction = _picture(folder / item.reconstruction)
    if task == "category" and trial.kind == "catch":
        return _png(_as_large_as(reconstruction, _picture(folder / item.original)))
    return _png(reconstruction)


def original_png(folder: Path, items: list[Item], trial: Trial) -> bytes:
    """What a pair task shows beside it: the original, or in a catch trial another one, in the reconstruction's size."""
    shown = items[trial.item if trial.partner is None else trial.partner]
    return _png(_as_large_as(_picture(folder / items[trial.item].reconstruction), _picture(folder / shown.original)))


def _as_large_as(reconstruction: Image.Image, original: Image.Image) -> Image.Image:
    """Neither size nor shape may tell a catch trial; the middle of the original is kept."""
    return ImageOps.fit(original, reconstruction.size, Image.Resampling.LANCZOS)


def _picture(path: Path) -> Image.Image:
    pixels = read_image(path).pixels.nan_to_num().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()
