"""Which compiled library may run in this process: whole, ours, and out of everybody else's reach.

Loading a library runs it. So it is read first, and its last bytes must be the checksum of the others and of what it was
made from. The checksum stands in the file, not beside it: one rename puts both in place, whoever else builds at that moment.
A library in a cache must besides be a file that only this user or root can have written, in a folder of which the same is
true, and of all folders above it. One that is part of the installed package is trusted as the code beside it is.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

MARK = b"\nattacker_metrics sha256 "
_LENGTH = len(MARK) + hashlib.sha256().digest_size
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UntrustedLibraryError(RuntimeError):
    """A library is there, and must not or cannot be used; the message says why and what to do."""


def seal(library: Path, made_from: str) -> None:
    """Append the checksum of what the library was made from and of what it is; from then on only its owner may write."""
    checksum = _checksum(made_from, library.read_bytes())
    with library.open("ab") as file:
        file.write(MARK + checksum)
    library.chmod(0o755)


def load(library: Path, made_from: str, *, private: bool = True) -> ctypes.CDLL:
    """Load a sealed library after looking at it.

    Args:
        library: where it is.
        made_from: what it must have been sealed with.
        private: whether it must be out of others' reach and no link, as in a cache; not so within an installed package,
            which some installers link to.

    Raises:
        FileNotFoundError: if there is none, or none that this user may know of.
        UntrustedLibraryError: if it is not used.
    """
    try:
        library.lstat()
    except OSError as error:
        raise FileNotFoundError(errno.ENOENT, "not built", str(library)) from error
    place = Path(os.path.realpath(library.parent)) / library.name if private else Path(os.path.realpath(library))
    flags = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    try:
        descriptor = os.open(place, flags)
    except OSError as error:
        link = error.errno in (errno.ELOOP, errno.EMLINK)
        raise UntrustedLibraryError("it is a symbolic link; delete it" if link else f"it cannot be read: {error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedLibraryError("it is not a file; delete it")
        if private:
            _refuse_what_others_can_write([(place, status), *_folders(place.parent)])
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read()
        if content[-_LENGTH:] != MARK + _checksum(made_from, content[:-_LENGTH]):
            reason = (
                "damaged or not from here; delete it"
                if private
                else "damaged or of other sources; install the package again"
            )
            raise UntrustedLibraryError(f"its checksum is missing or wrong, so it is {reason}")
        # By its descriptor, that is, exactly what was read. It stays open: the loader takes equal names for equal libraries.
        opened = Path(f"/proc/self/fd/{descriptor}")
        kernel = ctypes.CDLL(str(opened if opened.exists() else place))
    except OSError as error:
        os.close(descriptor)
        raise UntrustedLibraryError(f"it cannot be loaded: {error}") from error
    except BaseException:
        os.close(descriptor)
        raise
    return kernel


def make_private(folder: Path) -> None:
    """Make a folder, and those above it, for this user alone; those that exist stay as they are.

    Raises:
        OSError: if it cannot be made.
        UntrustedLibraryError: if others can write to it or to a folder above it.
    """
    for above in (*reversed(folder.parents), folder):
        if not above.exists():
            above.mkdir(mode=0o700, exist_ok=True)
    _refuse_what_others_can_write(_folders(Path(os.path.realpath(folder))))


def _checksum(made_from: str, content: bytes) -> bytes:
    return hashlib.sha256(made_from.encode() + b"\0" + content).digest()


def _folders(folder: Path) -> list[tuple[Path, os.stat_result]]:
    return [(place, place.stat()) for place in (folder, *folder.parents)]


def _refuse_what_others_can_write(places: Iterable[tuple[Path, os.stat_result]]) -> None:
    """Of a file or folder and the folders above it, as OpenSSH does; of a sticky one above only what lies below matters."""
    if not hasattr(os, "geteuid"):  # Windows: a profile's folders are guarded by lists that its owner inherits
        return
    sticky_is_fine = False
    for place, status in places:
        if status.st_uid not in (0, os.geteuid()):
            raise UntrustedLibraryError(
                f"{place} belongs to another user, number {status.st_uid};"
                " set ATTACKER_METRICS_CACHE to a folder that is yours, below folders of yours or root's"
            )
        shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and sticky_is_fine
        if status.st_mode & _WRITABLE_BY_OTHERS and not shared:
            raise UntrustedLibraryError(
                f"others can write to {place} (mode {stat.S_IMODE(status.st_mode):o}); chmod go-w it after a look at what is"
                " in it, or set ATTACKER_METRICS_CACHE to a folder of your own"
            )
        sticky_is_fine = sticky_is_fine or stat.S_ISDIR(status.st_mode)
