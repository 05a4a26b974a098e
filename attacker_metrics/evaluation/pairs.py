"""Folders, or the built-in photographs -> pairs of image tensors, read one by one and batched by size."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import torch
from torch import Tensor

from attacker_metrics.evaluation.images import (
    PICTURE_SUFFIXES,
    TENSOR_SUFFIXES,
    ImageError,
    decode_image,
    read_bytes,
    read_image,
    resize,
)
from attacker_metrics.evaluation.obfuscations import OBFUSCATIONS


@dataclass(frozen=True)
class LoadedPair:
    """One pair in memory.

    Args:
        index: its row in its source.
        noisy: ``(3, H, W)`` float32.
        clean: the same shape.
        noisy_eight_bit: whether the noisy file held 8-bit values.
        read_s: seconds that reading its files took.
        decode_s: seconds that decoding and scaling them took.
        mean: of all draws of a random obfuscation, of which ``noisy`` is the first, or None where there is one draw.
        random_share: how much of the draws' mean squared error varies from draw to draw; 0 for identical draws.
    """

    index: int
    noisy: Tensor
    clean: Tensor
    noisy_eight_bit: bool
    read_s: float = 0.0
    decode_s: float = 0.0
    mean: Tensor | None = None
    random_share: float = math.nan


@dataclass(frozen=True)
class FailedPair:
    """A pair that cannot be scored, and why."""

    index: int
    reason: str


class PairSource(Protocol):
    """What the evaluation reads: numbered rows, each naming a pair, and the images of a row.

    Attributes:
        groups: the group of every pair (the obfuscation, in the demonstration), or None if there are none.
    """

    groups: list[str] | None

    @property
    def unmatched(self) -> Sequence[str]:
        """Files that were left out for want of a partner."""

    def check(self) -> tuple[int, str]:
        """Number of pairs, and a digest by which other pairs are told apart; raises ValueError for unusable sources."""

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows: ``id``, unique, and whatever else is known; cheapest in ascending order."""

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:
        """Read the pair of a row; several threads do so at once."""


class PairingError(ValueError):
    """Two folders that do not pair up; the message lists the files."""


class FolderPairs:
    """Pairs of files with the same relative path, suffixes aside, below two folders.

    Args:
        clean: folder of the originals.
        noisy: folder of the obfuscated or reconstructed images.
        side: if given, both images are scaled so that their smaller side has this many pixels.
        allow_unmatched: leave files without a partner out instead of raising; they are kept in ``unmatched``.

    Raises:
        PairingError: if a folder is missing, two files of a folder share a name, or files have no partner.
    """

    groups: list[str] | None = None

    def __init__(self, clean: Path, noisy: Path, *, side: int | None = None, allow_unmatched: bool = False) -> None:
        cleans, noisies = _images_below(clean), _images_below(noisy)
        lonely = [cleans[key] for key in sorted(cleans.keys() - noisies.keys())]
        lonely += [noisies[key] for key in sorted(noisies.keys() - cleans.keys())]
        if lonely and not allow_unmatched:
            raise PairingError(
                f"{len(lonely)} files have no partner of the same relative path in the other folder:\n"
                + "\n".join(f"  {path}" for path in lonely)
                + "\nAdd the missing files, or pass --allow-unmatched to leave these out."
            )
        self.unmatched = [str(path) for path in lonely]
        self.ids = sorted(cleans.keys() & noisies.keys())
        if not self.ids:
            raise PairingError(
                f"no pairs: {clean} holds {len(cleans)} images and {noisy} holds {len(noisies)}, none with the same"
                f" relative path. Images end in {', '.join((*PICTURE_SUFFIXES, *TENSOR_SUFFIXES))}."
            )
        self._files = {key: (cleans[key], noisies[key]) for key in self.ids}
        self._side = side

    def check(self) -> tuple[int, str]:
        """Number of pairs, and a digest of the files' names."""
        return len(self.ids), _digest(f"{key}{clean.suffix}{noisy.suffix}" for key, (clean, noisy) in self._files.items())

    def rows(self, start: int, stop: int) -> pa.Table:
        """The ids from ``start`` to before ``stop``."""
        return pa.table({"id": pa.array(self.ids[start:stop], pa.string())})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:  # noqa: ARG002
        """Read the two files of a pair."""
        return load_pair_or_failure(*self._files[self.ids[index]], index=index, side=self._side)


