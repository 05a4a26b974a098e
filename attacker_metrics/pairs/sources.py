"""Two files, or the built-in photographs -> pairs of image tensors, read one by one and batched by size."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from attacker_metrics.files import built_in
from attacker_metrics.files.decoding import DEFAULT, Decoding
from attacker_metrics.files.images import ImageError, decode_image, read_bytes, resize
from attacker_metrics.pairs.conventions import Note, notes_on
from attacker_metrics.pairs.demonstration import OBFUSCATIONS
from attacker_metrics.reading.strongest.content import Shared


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
        notes: what a reader of the score must know about the files.
        shared: what the clean image has in common with that of the noisy one, where it is another's.
    """

    index: int
    noisy: Tensor
    clean: Tensor
    noisy_eight_bit: bool
    read_s: float = 0.0
    decode_s: float = 0.0
    mean: Tensor | None = None
    random_share: float = math.nan
    notes: tuple[Note, ...] = ()
    shared: Shared | None = None


@dataclass(frozen=True)
class FailedPair:
    """A pair that cannot be scored, and why: text that can be stored, whatever the names of the files."""

    index: int
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", printable(self.reason))


Unused = Mapping[str, Mapping[str, Any]]


class PairSource(Protocol):
    """What the evaluation reads: numbered rows, each naming a pair, and the images of a row.

    Attributes:
        groups: the group of every pair (the obfuscation, in the demonstration), or None if there are none.
    """

    groups: list[str] | None

    @property
    def unused(self) -> Unused:
        """What lies beside the images and is none, by kind: how many, and the names of a few."""

    @property
    def unmatched(self) -> Sequence[str]:
        """Files that were left out for want of a partner."""

    def check(self) -> tuple[int, str]:
        """Number of pairs, and a digest by which other pairs are told apart; raises ValueError for unusable sources."""

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows: ``id``, unique, and whatever else is known; cheapest in ascending order."""

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:
        """Read the pair of a row; several threads do so at once."""


class BuiltInPairs:
    """Four photographs that ship with the package under six obfuscations, without any file of the user.

    Args:
        draws: how often every obfuscation is drawn.
    """

    unmatched: tuple[str, ...] = ()
    unused: Unused = MappingProxyType({})

    def __init__(self, draws: int = 1) -> None:
        self._draws = draws
        self._photographs = built_in.names()
        pairs = [(obfuscation, name) for obfuscation in OBFUSCATIONS for name in self._photographs]
        self.ids = [f"{obfuscation}/{name}" for obfuscation, name in pairs]
        self.groups: list[str] | None = [obfuscation for obfuscation, _ in pairs]

    def check(self) -> tuple[int, str]:
        """Number of pairs, and a digest of their names."""
        return len(self.ids), digest_of(self.ids)

    def rows(self, start: int, stop: int) -> pa.Table:
        """The ids from ``start`` to before ``stop``, and as their group the photograph."""
        ids = self.ids[start:stop]
        return pa.table({"id": pa.array(ids, pa.string()), "group": [name.split("/")[1] for name in ids]})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair:  # noqa: ARG002
        """Read a photograph and hide it."""
        begin = time.perf_counter()
        obfuscation, name = divmod(index, len(self._photographs))
        clean = built_in.photograph(self._photographs[name])
        obfuscate, generator = list(OBFUSCATIONS.values())[obfuscation], torch.Generator().manual_seed(index)
        draws = [obfuscate(clean, generator) for _ in range(self._draws)]
        mean, share = (None, math.nan) if self._draws == 1 else averaged(draws, clean)
        seconds = time.perf_counter() - begin
        return LoadedPair(index, draws[0], clean, noisy_eight_bit=False, decode_s=seconds, mean=mean, random_share=share)


def load_pair_or_failure(
    clean: Path | str, noisy: Path | str, *, index: int, side: int | None = None, decoding: Decoding = DEFAULT
) -> LoadedPair | FailedPair:
    """:func:`load_pair`, with the error as a value."""
    try:
        return load_pair(clean, noisy, index=index, side=side, decoding=decoding)
    except ImageError as error:
        return FailedPair(index, str(error))


def load_draws(
    clean: Path | str,
    noisy: Sequence[Path | str],
    *,
    index: int,
    side: int | None = None,
    decoding: Decoding = DEFAULT,
) -> LoadedPair | FailedPair:
    """A clean picture with the first of several draws of a random obfuscation and their mean, or the first error."""
    pairs = [load_pair_or_failure(clean, draw, index=index, side=side, decoding=decoding) for draw in noisy]
    loaded = [pair for pair in pairs if isinstance(pair, LoadedPair)]
    for pair in pairs:
        if isinstance(pair, FailedPair):
            return pair
    mean, share = averaged([pair.noisy for pair in loaded], loaded[0].clean)
    eight_bit = any(pair.noisy_eight_bit for pair in loaded)
    seconds = sum(pair.read_s for pair in loaded), sum(pair.decode_s for pair in loaded)
    notes = tuple(dict.fromkeys(note for pair in loaded for note in pair.notes))
    return LoadedPair(index, loaded[0].noisy, loaded[0].clean, eight_bit, *seconds, mean, share, notes)


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


def load_pair(
    clean: Path | str, noisy: Path | str, *, index: int = 0, side: int | None = None, decoding: Decoding = DEFAULT
) -> LoadedPair:
    """Read two files (paths or URLs) of one size and orientation.

    Raises:
        ImageError: if a file cannot be used, their sizes differ, one alone has an EXIF orientation (see
            :class:`~attacker_metrics.files.decoding.Decoding`), or the clean image leaves [0, 1] by more than 1e-3.
    """
    begin = time.perf_counter()
    contents = read_bytes(clean, decoding), read_bytes(noisy, decoding)
    read = time.perf_counter()
    original, hidden = decode_image(contents[0], clean, decoding), decode_image(contents[1], noisy, decoding)
    notes = notes_on(original, hidden, (clean, noisy), decoding)
    images = (hidden.pixels, original.pixels)
    scaled = images if side is None else (resize(images[0], side), resize(images[1], side))
    return LoadedPair(index, *scaled, hidden.eight_bit, read - begin, time.perf_counter() - read, notes=notes)


def digest_of(names: Iterable[str]) -> str:
    """Tells other names, or another order, apart."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        digest.update(f"{name}\0".encode())
    return digest.hexdigest()


def printable(name: object) -> str:
    r"""A name as text that can be stored: bytes that are no UTF-8, which file names may hold, are spelled out.

    Example:
        >>> printable(b"caf\xe9.png".decode("utf-8", "surrogateescape"))
        'caf\\xe9.png'
    """
    text = str(name)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as Windows allows
        return text.encode("utf-8", "backslashreplace").decode()
