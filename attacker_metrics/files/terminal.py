"""Text from files, made safe to print: no character of it commands a terminal or turns what is read around."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1: line breaks, escape sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions
    "\u200b\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # breaks, and what nobody sees
    "\ud800-\udfff]"  # halves of a character, as in file names that are no UTF-8
)


def printable(text: object) -> str:
    r"""The text with every control character written out: C0 and C1, escape sequences, changes of direction, halves.

    Example:
        >>> printable("a\x1b[31m\u202eb\n")
        'a\\x1b[31m\\u202eb\\n'
    """
    return _CONTROLS.sub(lambda found: _written(found[0]), str(text))


def printable_lines(text: object) -> str:
    """As :func:`printable`, for a message of several lines: its line breaks stay."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def json_escaped(text: str) -> str:
    r"""JSON with every control character in its strings as ``\uXXXX``, which reads back as the same.

    Example:
        >>> json_escaped('{"id": "a\u202e"}')
        '{"id": "a\\u202e"}'
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in "\n\r\t" else _pair(found[0]), text)


def _written(character: str) -> str:
    if (place := ord(character)) > 0xFF:
        return f"\\u{place:04x}" if place <= 0xFFFF else f"\\U{place:08x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{place:02x}")


def _pair(character: str) -> str:
    halves = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{halves[i : i + 2].hex()}" for i in range(0, len(halves), 2))
