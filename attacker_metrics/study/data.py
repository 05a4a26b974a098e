"""The images that classifiers are trained on, and those of them that are attacked."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attacker_metrics._extras import missing_extra
from attacker_metrics.files import built_in
from attacker_metrics.files.images import PICTURE_SUFFIXES, ImageError, read_image, resize
from attacker_metrics.study.config import Config, Data

_GRID = 4
"""Crops along a side of a built-in photograph."""
_SAMPLED = 256
"""How many images of a torchvision data set go into its digest."""


class DataError(ValueError):
    """Images that cannot be used; the message says which, and what to do."""


class TrainingImages(ABC, Dataset[tuple[Tensor, int]]):
    """Numbered images with their classes.

    Attributes:
        names: of the images, unique.
        labels: number of each image's class.
        classes: names of the classes.
    """

    names: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image ``(3, S, S)`` float32 in [0, 1], and the number of its class."""

    @abstractmethod
    def digest(self) -> str:
        """Differs where the images do."""


class Photographs(TrainingImages):
    """Crops of the photographs in the package, next to each other; a crop's class is its photograph.

    Args:
        size: of the crops, at most 256 pixels.

    Raises:
        DataError: if the photographs are smaller than that.
    """

    def __init__(self, size: int) -> None:
        crops: list[Tensor] = []
        names, labels, classes, digest = [], [], built_in.names(), hashlib.sha256(f"{size}".encode())
        for label, name in enumerate(classes):
            digest.update(built_in.content(name))
            photograph = built_in.photograph(name)
            side = min(photograph.shape[-2:])
            if size > side:
                raise DataError(f"data.size is {size}; the built-in photographs have {side} pixels.")
            scaled = resize(photograph, min(_GRID * size, side)).clamp(0, 1)
            for top in range(0, scaled.shape[1] - size + 1, size):
                for left in range(0, scaled.shape[2] - size + 1, size):
                    crops.append(scaled[:, top : top + size, left : left + size].clone())
                    names.append(f"{name}/{top}-{left}")
                    labels.append(label)
        self.names, self.labels, self.classes = names, labels, classes
        self._crops, self._digest = crops, digest.hexdigest()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._crops[index], self.labels[index]

    def digest(self) -> str:
        """Differs where the images do."""
        return self._digest


