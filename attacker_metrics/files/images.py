"""File or URL -> bytes -> image tensor ``(3, H, W)``, float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.files.decoding import DEFAULT, Decoding, ImageError, LoadedImage
from attacker_metrics.files.locations import one_spelling, read_bytes, reason
from attacker_metrics.files.pictures import PICTURE_SUFFIXES, decode_picture, upright
from attacker_metrics.files.tensors import TensorFileError, load_tensors
from attacker_metrics.files.tiff import decode_tiff
from attacker_metrics.files.urls import is_url

__all__ = [
    "PICTURE_SUFFIXES",
    "TENSOR_SUFFIXES",
    "Decoding",
    "ImageError",
    "LoadedImage",
    "decode_image",
    "is_url",
    "one_spelling",
    "read_bytes",
    "read_image",
    "resize",
]

TENSOR_SUFFIXES = (".npy", ".pt", ".safetensors")
IMAGE_KEY = "image"
"""The tensor that is taken from a file of several."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_image(location: Path | str, decoding: Decoding = DEFAULT) -> LoadedImage:
    """Read a picture (PNG, JPEG, WebP, AVIF, BMP, GIF, PPM, TIFF; 8 or 16 bit) or a tensor (``.npy``, ``.pt``,
    ``.safetensors``) from a path or URL.

    EXIF orientation is applied unless ``decoding`` says otherwise, and grey is expanded to three channels.

    Raises:
        ImageError: if the file is unreadable or too large, or has alpha, CMYK, several frames or another unusable content.
    """  # noqa: D205
    return decode_image(read_bytes(location, decoding), location, decoding)


def decode_image(content: bytes, location: Path | str, decoding: Decoding = DEFAULT) -> LoadedImage:
    """Decode the content of a file; ``location`` tells by its suffix what it is, and appears in error messages.

    Raises:
        ImageError: as :func:`read_image`.
    """
    suffix = PurePosixPath(urlsplit(str(location)).path if is_url(location) else location).suffix.lower()
    try:
        if suffix in TENSOR_SUFFIXES:
            return _decode_tensor(content, suffix, location, decoding)
        decode = decode_tiff if content.startswith(_TIFF) else decode_picture
        image = decode(content, location, decoding)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they like about a damaged file
        raise ImageError(f"{location} cannot be read as an image: {reason(error)}") from error
    return image if decoding.orientation == "ignore" else replace(image, pixels=upright(image.pixels, image.orientation))


def resize(pixels: Tensor, side: int) -> Tensor:
    """Scale ``(3, H, W)`` so that its smaller side is ``side`` pixels, keeping its aspect (bilinear, antialiased)."""
    height, width = pixels.shape[-2:]
    factor = side / min(height, width)
    size = (max(side, round(height * factor)), max(side, round(width * factor)))
    return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _decode_tensor(content: bytes, suffix: str, path: Path | str, decoding: Decoding) -> LoadedImage:
    try:
        value = load_tensors(content, str(path))
    except (TensorFileError, ModuleNotFoundError) as error:
        raise ImageError(f"{path} cannot be read as an image: {reason(error)}") from error
    if suffix == ".safetensors":
        value = _only_tensor(value, path)
    if not isinstance(value, Tensor):
        raise ImageError(f"{path} holds a {type(value).__name__}; store one tensor (3, H, W).")
    value = value.detach()
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise ImageError(f"{path} holds a tensor without plain values ({value.layout}); store a dense one, (3, H, W).")
    value = _three_channels(value, path)
    decoding.check_size(path, *value.shape[1:])  # a view of few values may have any shape
    if value.dtype in (torch.uint8, torch.uint16):
        pixels = value.float() / (255 if value.dtype == torch.uint8 else 65535)
    elif value.is_floating_point():
        pixels = value.float()
    else:
        raise ImageError(f"{path} holds {value.dtype} values; store floats in the scale of the clean images, or uint8.")
    return LoadedImage(pixels.expand(3, -1, -1).contiguous(), eight_bit=value.dtype == torch.uint8)


def _only_tensor(value: Any, path: Path | str) -> Any:
    """The tensor of a safetensors file: the only one, or that named ``image``."""
    if not isinstance(value, dict) or (len(value) != 1 and IMAGE_KEY not in value):
        names = ", ".join(sorted(value)[:5]) if isinstance(value, dict) else type(value).__name__
        raise ImageError(f"{path} holds {names or 'nothing'}; store one tensor (3, H, W), or name it {IMAGE_KEY!r}.")
    return value.get(IMAGE_KEY, next(iter(value.values())))


def _three_channels(pixels: Tensor, path: Path | str) -> Tensor:
    """Bring ``(3, H, W)``, ``(1, 3, H, W)``, ``(H, W, 3)`` or a grey form of these to ``(3, H, W)`` or ``(1, H, W)``."""
    shape = tuple(pixels.shape)
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ImageError(f"{path} holds a tensor of shape {shape}; store one image as (3, H, W) or (H, W).")
    return pixels
