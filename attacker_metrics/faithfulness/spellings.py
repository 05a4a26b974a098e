"""What a cell of people's tables means, however it is spelled: missing, yes or no, which class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_YES, _NO = ("1", "true", "yes", "t", "y"), ("0", "false", "no", "f", "n")
_MISSING = ("", "na", "nan", "none", "null", "n/a", "<na>", "#n/a", "nat")
"""In any case: what pandas, R, SQL, Python and spreadsheets write for a cell without a value."""
_UNCLEAR = (
    *("missing", "skip", "skipped", "unanswered", "not asked", "not answered", "no answer", "not available", "n.a.", "nil"),
    *("undefined", "#value!", "#ref!", "#name?", "#null!", "#num!", "#div/0!"),
)
"""In any case: what somebody may have written for a missing answer, and what spreadsheets write for a failed formula."""
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)(\.0*)?")
_PLAIN_INTEGER = re.compile(r"([+-]?[0-9]+)\.0*")


def is_missing(cell: str) -> bool:
    """Whether a cell holds no value: empty, or ``NA``, ``NaN``, ``None``, ``null``, ``N/A``, ``<NA>``, in any case.

    Example:
        >>> [is_missing(cell) for cell in ("", "NA", "None", "<NA>", "0", "-")]
        [True, True, True, True, False, False]
    """
    return cell.strip().lower() in _MISSING


@lru_cache(maxsize=65536)
def is_unclear(cell: str) -> bool:
    """Whether nobody can tell if a cell is an answer or none: ``-``, ``?``, ``...``, ``missing``, ``#REF!``.

    Example:
        >>> [is_unclear(cell) for cell in ("?", "--", "Skipped", "-1", "cat", "cannot tell")]
        [True, True, True, False, False, False]
    """
    signs = cell.replace(" ", "")
    marks_only = all(unicodedata.category(sign)[0] == "P" or (sign.isascii() and not sign.isalnum()) for sign in signs)
    return marks_only or cell.lower() in _UNCLEAR


def yes_or_no(cell: str) -> bool | None:
    """True for 1, 1.0, true, yes, False for 0, 0.0, false, no, in any case; None for anything else.

    Example:
        >>> [yes_or_no(cell) for cell in ("1.0", "Yes", "FALSE", "0", "2", "maybe")]
        [True, True, False, False, None, None]
    """
    text = one_text(cell).lower()
    return True if text in _YES else False if text in _NO else None


@lru_cache(maxsize=65536)
def one_text(cell: str) -> str:
    """The one form of what is the same text to everybody: canonical Unicode, no space around it, 7.0 as 7.

    Spreadsheets and data frames write whole numbers so, once a cell of the column is empty.

    Example:
        >>> one_text(" 7.0 "), one_text("v1.0"), one_text("e\u0301") == one_text("\u00e9")
        ('7', 'v1.0', True)
    """
    text = unicodedata.normalize("NFC", cell).strip()
    whole = _PLAIN_INTEGER.fullmatch(text)
    return whole[1] if whole else text


@lru_cache(maxsize=65536)
def one_class(cell: str) -> str:
    """The same for spellings that differ in case, width, spacing, invisible signs or leading zeros only.

    Example:
        >>> one_class("Cat") == one_class("cat "), one_class("03") == one_class("3.0"), one_class("cat") == one_class("cats")
        (True, True, False)
    """
    text = unicodedata.normalize("NFKC", cell)
    visible = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    folded = unicodedata.normalize("NFC", " ".join(visible.split()).casefold())
    number = _INTEGER.fullmatch(folded)
    return folded if number is None else ("-" if number[1] == "-" and number[2] != "0" else "") + number[2]


def spelled_differently(cells: Iterable[str], *, strictly: bool = False) -> list[list[str]]:
    """Texts that :func:`one_class` takes for one although they are not, each group sorted.

    Args:
        cells: the texts, in any order and number.
        strictly: whether 7 and 7.0, and two Unicode forms of one text, are two spellings too.

    Example:
        >>> spelled_differently(["cat", "dog", "Cat", "cat ", "3", "03", "3.0"])
        [['03', '3'], ['Cat', 'cat']]
        >>> spelled_differently(["7", "7.0"], strictly=True)
        [['7', '7.0']]
    """
    groups: dict[str, set[str]] = {}
    for text in set(cells) if strictly else set(map(one_text, set(cells))):
        groups.setdefault(one_class(text), set()).add(text)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def named(groups: list[list[str]], limit: int = 5) -> str:
    """Such groups for a message; signs that cannot be seen are escaped."""
    shown = "; ".join(
        " and ".join(map(repr, group[:4])) + (" and others" if len(group) > 4 else "") for group in groups[:limit]
    )
    return shown + (f"; and {len(groups) - limit} more" if len(groups) > limit else "")
