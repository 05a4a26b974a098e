"""Two images -> whether they are of one size, orientation and scale; what cannot be decided is refused or noted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from attacker_metrics.files.decoding import Decoding, ImageError, LoadedImage

SCALE, DAMAGED = "scale", "damaged"
"""Kinds of notes."""
_TOLERANCE = 1e-3
_FAR, _DARK, _BRIGHT = 2.0, 1 / 16, 0.5  # a 12-bit value in a 16-bit file is at most 1/16


@dataclass(frozen=True)
class Note:
    """Something about a pair that its score does not show.

    Args:
        kind: :data:`SCALE` or :data:`DAMAGED`.
        message: a sentence that names the file, and what to do.
    """

    kind: str
    message: str


def notes_on(
    clean: LoadedImage, noisy: LoadedImage, names: tuple[Path | str, Path | str], decoding: Decoding
) -> tuple[Note, ...]:
    """Compare the conventions of a clean and a noisy image.

    Args:
        clean: the original.
        noisy: the hidden or reconstructed image.
        names: of the two files.
        decoding: how they were read.

    Returns:
        What a reader of the score must know: a scale that seems to be another one, a damaged file.

    Raises:
        ImageError: naming the files, if one alone has an EXIF orientation and ``decoding`` does not say what that means, if
            their sizes differ, or if the clean image leaves [0, 1] by more than 1e-3.
    """
    _check_orientation(clean, noisy, names, decoding)
    _check_size(clean, noisy, names, decoding)
    original, hidden = _Range.of(clean.pixels), _Range.of(noisy.pixels)
    if original.is_finite and (original.low < -_TOLERANCE or original.high > 1 + _TOLERANCE):
        swapped = hidden.is_finite and hidden.low >= -_TOLERANCE and hidden.high <= 1 + _TOLERANCE
        also = f" Or are clean and noisy swapped? {names[1]} lies within [0, 1]." if swapped else ""
        raise ImageError(
            f"{names[0]} holds {original}, which leaves [0, 1], where a clean image lies:"
            f" {_fix(original) or _DENORMALISE}.{also}"
        )
    notes = [Note(SCALE, f"{name} holds {found}: {why}") for name, found, why in _odd(original, hidden, names)]
    return (*notes, *damage_of(clean, names[0]), *damage_of(noisy, names[1]))


def damage_of(image: LoadedImage, name: Path | str) -> tuple[Note, ...]:
    """What its decoder said about a file that it could read all the same."""
    if not image.damage:
        return ()
    return (Note(DAMAGED, f"{name} is damaged ({image.damage}), parts of it may be wrong: restore it from its source."),)


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    mean: float

    @classmethod
    def of(cls, pixels: Tensor) -> _Range:
        low, high = pixels.aminmax()
        return cls(float(low), float(high), float(pixels.mean()))

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        return f"values from {self.low:.4g} to {self.high:.4g}"


_DENORMALISE = "undo its normalisation"


def _fix(found: _Range) -> str:
    """What brings a range of values to [0, 1], as far as it can be told."""
    if found.low >= -_TOLERANCE and found.high > _FAR:
        if found.high <= 255.5:
            return "if 255 is white, divide by 255"
        return "if 65535 is white, divide by 65535" if found.high <= 65535.5 else ""
    # Noise around [0, 1] leaves it as far above as below; values around 0 do not.
    if -1.5 <= found.low < -0.5 and found.high <= 1.5 and 2 * (found.high - 1) < -found.low:
        return "if -1 is black and 1 is white, add 1 and divide by 2"
    return ""


def _odd(clean: _Range, noisy: _Range, names: tuple[Path | str, Path | str]) -> list[tuple[Path | str, _Range, str]]:
    """Noisy images may leave [0, 1], by design: these are notes, not errors."""
    odd: list[tuple[Path | str, _Range, str]] = []
    if not (clean.is_finite and noisy.is_finite):
        return odd
    if fix := _fix(noisy):
        odd.append((names[1], noisy, f"the clean image is in [0, 1]; {fix}."))
    elif noisy.mean > _FAR:  # noise has a mean near 0, whatever its strength
        why = f"their mean is {noisy.mean:.4g} where the clean image is in [0, 1]; bring it to that scale (divide by 255?)."
        odd.append((names[1], noisy, why))
    for name, found, other in ((names[0], clean, clean), (names[1], noisy, clean)):
        if found.low >= 0 and 0 < found.high <= _DARK and (found is other or other.high > _BRIGHT):
            why = (
                "that is nearly black; if its white is 1, 255 or 4095, store it in the scale that its type has (uint8: 255,"
            )
            odd.append((name, found, f"{why} uint16: 65535, floats: 1)."))
    return odd


def _check_orientation(
    clean: LoadedImage, noisy: LoadedImage, names: tuple[Path | str, Path | str], decoding: Decoding
) -> None:
    if decoding.orientation != "agree" or (clean.orientation == 1) == (noisy.orientation == 1):
        return
    turned, other = (0, 1) if clean.orientation != 1 else (1, 0)
    number = (clean, noisy)[turned].orientation
    raise ImageError(
        f"{names[turned]} has EXIF orientation {number} and {names[other]} has none: pass --orientation apply if the latter"
        " is already upright, as viewers show the former, or --orientation ignore if both are to be taken as they are stored"
        " (in Python: Reading(orientation=...))."
    )


def _check_size(clean: LoadedImage, noisy: LoadedImage, names: tuple[Path | str, Path | str], decoding: Decoding) -> None:
    shapes = tuple(clean.pixels.shape[1:]), tuple(noisy.pixels.shape[1:])
    if shapes[0] == shapes[1]:
        return
    sizes = [f"{height} x {width}" for height, width in shapes]
    message = f"{names[0]} has {sizes[0]} pixels (height x width) and {names[1]} {sizes[1]}; a pair must have one size."
    if shapes[0] == shapes[1][::-1]:
        told = {
            "ignore": "they were taken as they are stored; --orientation apply turns them upright",
            "apply": "they were turned upright; --orientation ignore takes them as they are stored",
            "agree": "neither or both were turned upright as their EXIF orientation says; was one turned before?",
        }[decoding.orientation]
        message += (
            f" One is the other turned: they have EXIF orientation {clean.orientation} and {noisy.orientation}, {told}."
        )
    raise ImageError(message)
