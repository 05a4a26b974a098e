"""Annotations and images -> triplets: an original, a recognisable and an unrecognisable reconstruction of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from attacker_metrics.faithfulness.annotations import Annotations
from attacker_metrics.files.images import read_image

_PADDING = 4


@dataclass(frozen=True)
class Original:
    """An original image and its judged reconstructions, as paths below the folder of the images.

    Args:
        name: data set and path, as one name.
        dataset: it belongs to.
        path: of the original.
        recognizable: paths of reconstructions that people recognised.
        unrecognizable: paths of those that they did not.
    """

    name: str
    dataset: str
    path: str
    recognizable: tuple[str, ...]
    unrecognizable: tuple[str, ...]

    @property
    def makes_triplets(self) -> bool:
        """Whether it has reconstructions of both kinds."""
        return bool(self.recognizable and self.unrecognizable)


def originals_of(annotations: Annotations) -> list[Original]:
    """Group reconstructions by original and kind.

    The column ``recognizable`` decides where there is one, rows without a value are left out; the majority of the
    annotators decides otherwise.

    Args:
        annotations: whose ``original`` and ``reconstruction`` are paths.
    """
    labels = annotations.recognized("majority") if annotations.recognizable is None else annotations.recognizable
    kinds: dict[str, tuple[list[str], list[str]]] = {}
    facts = {}
    columns = (annotations.clusters, annotations.dataset, annotations.original, annotations.reconstruction)
    for name, dataset, path, reconstruction, label in zip(
        *(np.asarray(column).tolist() for column in columns), np.asarray(labels).tolist(), strict=True
    ):
        facts[name] = (dataset, path)
        unseen, seen = kinds.setdefault(name, ([], []))
        if label == label:  # not NaN
            (seen if label else unseen).append(reconstruction)
    return [Original(name, *facts[name], tuple(seen), tuple(unseen)) for name, (unseen, seen) in kinds.items()]


class Triplets(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """One triplet per original and epoch: anchor, positive (recognisable), negative (unrecognisable), each ``(3, S, S)``.

    With augmentation the two reconstructions are drawn anew each time, and every image is cropped (after padding by 4
    pixels) and mirrored on its own; without it the first of each kind is taken as it is.

    Args:
        originals: those that make triplets.
        folder: of the images.
        size: side S in pixels; images are resized to it.
        augment: draw, crop and mirror.
    """

    def __init__(self, originals: Sequence[Original], folder: Path, size: int, *, augment: bool) -> None:
        self._originals, self._folder, self._size, self._augment = originals, folder, size, augment
        self._read: dict[str, Tensor] = {}  # 8 bits per value: three kilobytes per image of 32 pixels

    def __len__(self) -> int:
        return len(self._originals)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The triplet of one original."""
        original = self._originals[index]
        positive, negative = (self._chosen(kind) for kind in (original.recognizable, original.unrecognizable))
        anchor, first, second = (self._image(path) for path in (original.path, positive, negative))
        return anchor, first, second

    def _chosen(self, paths: tuple[str, ...]) -> str:
        return paths[int(torch.randint(len(paths), ())) if self._augment else 0]

    def _image(self, path: str) -> Tensor:
        if path not in self._read:
            self._read[path] = (255 * square(self._folder / path, self._size)).round().byte()
        image = self._read[path].float() / 255
        if not self._augment:
            return image
        top, left = torch.randint(2 * _PADDING + 1, (2,)).tolist()
        image = F.pad(image, (_PADDING,) * 4)[:, top : top + self._size, left : left + self._size]
        return image.flip(-1) if torch.rand(()) < 0.5 else image


def square(path: Path, size: int) -> Tensor:
    """Read an image as ``(3, size, size)`` in [0, 1].

    Raises:
        ImageError: if the file cannot be used as an image.
        FileNotFoundError: if there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the annotation table names it, but there is no such file.")
    pixels = read_image(path).pixels.clamp(0, 1)
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels[None], (size, size), mode="bilinear", antialias=True)[0]
    return pixels