class ImageFolder(TrainingImages):
    """A folder with a sub-folder of images per class.

    Args:
        folder: where.
        size: images are scaled, and cropped in the middle, to so many pixels square.

    Raises:
        DataError: if there is no such folder, it has fewer than two sub-folders with images, or names that are no text.
    """

    def __init__(self, folder: Path, size: int) -> None:
        if not folder.is_dir():
            raise DataError(f"data.folder: {folder} is not a folder.")
        self._files = [
            path
            for path in sorted(folder.glob("*/**/*"))
            if path.suffix.lower() in PICTURE_SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        self.names = [path.relative_to(folder).as_posix() for path in self._files]
        for name in self.names:
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                raise DataError(f"data.folder: the name {name!r} is no text in UTF-8; rename that file or folder.")
        classes = [name.split("/")[0] for name in self.names]
        self.classes = sorted(set(classes))
        if len(self.classes) < 2:
            raise DataError(
                f"data.folder: {folder} has {len(self.classes)} sub-folders with images; there must be one per class, two at"
                f" least. Images end in {', '.join(PICTURE_SUFFIXES)}."
            )
        self.labels = [self.classes.index(name) for name in classes]
        self._size = size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            return square(read_image(self._files[index]).pixels, self._size), self.labels[index]
        except ImageError as error:
            raise DataError(f"data.folder: {error}") from error

    def digest(self) -> str:
        """Differs where the images do."""
        digest = hashlib.sha256(f"{self._size}".encode())
        for name, file in zip(self.names, self._files, strict=True):
            digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


class TorchvisionImages(TrainingImages):
    """A data set of ``torchvision.datasets`` that lies on the disk; nothing is downloaded.

    Args:
        name: of its class.
        root: the folder that holds it.
        size: images are scaled, and cropped in the middle, to so many pixels square.
        options: further arguments; by default its training split.

    Raises:
        DataError: without such a data set, or if it is not there, saying why.
        ModuleNotFoundError: without torchvision, naming the extra.
    """

    def __init__(self, name: str, root: Path, size: int, options: dict[str, Any]) -> None:
        try:
            from torchvision import datasets
        except ModuleNotFoundError as error:
            raise missing_extra("data.torchvision needs torchvision", "study", error) from error
        if name not in datasets.__all__:
            close = difflib.get_close_matches(name, datasets.__all__, n=1)
            raise DataError(f"data.torchvision: there is no {name!r}" + (f"; did you mean {close[0]!r}?" if close else "."))
        cls = getattr(datasets, name)
        taken = inspect.signature(cls).parameters
        arguments = {"train": True, "split": "train", "download": False}
        arguments = {key: value for key, value in arguments.items() if key in taken} | options
        if arguments.get("download"):
            raise DataError("data.options.download: nothing is downloaded here; put the data set there and leave it out.")
        try:
            self._images = cls(str(root), **arguments)
        except (RuntimeError, OSError, TypeError, ValueError) as error:
            if "split" in arguments and isinstance(error, ValueError) and "for argument split" in str(error):
                raise DataError(
                    f"data.options.split: {name} has no split {arguments['split']!r}; name one by data.options, such as"
                    f" options: {{split: ...}}. {' '.join(str(error).split())}"
                ) from error
            raise DataError(
                f"data.torchvision: {name} cannot be read from {root}: {' '.join(str(error).split())} Nothing is downloaded"
                " here: put it there as torchvision does."
            ) from error
        labels = getattr(self._images, "targets", None)
        labels = getattr(self._images, "labels", None) if labels is None else labels
        try:
            self.labels = [int(label) for label in (labels if labels is not None else (pair[1] for pair in self._images))]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"data.torchvision: the targets of {name} are no numbers of classes.") from error
        classes = getattr(self._images, "classes", None)
        self.classes = [str(label) for label in range(max(self.labels) + 1)] if classes is None else list(map(str, classes))
        self.names = [f"{number:06}" for number in range(len(self.labels))]
        self._size, self._arguments = size, f"{name} {sorted(arguments.items())} {size}"

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import numpy as np

        picture = self._images[index][0]
        if not hasattr(picture, "convert"):
            raise DataError(f"data.torchvision: this data set holds a {type(picture).__name__}, not pictures.")
        image = np.array(picture.convert("RGB"))
        return square(torch.from_numpy(image).permute(2, 0, 1).float() / 255, self._size), self.labels[index]

    def digest(self) -> str:
        """Differs where the images do."""
        digest = hashlib.sha256(f"{self._arguments} {self.labels}".encode())
        for index in range(0, len(self), max(1, len(self) // _SAMPLED)):
            digest.update(self[index][0].numpy().tobytes())
        return digest.hexdigest()


class _Part(TrainingImages):
    """Some of the images."""

    def __init__(self, images: TrainingImages, chosen: Sequence[int]) -> None:
        self.names, self.labels = [images.names[i] for i in chosen], [images.labels[i] for i in chosen]
        self.classes, self._images, self._chosen = images.classes, images, chosen

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._images[self._chosen[index]]

    def digest(self) -> str:
        """Differs where the images do."""
        return hashlib.sha256(f"{self._images.digest()} {list(self._chosen)}".encode()).hexdigest()


def square(pixels: Tensor, size: int) -> Tensor:
    """Scale ``(3, H, W)`` so that the smaller side is ``size`` pixels, and crop the middle, in [0, 1]."""
    if pixels.shape[-2:] != (size, size):
        pixels = resize(pixels, size)
    top, left = (pixels.shape[1] - size) // 2, (pixels.shape[2] - size) // 2
    return pixels[:, top : top + size, left : left + size].clamp(0, 1).contiguous()


def open_images(data: Data, seed: int) -> TrainingImages:
    """The images that a study's file names.

    Raises:
        DataError: if they cannot be used.
        ModuleNotFoundError: if an extra is missing, naming it.
    """
    images: TrainingImages
    if data.folder is not None:
        images = ImageFolder(data.folder, data.size)
    elif data.torchvision is not None and data.root is not None:
        images = TorchvisionImages(data.torchvision, data.root, data.size, data.options)
    else:
        images = Photographs(data.size)
    if data.limit is None or data.limit >= len(images):
        return images
    return _Part(images, _shuffled(len(images), seed)[: data.limit])


def split(images: TrainingImages, config: Config) -> tuple[TrainingImages, TrainingImages, TrainingImages]:
    """Those to train on, those to state the accuracy by, and those of the first kind that are attacked.

    Raises:
        DataError: if there are fewer to train on than are to be attacked.
    """
    order = _shuffled(len(images), config.seed)
    kept = round(config.training.validation * len(images))
    training = order[kept:]
    if len(training) < config.images:
        raise DataError(
            f"images: {config.images} are to be attacked, there are {len(training)} training images (of {len(images)},"
            f" {kept} are kept for validation)."
        )
    return _Part(images, training), _Part(images, order[:kept]), _Part(images, training[: config.images])


def _shuffled(count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order
