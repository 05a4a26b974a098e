"""British and American spelling are one name: ``etc-color`` is ``etc-colour``, ``grey_clamp`` is ``gray_clamp``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAME = (("colour", "color"), ("grey", "gray"), ("centre", "center"), ("defence", "defense"))
_ISE = re.compile(r"(standard|equal|normal|quant|random|pixel)is(?=[aei])")


def known_as(name: str, known: Iterable[str]) -> str:
    """The name among those known that is spelt the same way on the other side of the Atlantic; else the name itself.

    Args:
        name: what was given.
        known: the names that there are.

    Example:
        >>> known_as("etc-color", ["etc-colour", "blur"]), known_as("standardise_grey", ["standardize_gray"])
        ('etc-colour', 'standardize_gray')
    """
    known = list(known)
    return name if name in known else {_american(word): word for word in known}.get(_american(name), name)


def _american(name: str) -> str:
    for british, american in _SAME:
        name = name.replace(british, american)
    return _ISE.sub(r"\1iz", name)
