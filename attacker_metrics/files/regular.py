"""Regular files only: a pipe, a socket or a device would hold whoever opens it, or never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class LocationError(ValueError):
    """A place that is not read from; the message says why."""


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file without waiting; what it is is looked at afterwards, as another might have been put there after a look.

    Raises:
        LocationError: if it is no regular file.
        OSError: if it cannot be opened.

    Example:
        >>> open_regular("/dev/null")
        Traceback (most recent call last):
        attacker_metrics.files.regular.LocationError: it is a device, not a regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # what opening a socket says
            raise LocationError("it is a socket, not a regular file.") from error
        raise
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise LocationError(f"it is {_kind(mode)}, not a regular file.")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")
