"""A lock on a folder: one job at a time works in it, and the second learns who the first is.

The system holds the lock (``flock``, on Windows ``msvcrt.locking``) and lets go of it when the process ends, in any way:
a file that a killed process left behind blocks nobody. The library filelock empties the file at every attempt, so it could
not say who holds it, and takes a file for locked that its holder has just deleted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES = 100
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_FAR = 1 << 30
"""On Windows a locked byte cannot be read: lock one behind the text."""


class InUseError(OSError):
    """Another job is at work; the message says which and since when."""


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; its folder is made if need be, and deleted at the end if it was, and is empty.

    Where a file system has no locks, the job goes on without.

    Args:
        path: of the lock file; deleted at the end.
        what: is locked, for the message.

    Raises:
        InUseError: if another process holds it.
        OSError: if the file cannot be made.
    """
    new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    handle = _acquired(path, what)
    try:
        yield
    finally:
        # While it is still held: whoever opens the path from now on makes a new file.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)
        if os.name == "nt":  # which deletes no open file
            with contextlib.suppress(OSError):
                path.unlink()
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquired(path: Path, what: str) -> int:
    for _ in range(_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # the folder's last user has just deleted it
            continue
        try:
            locked = _lock(handle)
            if locked and not _is_at(handle, path):  # its holder deleted it between our opening and locking
                os.close(handle)
                continue
            if not locked:
                raise InUseError(
                    f"another job is at work in {what}{_holder(handle)}; wait for its end, or pass another --output."
                )
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            raise
        return handle
    raise InUseError(f"other jobs come and go in {what}; pass another --output.")


def _lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    """Who holds it, as it has written; nothing in the moment before it has."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 4096))
        return f" (process {int(found['pid'])} on {str(found['host'])[:100]}, since {str(found['since'])[:40]})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
