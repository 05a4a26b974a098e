"""What is a URL, told without what reads one."""

from __future__ import annotations

import re
from pathlib import Path

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")


def is_url(location: Path | str) -> bool:
    """Whether this is a URL, not a path.

    Example:
        >>> is_url("S3://bucket/a.png"), is_url("a::b.png"), is_url("./http://a.png")
        (True, False, False)
    """
    return isinstance(location, str) and SCHEME.match(location) is not None
