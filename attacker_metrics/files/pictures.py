"""PNG, JPEG, WebP, AVIF, BMP, GIF, PPM -> pixels; a fixed list of formats, whose dimensions are looked at first."""

from __future__ import annotations

import io
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from attacker_metrics.files.decoding import Decoding, ImageError, LoadedImage

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "PPM")
"""Of Pillow's some fifty, of which others start programs (EPS) or are seldom tested against hostile files."""

_EIGHT_BIT_MODES = ("1", "L", "P", "RGB")
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"


def decode_picture(content: bytes, location: Path | str, decoding: Decoding) -> LoadedImage:
    """Decode a picture of 8 or 16 bits, as it is stored: its orientation is told, not applied.

    Raises:
        ImageError: for another format, alpha, CMYK, several frames, or dimensions beyond the limit.
        Exception: whatever Pillow raises about a damaged file.
    """
    if content.startswith(_PNG):
        _check_png(content, location)
    with _opened(content, location) as image:
        decoding.check_size(location, image.height, image.width)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview behind it
            raise ImageError(f"{location} holds {frames} frames; store each as a file of its own.")
        if image.mode in _ALPHA_MODES or "transparency" in image.info:
            raise ImageError(f"{location} has an alpha channel; flatten it onto a background first, as your model sees it.")
        if image.mode == "CMYK":
            raise ImageError(f"{location} is CMYK; convert it to RGB first.")
        sixteen_bits = image.mode == "RGB" and ";16" in str(_tiles(image))  # Pillow would drop the lower byte
        if image.format == "PPM" and image.mode == "RGB" and _beyond_eight_bits(image):
            raise ImageError(f"{location} is a PPM of more than 8 bits; store it as 16-bit PNG or TIFF.")
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        if sixteen_bits:
            return LoadedImage(_sixteen_bit_colour(content, location), False, orientation)
        if image.mode in _SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in ("PNG", "PPM")):
            grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
            return LoadedImage(grey.expand(3, -1, -1).contiguous(), False, orientation)
        if image.mode not in _EIGHT_BIT_MODES:
            raise ImageError(f"{location} has pixel format {image.mode}; store 8 or 16 bit grey or RGB, or floats as .npy.")
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    return LoadedImage(pixels, True, orientation, _damage(content) if content.startswith(_JPEG) else "")


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn and mirror ``(C, H, W)`` as an EXIF orientation says, 1 to 8.

    Example:
        >>> upright(torch.tensor([[[1, 2, 3]]]), 6)
        tensor([[[1],
                 [2],
                 [3]]])
    """
    if orientation >= 5:  # 5 to 8 are 1 to 4 of the transposed picture, in another order
        pixels, orientation = pixels.transpose(-1, -2), {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    across = [-1] if orientation in (2, 3) else []
    down = [-2] if orientation in (3, 4) else []
    return pixels.flip(across + down).contiguous()


def _opened(content: bytes, location: Path | str) -> Image.Image:
    """As ``Image.open``, without its own limit, at half of which it warns and of which it knows no file."""
    Image.init()
    for name in _FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept(content[:16]) if accept else True
        if isinstance(accepted, str):  # a format that this Pillow was built without
            raise ImageError(f"{location} cannot be read as an image: {accepted}; install a Pillow with it, or convert it.")
        if accepted:
            try:
                return factory(io.BytesIO(content), "")
            except (SyntaxError, TypeError, IndexError) as error:  # what plugins say of another or a damaged file
                raise ImageError(f"{location} cannot be read as an image: {' '.join(str(error).split())}.") from error
    raise ImageError(f"{location} cannot be read as an image: its content is none of {', '.join(_FORMATS)}, TIFF.")


def _check_png(content: bytes, location: Path | str) -> None:
    """Pillow passes over the checksums of the pixels' chunks."""
    position = len(_PNG)
    while position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        kind, end = content[position + 4 : position + 8], position + 8 + size
        told = int.from_bytes(content[end : end + 4], "big")
        if kind[:1].isupper() and (end + 4 > len(content) or zlib.crc32(content[position + 4 : end]) != told):
            raise ImageError(
                f"{location} cannot be read as an image: it is damaged, the checksum of its chunk"
                f" {kind.decode('ascii', 'replace')!r} is wrong; restore it from its source."
            )
        if kind == b"IEND":
            return
        position = end + 4
    raise ImageError(f"{location} cannot be read as an image: it is cut off; restore it from its source.")


def _sixteen_bit_colour(content: bytes, location: Path | str) -> Tensor:
    pixels = imagecodecs.png_decode(content)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(f"{location} holds {pixels.dtype} values of shape {pixels.shape}; store 8 or 16 bit grey or RGB.")
    return torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1)


def _tiles(image: Image.Image) -> Any:
    return getattr(image, "tile", ())


def _beyond_eight_bits(image: Image.Image) -> bool:
    """Whether a PPM's greatest value, which is among its decoder's arguments, takes more than a byte."""
    arguments = [entry[3] if isinstance(entry[3], tuple) else (entry[3],) for entry in _tiles(image)]
    return any(isinstance(value, int) and value > 255 for values in arguments for value in values)


def _damage(content: bytes) -> str:
    """What libjpeg complains of and conceals in a JPEG, or nothing; Pillow does not say, ``simplejpeg`` does."""
    if find_spec("simplejpeg") is None:
        return ""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(content, colorspace="GRAY", fastdct=True, fastupsample=True, strict=True)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""
