"""File or URL -> bytes -> image tensor ``(3, H, W)``, float32."""

from __future__ import annotations

import io
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import imagecodecs
import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from fsspec.core import url_to_fs
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
TENSOR_SUFFIXES = (".npy", ".pt")

_EIGHT_BIT_MODES = ("1", "L", "P", "RGB")
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


class ImageError(ValueError):
    """A file that cannot be used as an image; the message says why and what to do."""


@dataclass(frozen=True)
class LoadedImage:
    """An image and how it was stored.

    Args:
        pixels: ``(3, H, W)`` float32; [0, 1] for pictures, any range for tensors of floating numbers.
        eight_bit: whether the file held 8-bit values, which are clipped to [0, 1] and quantised.
    """

    pixels: Tensor
    eight_bit: bool


def is_url(location: Path | str) -> bool:
    """Whether this is a URL, not a path."""
    return isinstance(location, str) and "://" in location


def one_spelling(location: str) -> str:
    """A path without detours, so that a file has one name; a URL as it is.

    Example:
        >>> one_spelling("./clean//../clean/a.png")
        'clean/a.png'
    """
    return posixpath.normpath(location) if location and not is_url(location) else location


def read_image(location: Path | str) -> LoadedImage:
    """Read a picture (PNG, JPEG, WebP, BMP, TIFF; 8 or 16 bit) or a tensor (``.npy``, ``.pt``) from a path or URL.

    EXIF orientation is applied and grey is expanded to three channels.

    Raises:
        ImageError: if the file is unreadable, or has alpha, CMYK, several frames or another unusable content.
    """
    return decode_image(read_bytes(location), location)


def read_bytes(location: Path | str) -> bytes:
    """The content of a file or URL.

    Raises:
        ImageError: if it cannot be read.
    """
    try:
        if not is_url(location):
            return Path(location).read_bytes()
        system, path = url_to_fs(location)
        content: bytes = system.cat_file(path)
    except Exception as error:  # file systems of fsspec raise errors of their own
        raise ImageError(f"{location} cannot be read as an image: {_reason(error)}") from error
    return content


def decode_image(content: bytes, location: Path | str) -> LoadedImage:
    """Decode the content of a file; ``location`` tells by its suffix what it is, and appears in error messages.

    Raises:
        ImageError: as :func:`read_image`.
    """
    suffix = PurePosixPath(urlsplit(str(location)).path if is_url(location) else location).suffix.lower()
    try:
        if suffix in TENSOR_SUFFIXES:
            return _decode_tensor(content, suffix, location)
        return _decode_picture(content, location)
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever they like about a damaged file
        raise ImageError(f"{location} cannot be read as an image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def resize(pixels: Tensor, side: int) -> Tensor:
    """Scale ``(3, H, W)`` so that its smaller side is ``side`` pixels, keeping its aspect (bilinear, antialiased)."""
    height, width = pixels.shape[-2:]
    factor = side / min(height, width)
    size = (max(side, round(height * factor)), max(side, round(width * factor)))
    return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _decode_picture(content: bytes, path: Path | str) -> LoadedImage:
    with Image.open(io.BytesIO(content)) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview behind it
            raise ImageError(f"{path} holds {frames} frames; store each as a file of its own.")
        if image.mode in _ALPHA_MODES or "transparency" in image.info:
            raise ImageError(f"{path} has an alpha channel; flatten it onto a background first, as your model sees it.")
        if image.mode == "CMYK":
            raise ImageError(f"{path} is CMYK; convert it to RGB first.")
        if image.mode == "RGB" and ";16" in str(image.tile):  # Pillow would drop the lower byte
            return LoadedImage(_sixteen_bit_colour(content, path, image), eight_bit=False)
        if image.mode in _SIXTEEN_BIT_MODES or (image.mode == "I" and image.format == "PNG"):
            grey = np.asarray(ImageOps.exif_transpose(image)).astype(np.float32) / 65535
            return LoadedImage(_three_channels(torch.from_numpy(grey), path), eight_bit=False)
        if image.mode not in _EIGHT_BIT_MODES:
            raise ImageError(f"{path} has pixel format {image.mode}; store 8 or 16 bit grey or RGB, or floats as .npy.")
        pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return LoadedImage(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, eight_bit=True)


def _sixteen_bit_colour(content: bytes, path: Path | str, image: Image.Image) -> Tensor:
    if image.format == "TIFF":
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            pixels = page.asarray() if page.axes == "YXS" else page.asarray().transpose(1, 2, 0)
    else:
        pixels = imagecodecs.png_decode(content)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(f"{path} holds {pixels.dtype} values of shape {pixels.shape}; store 8 or 16 bit grey or RGB.")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation >= 5:  # 5..8 are 1..4 of the transposed picture, in another order
        pixels, orientation = pixels.transpose(1, 0, 2), {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4):
        pixels = pixels[::-1]
    return torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1)


def _decode_tensor(content: bytes, suffix: str, path: Path | str) -> LoadedImage:
    value: Any
    if suffix == ".npy":
        value = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
    else:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(value, Tensor):
        raise ImageError(f"{path} holds a {type(value).__name__}; store one tensor (3, H, W).")
    if value.dtype in (torch.uint8, torch.uint16):
        pixels = value.float() / (255 if value.dtype == torch.uint8 else 65535)
    elif value.is_floating_point():
        pixels = value.float()
    else:
        raise ImageError(f"{path} holds {value.dtype} values; store floats in the scale of the clean images, or uint8.")
    return LoadedImage(_three_channels(pixels, path), eight_bit=value.dtype == torch.uint8)


def _three_channels(pixels: Tensor, path: Path | str) -> Tensor:
    """Bring ``(3, H, W)``, ``(1, 3, H, W)``, ``(H, W, 3)`` or a grey form of these to ``(3, H, W)``."""
    shape = tuple(pixels.shape)
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ImageError(f"{path} holds a tensor of shape {shape}; store one image as (3, H, W) or (H, W).")
    return pixels.expand(3, -1, -1).contiguous()
