"""Heads of the pages of a Parquet column -> how large the pages become: the file's own sum at its end may lie.

A head is a struct in Thrift's compact protocol whose second and third fields are the page's sizes; Arrow does not show them.
"""

from __future__ import annotations

from typing import BinaryIO

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_NUMBERS = (4, 5, 6)
_UNFOLDED, _STORED = 2, 3
_HEADS = (1 << 12, 1 << 24)
"""Bytes in which a head has room: first try, and all that Arrow reads."""
_DEEPEST = 8


class PageError(ValueError):
    """A head that cannot be read."""


def unfolded_bytes(stream: BinaryIO, start: int, end: int) -> int:
    """The sum of the sizes that the pages between two places have once they are decompressed.

    Raises:
        PageError: if a head is damaged.
    """
    found = 0
    while start < end:
        unfolded, stored, length = _sizes(stream, start, end)
        found += unfolded
        start += length + stored
    return found


def _sizes(stream: BinaryIO, start: int, end: int) -> tuple[int, int, int]:
    for most in _HEADS:
        stream.seek(start)
        head = _Head(stream.read(min(most, end - start)))
        try:
            fields = head.struct()
            unfolded, stored = fields[_UNFOLDED], fields[_STORED]
        except (IndexError, KeyError):
            continue
        if unfolded < 0 or stored < 0:
            break
        return unfolded, stored, head.place
    raise PageError(f"the head of a page at byte {start:,} is damaged.")


class _Head:
    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """The fields that are whole numbers; the others are passed over."""
        if depth > _DEEPEST:
            raise PageError("the head of a page is damaged.")
        fields, number = {}, 0
        while (first := self._byte()) != _STOP:
            kind = first & 15
            number = number + (first >> 4) if first >> 4 else self._zigzag()
            if kind in _NUMBERS:
                fields[number] = self._zigzag()
            elif kind not in (_TRUE, _FALSE):  # whose value is their kind
                self._pass(kind, depth)
        return fields

    def _pass(self, kind: int, depth: int) -> None:
        if kind in _NUMBERS:
            self._varint()
        elif kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
            self._skip(8 if kind == _DOUBLE else 1)
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind == _STRUCT:
            self.struct(depth + 1)
        elif kind in (_LIST, _SET):
            first = self._byte()
            for _ in range(first >> 4 if first >> 4 < 15 else self._varint()):
                self._pass(first & 15, depth + 1)
        else:
            raise PageError("the head of a page is damaged.")

    def _skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self.content):
            raise IndexError

    def _byte(self) -> int:
        self._skip(1)
        return self.content[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise PageError("the head of a page is damaged.")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
