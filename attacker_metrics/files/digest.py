"""The package's own source files -> a digest: results of other code are other results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # since Python 3.11

SOURCE_SUFFIXES = (
    *(".py", ".pyi", ".cpp", ".cu", ".h", ".typed"),
    *(".jinja", ".html", ".css", ".js", ".svg"),
    *(".json", ".yaml", ".md", ".txt", ".jpg", ".png"),
)
"""Of the files that what the package does comes from: code, templates, built-in settings and photographs."""


@cache
def package_digest() -> str:
    """SHA-256 over the paths and contents of the package's source files, 64 hexadecimal digits; read once per process.

    It does not depend on where the package is installed, on compiled files or on how lines end. What this library has
    computed and kept (a study's steps, an evaluation's parts) is used again only where the digest is the same.

    Example:
        >>> len(package_digest())
        64
    """
    return sources_digest(resources.files("attacker_metrics"))


def sources_digest(folder: Traversable) -> str:
    """As :func:`package_digest`, of the source files below any folder.

    Args:
        folder: a path, or what ``importlib.resources.files`` returns.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_sources(folder), key=lambda found: found[0]):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _sources(folder: Traversable, before: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.name.startswith((".", "__pycache__")):
            continue
        if entry.is_dir():
            yield from _sources(entry, f"{before}{entry.name}/")
        elif entry.name.endswith(SOURCE_SUFFIXES):
            yield f"{before}{entry.name}", entry
