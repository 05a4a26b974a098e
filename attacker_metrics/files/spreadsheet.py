"""CSV files of ours, whose cells a spreadsheet must not run: a text that begins as a formula gets an apostrophe."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")
_IN_ARROW = "^'('*[=+\\-@\t\r\n\uff0b\uff0d\uff1d\uff20])"
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    r"""Rows, the header among them, as CSV, every cell :func:`escaped`.

    Example:
        >>> csv_text([["id", "score"], ["=A1", 0.5]])
        "id,score\n'=A1,0.5\n"
    """
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(map(escaped, row) for row in rows)
    return buffer.getvalue()


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


def unescaped_column(column: Any) -> Any:
    """As :func:`unescaped`, of an Arrow column of text."""
    import pyarrow.compute as pc  # not everybody who writes CSV has it

    return pc.replace_substring_regex(column, _IN_ARROW, r"\1", max_replacements=1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
