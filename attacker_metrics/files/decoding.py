"""How files are read, and what an image is once it was read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Orientation = Literal["agree", "apply", "ignore"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)


class ImageError(ValueError):
    """A file that cannot be used as an image; the message says why and what to do."""


@dataclass(frozen=True)
class Decoding:
    """What a file may cost, and how it is understood.

    Args:
        timeout: seconds until a file that a server sends must have arrived.
        max_pixels: the largest height times width; looked at before pixels are decoded.
        max_bytes: the largest file.
        orientation: ``"apply"`` turns pictures upright as their EXIF orientation says, ``"ignore"`` takes them as they are
            stored; ``"agree"`` turns them too, but refuses a pair of which one file alone has an orientation.

    Raises:
        ValueError: for a limit that is not positive, or another orientation.
    """

    timeout: float = 30.0
    max_pixels: int = 100_000_000
    max_bytes: int = 2**30
    orientation: Orientation = "agree"

    def __post_init__(self) -> None:
        for name in ("timeout", "max_pixels", "max_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}.")
        if self.orientation not in ORIENTATIONS:
            raise ValueError(f"orientation must be one of {', '.join(ORIENTATIONS)}, got {self.orientation!r}.")

    def check_size(self, location: Path | str, height: int, width: int) -> None:
        """Refuse dimensions before anything of that size is made.

        Raises:
            ImageError: naming the file, its size and the limit.
        """
        if height < 1 or width < 1:
            raise ImageError(f"{location} has {height} x {width} pixels (height x width); there is nothing to see.")
        if height * width > self.max_pixels:
            raise ImageError(
                f"{location} has {height} x {width} = {height * width:,} pixels (height x width), the limit is"
                f" {self.max_pixels:,}; scale it down, or raise --max-pixels (in Python: max_pixels)."
            )

    def check_bytes(self, location: Path | str, size: int) -> None:
        """Refuse a file before it is held.

        Raises:
            ImageError: naming the file, its size and the limit.
        """
        if size > self.max_bytes:
            raise ImageError(
                f"{location} has {size:,} bytes or more, the limit is {self.max_bytes:,}; raise --max-bytes (in Python:"
                " max_bytes) if it is what you mean."
            )


DEFAULT = Decoding()


@dataclass(frozen=True)
class LoadedImage:
    """An image and how it was stored.

    Args:
        pixels: ``(3, H, W)`` float32; [0, 1] for pictures, any range for tensors of floating numbers.
        eight_bit: whether the file held 8-bit values, which are clipped to [0, 1] and quantised.
        orientation: the EXIF orientation that the file carries, 1 to 8; 1 if it carries none.
        damage: what the decoder says is damaged in a file that it could read all the same; empty if nothing is.
    """

    pixels: Tensor
    eight_bit: bool
    orientation: int = 1
    damage: str = ""


Reading = Decoding
"""Its name in release 0.1."""