class BuiltInPairs:
    """Four photographs that ship with the package under six obfuscations, without any file of the user.

    Args:
        draws: how often every obfuscation is drawn.
    """

    unmatched: tuple[str, ...] = ()

    def __init__(self, draws: int = 1) -> None:
        self._draws = draws
        folder = resources.files(__package__) / "photographs"
        self._photographs = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".jpg"))
        names = [(obfuscation, name) for obfuscation in OBFUSCATIONS for name in self._photographs]
        self.ids = [f"{obfuscation}/{name.removesuffix('.jpg')}" for obfuscation, name in names]
        self.groups: list[str] | None = [obfuscation for obfuscation, _ in names]

    def check(self) -> tuple[int, str]:
        """Number of pairs, and a digest of their names."""
        return len(self.ids), _digest(self.ids)

    def rows(self, start: int, stop: int) -> pa.Table:
        """The ids from ``start`` to before ``stop``, and as their group the photograph."""
        ids = self.ids[start:stop]
        return pa.table({"id": pa.array(ids, pa.string()), "group": [name.split("/")[1] for name in ids]})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair:  # noqa: ARG002
        """Read a photograph and hide it."""
        begin = time.perf_counter()
        obfuscation, photograph = divmod(index, len(self._photographs))
        resource = resources.files(__package__) / "photographs" / self._photographs[photograph]
        with resources.as_file(resource) as path:
            clean = read_image(path).pixels
        obfuscate, generator = list(OBFUSCATIONS.values())[obfuscation], torch.Generator().manual_seed(index)
        draws = [obfuscate(clean, generator) for _ in range(self._draws)]
        mean, share = (None, math.nan) if self._draws == 1 else averaged(draws, clean)
        seconds = time.perf_counter() - begin
        return LoadedPair(index, draws[0], clean, noisy_eight_bit=False, decode_s=seconds, mean=mean, random_share=share)


def load_pair_or_failure(
    clean: Path | str, noisy: Path | str, *, index: int, side: int | None = None
) -> LoadedPair | FailedPair:
    """:func:`load_pair`, with the error as a value."""
    try:
        return load_pair(clean, noisy, index=index, side=side)
    except ImageError as error:
        return FailedPair(index, str(error))


def load_draws(
    clean: Path | str, noisy: Sequence[Path | str], *, index: int, side: int | None = None
) -> LoadedPair | FailedPair:
    """A clean picture with the first of several draws of a random obfuscation and their mean, or the first error."""
    pairs = [load_pair_or_failure(clean, draw, index=index, side=side) for draw in noisy]
    loaded = [pair for pair in pairs if isinstance(pair, LoadedPair)]
    for pair in pairs:
        if isinstance(pair, FailedPair):
            return pair
    mean, share = averaged([pair.noisy for pair in loaded], loaded[0].clean)
    eight_bit = any(pair.noisy_eight_bit for pair in loaded)
    seconds = sum(pair.read_s for pair in loaded), sum(pair.decode_s for pair in loaded)
    return LoadedPair(index, loaded[0].noisy, loaded[0].clean, eight_bit, *seconds, mean, share)


def averaged(draws: Sequence[Tensor], clean: Tensor) -> tuple[Tensor, float]:
    """The mean of two or more draws, and which share of their mean squared error is their variance.

    The variance is the unbiased one: the share is about 1 for independent noise around the picture, however few draws there
    are, and exactly 0 for identical draws, which no mean improves.

    Example:
        >>> clean = torch.full((3, 64, 64), 0.5)
        >>> mean, share = averaged([clean + 0.1 * torch.randn(3, 64, 64) for _ in range(2)], clean)
        >>> 0.9 < share <= 1
        True
        >>> averaged([1 - clean, 1 - clean], clean)[1]
        0.0
    """
    stacked = torch.stack(list(draws))
    mean = stacked.mean(dim=0)
    variance = float((stacked - stacked[0]).double().var(dim=0).mean())  # of differences: identical draws give exactly 0
    error = float((stacked - clean).double().square().mean())
    return mean, min(variance / error, 1.0) if variance else 0.0


def load_pair(clean: Path | str, noisy: Path | str, *, index: int = 0, side: int | None = None) -> LoadedPair:
    """Read two files (paths or URLs) of one size.

    Raises:
        ImageError: if a file cannot be used, or their sizes differ.
    """
    begin = time.perf_counter()
    contents = read_bytes(clean), read_bytes(noisy)
    read = time.perf_counter()
    original, hidden = decode_image(contents[0], clean), decode_image(contents[1], noisy)
    if original.pixels.shape != hidden.pixels.shape:
        sizes = [f"{image.pixels.shape[1]} x {image.pixels.shape[2]}" for image in (original, hidden)]
        raise ImageError(
            f"{clean} has {sizes[0]} pixels (height x width) and {noisy} {sizes[1]}; a pair must have one size."
        )
    images = (hidden.pixels, original.pixels)
    scaled = images if side is None else (resize(images[0], side), resize(images[1], side))
    return LoadedPair(index, *scaled, hidden.eight_bit, read - begin, time.perf_counter() - read)


def batches_of_one_size(pairs: Iterable[LoadedPair], batch_size: int) -> Iterator[list[LoadedPair]]:
    """Gather pairs of equal size into batches; at most eight batches' worth of pairs wait at any time."""
    waiting: dict[torch.Size, list[LoadedPair]] = defaultdict(list)
    for pair in pairs:
        waiting[pair.clean.shape].append(pair)
        if len(waiting[pair.clean.shape]) == batch_size:
            yield waiting.pop(pair.clean.shape)
        elif sum(map(len, waiting.values())) >= 8 * batch_size:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        digest.update(f"{name}\0".encode())
    return digest.hexdigest()


def _images_below(folder: Path) -> dict[str, Path]:
    """Relative path without suffix -> file, for every image below a folder, hidden files aside."""
    if not folder.is_dir():
        raise PairingError(f"{folder} is not a folder.")
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in PICTURE_SUFFIXES + TENSOR_SUFFIXES:
                continue
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                raise PairingError(f"{found[key]} and {path} have the same name but for the suffix; keep one of them.")
            found[key] = path
    return found
