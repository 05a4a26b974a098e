"""A trial -> the PNG that its annotator sees: decoded and encoded anew, without names, dates or other metadata."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from attacker_metrics.annotation.database import Trial
from attacker_metrics.annotation.tasks import Item, TaskName, digest
from attacker_metrics.files.images import ImageError, decode_image, read_bytes


def judged_png(folder: Path, items: list[Item], task: TaskName, trial: Trial) -> bytes:
    """What is to be judged: the reconstruction, or in a category task's catch trial the original in its size."""
    item = items[trial.item]
    reconstruction = _reconstruction(folder, item)
    if task == "category" and trial.kind == "catch":
        return _png(_as_large_as(reconstruction, _original(folder, item)))
    return _png(reconstruction)


def original_png(folder: Path, items: list[Item], trial: Trial) -> bytes:
    """What a pair task shows beside it: the original, or in a catch trial another one, in the reconstruction's size."""
    shown = items[trial.item if trial.partner is None else trial.partner]
    return _png(_as_large_as(_reconstruction(folder, items[trial.item]), _original(folder, shown)))


def _original(folder: Path, item: Item) -> Image.Image:
    return _picture(folder / item.original, item.pictures[0])


def _reconstruction(folder: Path, item: Item) -> Image.Image:
    return _picture(folder / item.reconstruction, item.pictures[1])


def _as_large_as(reconstruction: Image.Image, original: Image.Image) -> Image.Image:
    """Neither size nor shape may tell a catch trial; the middle of the original is kept."""
    return ImageOps.fit(original, reconstruction.size, Image.Resampling.LANCZOS)


def _picture(path: Path, known_as: str) -> Image.Image:
    content = read_bytes(path)
    if digest(content) != known_as:  # an attack that ran again while people vote; nobody could tell who saw which
        raise ImageError(f"{path} is another picture than at the start of the study; restore it, or begin a new study.")
    pixels = decode_image(content, path).pixels.nan_to_num().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()
