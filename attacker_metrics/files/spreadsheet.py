"""Cells of CSV files that a spreadsheet must not run: a text that begins as a formula gets an apostrophe."""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")


def escaped(value: Any) -> Any:
    """A cell to write: text that a spreadsheet would take for a formula begins with an apostrophe; numbers stay numbers.

    Example:
        >>> escaped("=HYPERLINK(A1)"), escaped("-0.5"), escaped(-0.5), escaped("a")
        ("'=HYPERLINK(A1)", '-0.5', -0.5, 'a')
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def unescaped(cell: str) -> str:
    """The text of a cell that :func:`escaped` has written.

    Example:
        >>> unescaped("'=1+1"), unescaped("-0.5"), unescaped("'quoted'")
        ('=1+1', '-0.5', "'quoted'")
    """
    return cell[1:] if _ESCAPED.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
