"""Sockets of annotators: how many, how long, so that nobody who opens many and says nothing keeps the others out.

uvicorn limits the time between requests, not the time that a request takes to arrive or an answer to be fetched.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 15.0
"""A request, its form included, must have arrived so long after the connection was opened or its first byte came."""
ANSWER_SECONDS = 120.0
"""An answer must have been fetched so long after the request: a large picture over a slow line."""
MOST_CONNECTIONS = 512
BACKLOG = 32
"""So many may be accepted before the oldest is cut off."""
_OTHER_FILES = 96
"""Left for the database, pictures and libraries."""
_FEWEST_CONNECTIONS = 16


def most_connections() -> int:
    """How many connections are kept: 512, or fewer where the process may not open so many files."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, which has no such limit
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(_FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, files - BACKLOG - _OTHER_FILES))


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request and answer, and room for the next one.

    Where there are too many connections, the one that has been waiting longest for its own request is cut off: whoever is
    being answered never is, and an honest browser sends its request at once.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait, and make room."""
        super().connection_made(transport)
        self._await_request()
        others = [one for one in self.connections if isinstance(one, PatientProtocol) and not one.transport.is_closing()]
        if len(others) > most_connections():
            waiting = [one for one in others if not one._is_busy()]  # itself at least
            min(waiting, key=lambda one: one._waiting_since or 0.0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; with the last of a request its answer has a deadline instead."""
        if self._waiting_since is None and not self._is_answering():
            self._await_request()  # the first bytes of the next one
        super().data_received(data)
        if self._waiting_since is not None and self._is_answering() and not self.cycle.more_body:
            self._waiting_since = None
            self._within(ANSWER_SECONDS)  # until the last byte has left; uvicorn closes before if nothing follows

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_busy(self) -> bool:
        is_complete = self._waiting_since is None and self._is_answering()
        return is_complete or self.transport.get_write_buffer_size() > 0

    def _await_request(self) -> None:
        self._waiting_since = self.loop.time()
        self._within(REQUEST_SECONDS)

    def _within(self, seconds: float) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
