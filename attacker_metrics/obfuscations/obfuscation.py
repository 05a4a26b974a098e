"""What an entry of the zoo is: a function of picture, key and strength, and what is known about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from attacker_metrics._names import ZOO_VERSION, UndoneBy
from attacker_metrics.obfuscations.keys import Key

KEYS = ("none", "fixed", "per image")
UNDONE_BY: tuple[UndoneBy, ...] = get_args(UndoneBy)

Transform = Callable[[Tensor, Key, float], Tensor]


@dataclass(frozen=True)
class Strength:
    """The one setting of an obfuscation.

    Args:
        meaning: what it is, with its unit.
        default: the value of the table's figures.
        low: the least value.
        high: the greatest value.
        whole: whether only whole numbers make sense.
    """

    meaning: str
    default: float
    low: float
    high: float
    whole: bool = False

    def checked(self, value: float, name: str) -> float:
        """The value, if it is one.

        Raises:
            ValueError: if it is out of range, or not whole where it must be.
        """
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise ValueError(f"{name}: strength is {value!r}; it must be {kind} from {self.low:g} to {self.high:g}.")
        return int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Obfuscation:
    """An obfuscation of the zoo: call it with pictures, and with ``undo`` take it back where the key allows that.

    Args:
        name: of the entry.
        family: the kind of obfuscation.
        summary: what it does, in one sentence.
        source: who published it, or which products do it.
        hide: ``(picture (3, H, W) in [0, 1], key, strength) -> sent picture (3, H, W)``.
        key: ``"none"``; ``"fixed"``, the same for all pictures of a size; or ``"per image"``. Noise is "per image".
        undone_by: who can come as close to the original as what was sent permits: ``"anyone"``; ``"pairs"``, who has pairs
            of originals and sent pictures; ``"key"``, who has the key of this very picture; ``"nobody"``.
        reverse: the inverse of ``hide``, if it has one; 8-bit ciphers give the picture back in 8 bits.
        destroys: what is lost, also for a perfect attacker; empty if nothing but rounding.
        leaves: what those still see who cannot undo it for lack of the picture's key; empty if that is nothing, or if
            no such key is needed.
        ceiling: the share of pictures of 64 x 64 pixels that the library's attackers read at 1 % false positives, of what
            anyone or who has pairs can undo, where that is less than 0.95 (``benchmarks/zoo.py``); None for others.
            ``destroys`` gives the reason, if there is one.
        independent: whether a sent picture, its key unknown, tells nothing at all about the original.
        bounds: the least and the greatest value that a sent picture may hold.
        strength: its setting; None if there is none.
        multiple: what both sides must be multiples of; None if the strength says so.
        square: whether only square pictures can be hidden.

    Raises:
        ValueError: for another ``key`` or ``undone_by``.

    Example:
        >>> import torch
        >>> from attacker_metrics.obfuscations import obfuscation
        >>> images = torch.rand(2, 3, 16, 16)
        >>> shuffle = obfuscation("pixel-shuffle")
        >>> sent = shuffle(images, seed=7)
        >>> bool(torch.equal(shuffle.undo(sent, seed=7), images)), shuffle.undone_by
        (True, 'pairs')
    """

    name: str
    family: str
    summary: str
    source: str
    hide: Transform
    key: str = "none"
    undone_by: str = "anyone"
    reverse: Transform | None = None
    destroys: str = ""
    leaves: str = ""
    ceiling: float | None = None
    independent: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)
    strength: Strength | None = None
    multiple: int | None = 1
    square: bool = False

    def __post_init__(self) -> None:
        for value, known, what in ((self.key, KEYS, "key"), (self.undone_by, UNDONE_BY, "undone_by")):
            if value not in known:
                raise ValueError(f"{self.name}: {what} is {value!r}; it is one of {', '.join(known)}.")

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        *,
        seed: int = 0,
        strength: float | None = None,
        ids: Sequence[int | str] | None = None,
    ) -> Tensor:
        """Hide pictures; each comes out the same in whatever batch it is.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1], float32 or float64.
            seed: the secret; a fixed key depends on it and on the size, a key per image also on the id.
            strength: the entry's setting; by default the table's.
            ids: names of the images, on which their keys depend; by default 0, 1, ... by position in the batch. Pass those
                of your data set, or the first picture of every batch shares a key.

        Returns:
            ``(B, 3, H, W)`` of the same dtype, within ``bounds``.

        Raises:
            TypeError: for other dtypes.
            ValueError: for another shape or range, a size that does not suit the blocks, a strength out of range, or another
                number of ids.
        """
        value = self._strength(strength)
        self._check(images, value)
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(f"{self.name} needs pictures in [0, 1] without NaN; clamp or denormalise them first.")
        return self._each(self.hide, images, seed, value, ids)

    @torch.no_grad()
    def undo(
        self,
        sent: Tensor,
        *,
        seed: int = 0,
        strength: float | None = None,
        ids: Sequence[int | str] | None = None,
    ) -> Tensor:
        """Give the originals back, by the same settings as they were hidden with.

        Args:
            sent: what hiding returned, ``(B, 3, H, W)``.
            seed: as for hiding.
            strength: as for hiding.
            ids: as for hiding.

        Raises:
            TypeError: as for hiding.
            ValueError: as for hiding, or if the obfuscation has no inverse.
        """
        if self.reverse is None:
            raise ValueError(f"{self.name} has no inverse: it destroys {self.destroys or 'the picture'}.")
        value = self._strength(strength)
        self._check(sent, value)
        return self._each(self.reverse, sent, seed, value, ids)

    def side_multiple(self, strength: float | None = None) -> int:
        """What both sides of a picture must be multiples of at this strength."""
        return int(self._strength(strength)) if self.multiple is None else self.multiple

    def metadata(self) -> dict[str, Any]:
        """What is known about the entry, ready for JSON; infinite bounds are None."""
        strength = self.strength and {
            "meaning": self.strength.meaning,
            "default": self.strength.default,
            "low": self.strength.low,
            "high": self.strength.high,
        }
        return {
            "name": self.name,
            "version": ZOO_VERSION,
            "family": self.family,
            "summary": self.summary,
            "source": self.source,
            "key": self.key,
            "undone_by": self.undone_by,
            "invertible": self.reverse is not None,
            "destroys": self.destroys or None,
            "leaves": self.leaves or None,
            "ceiling": self.ceiling,
            "independent": self.independent,
            "bounds": [bound if math.isfinite(bound) else None for bound in self.bounds],
            "strength": strength,
            "side_multiple": "strength" if self.multiple is None else self.multiple,
            "square": self.square,
        }

    def _strength(self, value: float | None) -> float:
        if self.strength is None:
            if value is not None:
                raise ValueError(f"{self.name} has no strength, got {value!r}; leave it out.")
            return 0.0
        return self.strength.checked(self.strength.default if value is None else value, self.name)

    def _check(self, images: Tensor, strength: float) -> None:
        if images.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{self.name} needs float32 or float64 pictures, got {images.dtype}; uint8: images.float() / 255."
            )
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ValueError(f"{self.name} needs pictures of shape (B, 3, H, W) with B >= 1, got {tuple(images.shape)}.")
        height, width = images.shape[2:]
        multiple = int(strength) if self.multiple is None else self.multiple
        if height % multiple or width % multiple:
            raise ValueError(
                f"{self.name} needs sides that are multiples of {multiple}, got {height} x {width}; crop or resize."
            )
        if self.square and height != width:
            raise ValueError(f"{self.name} needs square pictures, got {height} x {width}; crop them.")

    def _each(
        self, function: Transform, images: Tensor, seed: int, strength: float, ids: Sequence[int | str] | None
    ) -> Tensor:
        names = range(len(images)) if ids is None else ids
        if len(names) != len(images):
            raise ValueError(f"{self.name}: there are {len(images)} pictures but {len(names)} ids; pass one id per picture.")
        shared = Key(ZOO_VERSION, self.name, seed)
        keys = (Key(ZOO_VERSION, self.name, seed, str(name)) if self.key == "per image" else shared for name in names)
        return torch.stack([function(image, key, strength) for image, key in zip(images, keys, strict=True)])
