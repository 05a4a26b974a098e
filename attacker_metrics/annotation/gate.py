"""Who may come in: under which names the app answers, from which site forms come, how often a secret may be guessed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
ANY_HOST = "*"
ANY_ADDRESS = "address"
"""Stands for every IP address: another site's name can be pointed at this machine, an address cannot be borrowed."""


def host_name(host: str) -> str | None:
    """The name in a ``Host`` header or in an address, in lower case, without port and brackets; None if there is none.

    Example:
        >>> host_name("Study.example:8000"), host_name("[::1]:8000"), host_name("user@study.example"), host_name("a b")
        ('study.example', '::1', None, None)
    """
    if any(sign.isspace() or sign in "@/\\?#" for sign in host):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for what is none
        return parts.hostname or None
    except ValueError:
        return None


def check_host(pattern: str) -> str:
    """One of ``--allowed-hosts`` as it is compared.

    Raises:
        ValueError: if it is no host name, such as an address with ``http://``.
    """
    name = pattern.strip().lower()
    bare = host_name(name.removeprefix("*."))
    if name != ANY_HOST and (bare is None or "*" in bare or bare != name.removeprefix("*.").strip("[]")):
        raise ValueError(
            f"--allowed-hosts {pattern!r} is no host name; write names as in study.example or *.example.org, without http://"
            " and port, or * for any."
        )
    return name


def is_address(name: str) -> bool:
    """Whether a host's name is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class KnownHosts:
    """Answers under known names only: a site whose name is pointed at this machine could read its pages otherwise.

    Starlette's ``TrustedHostMiddleware`` knows no IP addresses in general, and reads ``[::1]`` differently by version.

    Args:
        app: the application.
        hosts: names, ``*.example.org`` for all below one, :data:`ANY_ADDRESS`, or :data:`ANY_HOST`.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = {name.lower().strip("[]") for name in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "http" and not self._knows(Headers(scope=scope).get("host", "")):
            message = (
                "Invalid host header: the study is not served under this name; its owner can add it by --allowed-hosts."
            )
            await PlainTextResponse(message, status_code=400)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, header: str) -> bool:
        if ANY_HOST in self._hosts:
            return True
        name = host_name(header)
        if name is None:
            return False
        if is_address(name):
            return ANY_ADDRESS in self._hosts or name in self._hosts
        parents = (name[k:] for k, sign in enumerate(name) if sign == ".")
        return name in self._hosts - {ANY_ADDRESS} or any(f"*{parent}" in self._hosts for parent in parents)


class SameOrigin:
    """Refuses forms that another site sends; the cookies would not come with them either, being SameSite."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            headers = Headers(scope=scope)
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            if site is None:  # an old browser, or no HTTPS; otherwise a proxy may have changed the host's name
                is_other = origin is not None and urlsplit(origin).netloc != headers.get("host")
            else:
                is_other = site not in ("same-origin", "none")
            if is_other:
                await PlainTextResponse("Forms are taken from this site only.", 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class TooManyGuessesError(Exception):
    """Somebody at this address has tried too many wrong secrets.

    Args:
        seconds: to wait, at least 1.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many wrong links or tokens came from here; try again in {seconds} seconds.")
        self.seconds = seconds


@dataclass
class _Guesser:
    wrong: int = 0
    until: float = 0.0


class Guesses:
    """Counts wrong secrets by address; after ten, each makes the next attempt wait twice as long, up to five minutes.

    While it waits an address learns nothing, not even by the right secret. Others are not kept out, whatever it does. After
    an hour all is forgotten; not after a right one, because whoever has one secret may look for another.

    Args:
        clock: seconds that only go up.

    Example:
        >>> guesses = Guesses(clock=lambda: 0.0)
        >>> for _ in range(11):
        ...     guesses.check("192.0.2.7")
        ...     guesses.was_wrong("192.0.2.7")
        >>> guesses.check("192.0.2.8")
        >>> guesses.check("192.0.2.7")
        Traceback (most recent call last):
        attacker_metrics.annotation.gate.TooManyGuessesError: Too many wrong links or tokens came from here; ...
    """

    FREE = 10
    LONGEST_SECONDS = 300.0
    _FORGOTTEN_AFTER = 3600.0
    _MOST_ADDRESSES = 10_000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()
        self._lock = Lock()  # requests are answered by several threads

    def check(self, address: str) -> None:
        """Raise if the address has to wait.

        Raises:
            TooManyGuessesError: saying how long.
        """
        guesser = self._guessers.get(_network(address))
        left = 0.0 if guesser is None else guesser.until - self._clock()
        if left > 0:
            raise TooManyGuessesError(int(left) + (left % 1 > 0))

    def was_wrong(self, address: str) -> None:
        """Count one."""
        network, now = _network(address), self._clock()
        with self._lock:
            guesser = self._guessers.pop(network, None)
            if guesser is None or now - guesser.until > self._FORGOTTEN_AFTER:
                guesser = _Guesser()
            guesser.wrong += 1
            extra = guesser.wrong - self.FREE
            guesser.until = now + (min(2.0 ** min(extra - 1, 60), self.LONGEST_SECONDS) if extra > 0 else 0.0)
            self._guessers[network] = guesser
            if len(self._guessers) > self._MOST_ADDRESSES:
                self._guessers.popitem(last=False)


def _network(address: str) -> str:
    """Who has an IPv6 address has 2 ** 64 of them."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if not isinstance(known, IPv6Address):
        return address
    return str(known.ipv4_mapped or ip_network((known, 64), strict=False))
