"""Standard output and error that may be closed at any moment: ``| head`` must not cost a report."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def patient_streams() -> Iterator[None]:
    """Let what is printed go nowhere once its reader has gone, or where there is none, and the command go on."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Patient(before[0]), _Patient(before[1])
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stdout, sys.stderr = before


class _Patient:
    """A text stream that drops what nobody reads."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None where the program was started with the stream closed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a terminal that cannot show a name
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except BrokenPipeError:
                self._drop()
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except BrokenPipeError:
                self._drop()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def _drop(self) -> None:
        """Lead the stream to nowhere: what is buffered would be tried again at the end, and fail again."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
