"""Bytes that nobody meant -> only errors that say what is wrong, for as long as asked.

``python benchmarks/fuzz.py --seconds 600`` damages files of every kind that is read, and lists each distinct other error,
keeping the bytes that caused it; exit status 1 if there is one. The suite does the same with some hundred inputs.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch
from PIL import Image, features

from attacker_metrics.files.images import ImageError, Reading, decode_image
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs

LIMITS = Reading(max_pixels=1_000_000)
_PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)


def seeds() -> dict[str, bytes]:
    """Intact files by name, of every kind that is read."""
    found: dict[str, bytes] = {}
    kinds = [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP"), ("gif", "GIF"), ("ppm", "PPM")]
    if features.check("avif"):
        kinds.append(("avif", "AVIF"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix, kind in kinds:
        file = io.BytesIO()
        Image.fromarray(_PIXELS).save(file, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        found[f"a.{suffix}"] = file.getvalue()
    found["16bit.png"] = bytes(imagecodecs.png_encode(_PIXELS.astype(np.uint16) * 257))
    kinds_of_tiff: list[dict[str, Any]] = [
        {},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "tile": (16, 16)},
        {"compression": "jpeg"},
        {"planarconfig": "separate", "byteorder": ">"},
    ]
    for number, tags in enumerate(kinds_of_tiff):
        file = io.BytesIO()
        separate = tags.get("planarconfig") == "separate"
        tifffile.imwrite(file, _PIXELS.transpose(2, 0, 1).copy() if separate else _PIXELS, photometric="rgb", **tags)
        found[f"{number}.tif"] = file.getvalue()
    file = io.BytesIO()
    np.save(file, _PIXELS)
    found["a.npy"] = file.getvalue()
    file = io.BytesIO()
    torch.save(torch.from_numpy(_PIXELS), file)
    found["a.pt"] = file.getvalue()
    found["m.csv"] = b"id,clean,noisy,note\n" + b"".join(b'%d,a.png,b.png,"x\ny"\n' % i for i in range(30))
    table = pa.table({name: [f"{name}{i}" for i in range(30)] for name in ("id", "clean", "noisy")})
    file = io.BytesIO()
    pq.write_table(table, file)
    found["m.parquet"] = file.getvalue()
    return found


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The content with bytes changed, cut out, doubled, or numbers that are extreme, in a few places."""
    result = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        place, kind = int(random.integers(0, max(1, len(result)))), int(random.integers(0, 5))
        size = int(random.integers(1, 9))
        if kind == 0:
            result[place : place + 1] = bytes([int(random.integers(0, 256))])
        elif kind == 1:
            result[place : place + size] = random.bytes(size)
        elif kind == 2:
            del result[place : place + int(random.integers(1, max(2, len(result) // 4)))]
        elif kind == 3:
            result[place:place] = result[place : place + size]
        else:
            extremes = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0")
            result[place : place + 4] = extremes[int(random.integers(0, len(extremes)))]
    return bytes(result)


def read(name: str, content: bytes, folder: Path) -> None:
    """Read bytes as a file of this name; raises whatever is no error of ours."""
    if not name.startswith("m."):
        try:
            image = decode_image(content, name, LIMITS)
        except ImageError:
            return
        if image.pixels.shape[0] != 3 or image.pixels.dtype != torch.float32:
            raise AssertionError(f"an image of shape {tuple(image.pixels.shape)} and {image.pixels.dtype}")
        return
    path = folder / name
    path.write_bytes(content)
    try:
        pairs = ManifestPairs(str(path))
        total, _ = pairs.check()
        if len(pairs.rows(0, total)) != total:
            raise AssertionError("rows are missing")
    except ManifestError:
        return


def inputs(random: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Damaged files without an end, all kinds in turn."""
    whole = seeds()
    while True:
        for name, content in whole.items():
            yield name, damaged(content, random)


def main(arguments: list[str] | None = None, clock: Callable[[], float] = time.monotonic) -> int:
    """Run for the time that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where inputs that raise go")
    options = parser.parse_args(arguments)
    faulthandler.enable()  # a decoder that crashes the process says where
    until, count, found = clock() + options.seconds, 0, dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in inputs(np.random.default_rng(options.seed)):
            if clock() >= until:
                break
            count += 1
            options.keep.mkdir(exist_ok=True)
            (options.keep / "last").write_bytes(content)  # what is left where the process itself is ended
            try:
                read(name, content, Path(folder))
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{name} {type(error).__name__} {Path(frame.filename).name}:{frame.lineno}"
                if key not in found:
                    found[key] = str(error)
                    (options.keep / f"{len(found)}-{name}").write_bytes(content)
    print(f"{count} inputs, {len(found)} distinct errors that are none of ours")
    for key, message in found.items():
        print(f"  {key}: {message[:200]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
