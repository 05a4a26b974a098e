"""Path or URL -> bytes, from regular files and a fixed list of schemes, within limits of size and time."""

from __future__ import annotations

import io
import math
import os
import posixpath
import re
import time
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.asyn import AsyncFileSystem, sync

from attacker_metrics.files.decoding import DEFAULT, Decoding, ImageError
from attacker_metrics.files.regular import LocationError, open_regular
from attacker_metrics.files.urls import SCHEME, is_url

SCHEMES = ("file", "http", "https", "s3", "gs", "memory")
"""Where URLs may lead. Other file systems of fsspec unpack, cache or chain; some of them run code that a file names."""

_IPV6 = re.compile(r"^[A-Za-z]+://(?:[^/\[\]]*@)?\[[0-9A-Fa-f:.%]+\]")
_MOST_REDIRECTS = 5
_CHUNK = 2**20


def one_spelling(location: str) -> str:
    """A path without detours, so that a file has one name; a URL as it is.

    Example:
        >>> one_spelling("./clean//../clean/a.png")
        'clean/a.png'
    """
    return posixpath.normpath(location) if location and not is_url(location) else location


def read_bytes(location: Path | str, decoding: Decoding = DEFAULT) -> bytes:
    """The content of a file or URL.

    Args:
        location: a path, or a URL of one of :data:`SCHEMES`.
        decoding: how large it may be, and how long a server may take.

    Raises:
        ImageError: if it cannot be read: it is no regular file, too large, too late, or of another scheme.
    """
    try:
        if not is_url(location):
            return _read_file(location, decoding)
        scheme, url = _allowed(str(location))
        if scheme == "file":
            return _read_file(_local_path(url), decoding, location)
        return _fetched(scheme, url, decoding)
    except ImageError:
        raise
    except Exception as error:  # file systems of fsspec raise errors of their own
        raise ImageError(f"{location} cannot be read as an image: {reason(error)}") from error


def open_location(location: str, timeout: float = DEFAULT.timeout) -> BinaryIO:
    """Open a file or URL for reading at any position.

    Args:
        location: a path, or a URL of one of :data:`SCHEMES`.
        timeout: seconds that a server may be silent.

    Raises:
        LocationError: if it is no regular file, of another scheme, or on a server that does not answer.
        OSError: if it cannot be opened.
        ImportError: if fsspec lacks a package for the scheme.
    """
    if not is_url(location):
        return open_regular(location)
    scheme, url = _allowed(location)
    if scheme == "file":
        return open_regular(_local_path(url))
    begin = time.monotonic()
    try:
        opened: BinaryIO = _file_system(scheme, timeout).open(url, "rb")
    except FileNotFoundError as error:  # what fsspec says of a server that says nothing, too
        if time.monotonic() - begin < timeout:
            raise
        raise LocationError(
            f"the server had not answered after {timeout:g} s; raise --timeout (in Python: timeout) if it is slow."
        ) from error
    return opened


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _allowed(url: str) -> tuple[str, str]:
    """The scheme of a URL, and the URL with its scheme in lower case."""
    found = SCHEME.match(url)
    scheme = found.group(1).lower() if found else ""
    address = _IPV6.match(url)
    if "::" in (url[address.end() :] if address else url):
        raise LocationError(
            f"{url} chains file systems by '::', which could run code that a file names; name the file itself (a path may"
            " contain '::')."
        )
    if scheme not in SCHEMES:
        raise LocationError(
            f"{url} is of scheme {scheme}://; files are read from a path or {', '.join(f'{name}://' for name in SCHEMES)}."
        )
    return scheme, scheme + url[len(scheme) :]


def _local_path(url: str) -> str:
    path: str = fsspec.get_filesystem_class("file")._strip_protocol(url)
    return path


def _read_file(path: Path | str, decoding: Decoding, named: Path | str | None = None) -> bytes:
    with open_regular(path) as file:
        decoding.check_bytes(named or path, os.fstat(file.fileno()).st_size)
        content = file.read(decoding.max_bytes + 1)  # it may have grown
    decoding.check_bytes(named or path, len(content))
    return content


def _file_system(scheme: str, timeout: float) -> Any:
    """By its scheme alone: fsspec's own way from a URL to its file system also follows chains."""
    settings: dict[str, Any] = {}
    if scheme in ("http", "https"):
        import aiohttp

        silent = aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout, sock_read=timeout)
        settings = {"client_kwargs": {"timeout": silent}}
    elif scheme == "s3":
        settings = {"config_kwargs": {"connect_timeout": timeout, "read_timeout": timeout}}
    return fsspec.filesystem(scheme, **settings)


def _fetched(scheme: str, url: str, decoding: Decoding) -> bytes:
    system = _file_system(scheme, decoding.timeout)
    content: bytes
    if not isinstance(system, AsyncFileSystem):  # memory://
        decoding.check_bytes(url, system.size(url))
        content = system.cat_file(url)
        return content
    fetch = _http(system, url, decoding) if scheme in ("http", "https") else _object(system, url, decoding)

    async def cancelled_at_the_limit() -> bytes:
        import asyncio

        return await asyncio.wait_for(fetch, decoding.timeout)

    begin = time.monotonic()
    try:
        content = sync(system.loop, cancelled_at_the_limit, timeout=math.ceil(decoding.timeout) + 1)
    except Exception as error:
        # fsspec and the standard library name such an error differently from version to version
        if "Timeout" in type(error).__name__ or time.monotonic() - begin >= decoding.timeout:
            raise ImageError(
                f"{url} had not arrived after {decoding.timeout:g} s; raise --timeout (in Python: timeout) if the server is"
                " slow."
            ) from error
        raise
    decoding.check_bytes(url, len(content))
    return content


async def _http(system: Any, url: str, decoding: Decoding) -> bytes:
    """Piece by piece: a server may send more than it says, or without an end. aiohttp redirects to http(s) only."""
    import aiohttp

    session = await system.set_session()
    content = io.BytesIO()
    try:
        async with session.get(system.encode_url(url), max_redirects=_MOST_REDIRECTS, **system.kwargs) as response:
            response.raise_for_status()
            decoding.check_bytes(url, response.content_length or 0)
            async for piece in response.content.iter_chunked(_CHUNK):
                content.write(piece)
                decoding.check_bytes(url, content.tell())
    except aiohttp.TooManyRedirects as error:
        raise ImageError(f"{url} is redirected more than {_MOST_REDIRECTS} times; name the file itself.") from error
    except aiohttp.ClientError as error:
        if "UrlRedirect" not in type(error).__name__:  # classes that aiohttp 3.9 does not have
            raise
        raise ImageError(
            f"{url} is redirected to {reason(error)}; a server may redirect to http:// and https:// only."
        ) from error
    return content.getvalue()


async def _object(system: Any, url: str, decoding: Decoding) -> bytes:
    """No more of an object than the limit and a byte, by which one sees that it is larger."""
    content: bytes = await system._cat_file(system._strip_protocol(url), start=0, end=decoding.max_bytes + 1)
    return content
