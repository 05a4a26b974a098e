"""Two folders -> the pairs of their files, and what of them is not used and why."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from attacker_metrics.files.decoding import DEFAULT, Decoding
from attacker_metrics.files.images import PICTURE_SUFFIXES, TENSOR_SUFFIXES
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, digest_of, load_pair_or_failure, printable

_SUFFIXES = PICTURE_SUFFIXES + TENSOR_SUFFIXES
_NAMED = 3
"""How many unused files of a kind are named."""
_MOST_LISTED = 100
_NOISY_NAMES = ("noisy", "noised", "obfuscated", "protected", "hidden", "cloaked", "reconstructed", "reconstructions")
_CLEAN_NAMES = ("clean", "original", "originals")


class PairingError(ValueError):
    """Two folders that do not pair up; the message lists the files."""


class FolderPairs:
    """Pairs of files with the same relative path, suffixes aside, below two folders; links to folders are followed.

    Args:
        clean: folder of the originals.
        noisy: folder of the obfuscated or reconstructed images.
        side: if given, both images are scaled so that their smaller side has this many pixels.
        allow_unmatched: leave files without a partner out instead of raising; they are kept in ``unmatched``.
        decoding: how files are read.

    Attributes:
        unused: what below either folder is no image, by kind: how many, and the names of a few.

    Raises:
        PairingError: if a folder is missing or cannot be read, two files of a folder share a name, or files have no partner.
    """

    groups: list[str] | None = None

    def __init__(
        self,
        clean: Path,
        noisy: Path,
        *,
        side: int | None = None,
        allow_unmatched: bool = False,
        decoding: Decoding = DEFAULT,
    ) -> None:
        self._side, self._reading = side, decoding
        unused: dict[str, list[Path]] = defaultdict(list)
        cleans, noisies = _images_below(clean, unused), _images_below(noisy, unused)
        self.unused = {
            kind: {"count": len(paths), "such_as": [printable(path) for path in sorted(paths)[:_NAMED]]}
            for kind, paths in sorted(unused.items())
        }
        lonely = [cleans[key] for key in sorted(cleans.keys() - noisies.keys())]
        lonely += [noisies[key] for key in sorted(noisies.keys() - cleans.keys())]
        if lonely and not allow_unmatched:
            raise PairingError(
                f"{len(lonely)} files have no partner of the same relative path in the other folder:\n"
                + "\n".join(f"  {printable(path)}" for path in lonely[:_MOST_LISTED])
                + (f"\n  ... and {len(lonely) - _MOST_LISTED} more" if len(lonely) > _MOST_LISTED else "")
                + "\nAdd the missing files, or pass --allow-unmatched to leave these out."
            )
        self.unmatched = [printable(path) for path in lonely]
        keys = sorted(cleans.keys() & noisies.keys())
        if not keys:
            others = "".join(f" {found['count']} {kind} are not used." for kind, found in self.unused.items())
            raise PairingError(
                f"no pairs: {clean} holds {len(cleans)} images and {noisy} holds {len(noisies)}, none with the same"
                f" relative path. Images end in {', '.join(_SUFFIXES)}.{others}"
            )
        self.ids = [printable(key) for key in keys]
        if len(set(self.ids)) < len(keys):
            raise PairingError("two files have names that are alike but for bytes that are no UTF-8; rename one of them.")
        self._files = [(cleans[key], noisies[key]) for key in keys]
        if clean.name.lower() in _NOISY_NAMES and noisy.name.lower() in _CLEAN_NAMES:
            raise PairingError(
                f"--clean is {clean} and --noisy is {noisy}: these seem to be swapped. Rename the folders if they are not."
            )

    def check(self) -> tuple[int, str]:
        """Number of pairs, and a digest of the files' names."""
        names = (f"{key}{clean.suffix}{noisy.suffix}" for key, (clean, noisy) in zip(self.ids, self._files, strict=True))
        return len(self.ids), digest_of(names)

    def files(self) -> Iterator[Path]:
        """Every file that is read."""
        return itertools.chain.from_iterable(self._files)

    def rows(self, start: int, stop: int) -> pa.Table:
        """The ids from ``start`` to before ``stop``."""
        return pa.table({"id": pa.array(self.ids[start:stop], pa.string())})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:  # noqa: ARG002
        """Read the two files of a pair."""
        return load_pair_or_failure(*self._files[index], index=index, side=self._side, decoding=self._reading)


def _images_below(folder: Path, unused: dict[str, list[Path]]) -> dict[str, Path]:
    """Relative path without suffix -> file, for every image below a folder; whatever else there is goes to ``unused``."""
    if not folder.is_dir():
        raise PairingError(f"{folder} is not a folder.")
    found: dict[str, Path] = {}
    try:
        _walk(folder, folder, (), found, unused)
    except OSError as error:
        raise PairingError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error
    return found


def _walk(
    top: Path, folder: Path, above: tuple[tuple[int, int], ...], found: dict[str, Path], unused: dict[str, list[Path]]
) -> None:
    """Links to folders are followed unless they lead back to where one comes from, which would never end."""
    status = folder.stat()
    here = (*above, (status.st_dev, status.st_ino))
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            unused["hidden files and folders"].append(path)
        elif entry.is_dir():
            status = path.stat()
            if (status.st_dev, status.st_ino) in here:
                unused["links to a folder around them"].append(path)
            else:
                _walk(top, path, here, found, unused)
        elif path.suffix.lower() in _SUFFIXES:
            key = path.relative_to(top).with_suffix("").as_posix()
            if key in found:
                raise PairingError(f"{found[key]} and {path} have the same name but for the suffix; keep one of them.")
            found[key] = path
        else:
            unused[f"files ending in {printable(path.suffix.lower()) or 'nothing'}"].append(path)
