"""TIFF -> pixels, by what its tags say: photometric, bits, planes, predictor, palette, orientation."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from attacker_metrics.files.decoding import Decoding, ImageError, LoadedImage

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _SEPARATED, _YCBCR = range(7)
_REFUSED = {
    _MASK: "is a transparency mask; store the picture itself",
    _SEPARATED: "is CMYK; convert it to RGB first",
    8: "is in CIELAB; convert it to RGB first",
    9: "is in CIELAB (ICC); convert it to RGB first",
    10: "is in CIELAB (ITU); convert it to RGB first",
    32803: "holds the raw values of a camera's sensor; develop it to RGB first",
    34892: "holds the raw values of a camera's sensor; develop it to RGB first",
}
_JPEG = (6, 7, 34892, 33007)
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_REDUCED, _TRANSPARENCY = 1, 4
_MOST_PAGES = 64
_ORIENTATION = 274
# Tifffile logs what it finds odd; without any handler Python would print that on the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode_tiff(content: bytes, location: Path | str, decoding: Decoding) -> LoadedImage:
    """Decode a TIFF file of one picture: grey, palette or RGB of up to 16 bits, or floating numbers in any range.

    Thumbnails beside the picture (reduced-resolution pages, sub-IFDs) are left alone.

    Raises:
        ImageError: if it holds anything else, naming it.
        Exception: whatever tifffile raises about a damaged file.
    """
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = _only_page(file, location)
        _check(page, content, location, decoding)
        pixels = page.asarray()
        orientation = page.tags.valueof(_ORIENTATION, 1)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise ImageError(f"{location} has the axes {page.axes}; store one picture, grey or RGB.")
        pixels, eight_bit = _scaled(pixels, page, location)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return LoadedImage(image, eight_bit, orientation if orientation in range(1, 9) else 1)


def _only_page(file: tifffile.TiffFile, location: Path | str) -> tifffile.TiffPage:
    pages: list[Any] = []
    for entry in file.pages:
        pages.append(entry if isinstance(entry, tifffile.TiffPage) else entry.aspage())
        if len(pages) > _MOST_PAGES:
            raise ImageError(f"{location} holds more than {_MOST_PAGES} frames; store each as a file of its own.")
    if not pages:
        raise ImageError(f"{location} holds no picture.")
    frames = [page for page in pages if not page.subfiletype & (_REDUCED | _TRANSPARENCY)]
    count = max(len(frames), _hidden_frames(file, pages[0]))
    if count > 1:
        raise ImageError(f"{location} holds {count} frames; store each as a file of its own.")
    if any(page.subfiletype & _TRANSPARENCY for page in pages):
        raise ImageError(f"{location} has a transparency mask; flatten it onto a background first, as your model sees it.")
    if not frames:
        raise ImageError(f"{location} holds a thumbnail alone where its picture belongs; export the picture as RGB.")
    found: tifffile.TiffPage = frames[0]
    return found


def _hidden_frames(file: tifffile.TiffFile, page: Any) -> int:
    """ImageJ and tifffile may store further frames behind the first without a page of their own."""
    told = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    shapes = [entry.get("shape", ()) for entry in file.shaped_metadata or ()] if file.is_shaped else []
    size = max(1, int(math.prod(page.shape)))
    return max(int(told), *(int(math.prod(shape)) // size for shape in shapes if shape), 1)


def _check(page: tifffile.TiffPage, content: bytes, location: Path | str, decoding: Decoding) -> None:
    """Refuse by the tags, before anything is decoded."""
    height, width = page.imagelength, page.imagewidth
    decoding.check_size(location, height, width)
    if page.is_tiled:
        decoding.check_size(f"a tile of {location}", page.tilelength * max(1, page.tiledepth), page.tilewidth)
    if page.imagedepth > 1:
        raise ImageError(f"{location} holds {page.imagedepth} frames; store each as a file of its own.")
    if page.photometric in _REFUSED:
        raise ImageError(f"{location} {_REFUSED[page.photometric]}.")
    if page.photometric == _YCBCR and page.compression not in _JPEG:
        raise ImageError(f"{location} is in YCbCr without JPEG compression; convert it to RGB first.")
    samples, colour = page.samplesperpixel, page.photometric in (_RGB, _YCBCR)
    if page.extrasamples or samples > (3 if colour else 1):
        if not page.extrasamples or 0 in page.extrasamples:
            raise ImageError(f"{location} holds {samples} channels; store grey or RGB.")
        raise ImageError(f"{location} has an alpha channel; flatten it onto a background first, as your model sees it.")
    if page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR) or samples != (3 if colour else 1):
        raise ImageError(
            f"{location} has {samples} channels of photometric interpretation {int(page.photometric)}; store grey or RGB."
        )
    bits, kind = page.bitspersample, page.sampleformat
    whole = kind == _UNSIGNED and isinstance(bits, int) and bits <= 16
    if page.dtype is None or not (whole or (kind == _FLOAT and page.photometric in (_MIN_IS_BLACK, _RGB))):
        kinds = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "floating"}
        raise ImageError(
            f"{location} holds {kinds.get(kind, 'unknown')} values of {bits} bits; store 8 or 16 bit grey or RGB, or floats."
        )
    _check_complete(page, content, location, height * width * samples * int(bits))


def _check_complete(page: tifffile.TiffPage, content: bytes, location: Path | str, bits: int) -> None:
    """Tifffile takes what is missing for black."""
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    missing = [offset for offset, count in places if offset <= 0 or count <= 0 or offset + count > len(content)]
    there = sum(page.databytecounts)
    needed = math.prod(page.chunked) if page.chunks else 1
    if missing or len(places) < needed or (page.compression == 1 and 8 * there < bits):
        raise ImageError(f"{location} is cut off or damaged: parts of its pixels are not in the file; store it again.")


def _scaled(pixels: Any, page: tifffile.TiffPage, location: Path | str) -> tuple[Any, bool]:
    """Values as float32: whole numbers in [0, 1], floats as they are; and whether there were at most 8 bits."""
    if page.sampleformat == _FLOAT:
        with np.errstate(over="ignore"):  # infinite pixels are counted later
            return pixels.astype(np.float32), False
    bits = int(page.bitspersample)
    top = 2**bits - 1
    if page.photometric == _PALETTE:
        colours = np.asarray(page.colormap)
        if colours.shape != (3, top + 1):
            raise ImageError(f"{location} has a palette of shape {colours.shape} for {bits} bits; store it as RGB.")
        colours = colours >> 8 if colours.max() > 255 else colours  # some writers store 8 bits
        return colours.T[pixels.astype(np.intp)].astype(np.float32) / 255, True
    values = pixels.astype(np.float32)
    return (top - values if page.photometric == _MIN_IS_WHITE else values) / top, bits <= 8
