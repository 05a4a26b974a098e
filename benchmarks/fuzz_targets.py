"""What reads foreign bytes -> a target: intact files, how one of them is read, what of a damaged one is made right again.

A target's ``read`` gets a folder, the name of a file, and its content; it returns, or raises a clear error of ours, which is
passed over here. Whatever else comes out of it is a finding.
"""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch
from PIL import Image, features

from attacker_metrics._extras import MissingExtraError
from attacker_metrics._warnings import AttackerMetricsWarning
from attacker_metrics.annotation import Database, DatabaseFileError, Item, Settings, Store, overview, read_tasks
from attacker_metrics.commands import cli
from attacker_metrics.faithfulness import read_annotations, read_scores
from attacker_metrics.faithfulness.tables import TableError
from attacker_metrics.files.images import Decoding, ImageError, decode_image
from attacker_metrics.files.writing import has_header, is_ours
from attacker_metrics.jobs.ending import Interrupted, Unexpected, UsageError
from attacker_metrics.jobs.parts import UnfinishedRun
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs
from attacker_metrics.semsim import Encoder, Preprocessing, load_encoder, save_encoder
from attacker_metrics.semsim.checkpoint import CheckpointError, read_training
from attacker_metrics.semsim.training import Recipe, _check_same_recipe, _is_ours
from attacker_metrics.study import ConfigError, builtin_text, read_config
from attacker_metrics.study.classifiers import build, load, weights_of
from attacker_metrics.study.config import Model
from attacker_metrics.study.units import Folder, Unit, write_file

Files = dict[str, bytes]
LIMITS = Decoding(max_pixels=1_000_000)
_RANDOM = np.random.default_rng(0)
_PIXELS = _RANDOM.integers(0, 256, (24, 20, 3), np.uint8)
_EVALUATE = (
    *("evaluate", "--manifest", "m.csv", "--output", "o", "--betas", "1", "--blur-sigma", "1", "--part-size", "4"),
    *("--workers", "0", "--null", "2", "--learned", "linear", "--fit-split", "0.5"),
)
_MODEL = Model(name="lenet", network="lenet")


@dataclass(frozen=True)
class Target:
    """What reads foreign bytes.

    Args:
        seeds: makes the intact files, by name, in the folder in which they will be read.
        read: of a file of this name and content, in a folder of its own.
        repair: makes checksums right again; by default there are none.
    """

    seeds: Callable[[Path], Files]
    read: Callable[[Path, str, bytes], None]
    repair: Callable[[bytes], bytes] = bytes


def picture_seeds(_: Path) -> Files:
    """PNG, JPEG, WebP, AVIF, BMP, GIF and PPM, grey, with a palette, progressive, animated, with alpha, of 16 bits."""
    found: Files = {}
    colour, exif = Image.fromarray(_PIXELS), Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
        "a.png": ("PNG", colour, {"exif": exif}),
        "palette.png": ("PNG", colour.quantize(16), {}),
        "bit.png": ("PNG", colour.convert("1"), {}),
        "alpha.png": ("PNG", colour.convert("RGBA"), {}),
        "a.jpg": ("JPEG", colour, {"exif": exif}),
        "progressive.jpg": ("JPEG", colour, {"progressive": True, "subsampling": 0, "icc_profile": b"\0" * 128}),
        "cmyk.jpg": ("JPEG", colour.convert("CMYK"), {}),
        "grey.jpg": ("JPEG", colour.convert("L"), {}),
        "a.webp": ("WEBP", colour, {"exif": exif}),
        "lossless.webp": ("WEBP", colour, {"lossless": True}),
        "animated.webp": ("WEBP", colour, {"save_all": True, "append_images": [Image.fromarray(255 - _PIXELS)]}),
        "a.bmp": ("BMP", colour, {}),
        "palette.bmp": ("BMP", colour.quantize(16), {}),
        "a.gif": ("GIF", colour, {}),
        "animated.gif": ("GIF", colour, {"save_all": True, "append_images": [Image.fromarray(255 - _PIXELS)]}),
        "a.ppm": ("PPM", colour, {}),
        "a.pgm": ("PPM", colour.convert("L"), {}),
        "a.pbm": ("PPM", colour.convert("1"), {}),
    }
    if features.check("avif"):
        kinds |= {"a.avif": ("AVIF", colour, {"exif": exif}), "grey.avif": ("AVIF", colour.convert("L"), {})}
    for name, (kind, image, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        found[name] = file.getvalue()
    found["16bit.png"] = bytes(imagecodecs.png_encode(_PIXELS.astype(np.uint16) * 257))
    found["grey16.png"] = bytes(imagecodecs.png_encode(_PIXELS[..., 0].astype(np.uint16) * 257))
    found["16bit.ppm"] = b"P6 4 4 65535\n" + bytes(96)
    found["text.ppm"] = b"P3\n4 4 255\n" + b"17 200 3 " * 16
    return found


def tiff_seeds(_: Path) -> Files:
    """Classic and BigTIFF, strips and tiles, planes, palettes, floats, and the usual compressions."""
    grey, kinds = _PIXELS[..., 0], list[tuple[Any, dict[str, Any]]]()
    kinds += [(_PIXELS, {"photometric": "rgb"}), (_PIXELS, {"photometric": "rgb", "bigtiff": True})]
    for compression in ("lzw", "zlib", "jpeg", "packbits", "lzma", "zstd", "webp", "png"):
        kinds.append((_PIXELS, {"photometric": "rgb", "compression": compression}))
    kinds += [
        (_PIXELS, {"photometric": "rgb", "compression": "zlib", "predictor": True, "tile": (16, 16)}),
        (_PIXELS.transpose(2, 0, 1).copy(), {"photometric": "rgb", "planarconfig": "separate", "byteorder": ">"}),
        (grey, {"photometric": "miniswhite"}),
        (grey.astype(np.uint16) * 257, {"photometric": "minisblack", "compression": "lzw"}),
        (grey / np.float32(255), {"photometric": "minisblack", "predictor": True, "compression": "zlib"}),
        (grey, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        (_PIXELS, {"photometric": "rgb", "metadata": {"axes": "YXS"}, "imagej": False, "rowsperstrip": 5}),
        (grey, {"imagej": True}),
    ]
    found: Files = {}
    for number, (pixels, tags) in enumerate(kinds):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **tags)
        found[f"{number}.tif"] = file.getvalue()
    return found


def tensor_seeds(_: Path) -> Files:
    """``.npy``, ``.npz``, ``.safetensors``, and ``torch.save`` in both of its forms, with code in it and without."""
    from safetensors.numpy import save

    pixels, floats = torch.from_numpy(_PIXELS), _PIXELS.astype(np.float32)
    found: Files = {"a.safetensors": save({"image": _PIXELS}), "b.safetensors": save({"x": floats, "image": floats})}
    arrays = {"a.npy": _PIXELS, "be.npy": floats.astype(">f4"), "f.npy": np.asfortranarray(floats), "c.npy": floats + 1j}
    for name, array in arrays.items():
        np.save(file := io.BytesIO(), array)
        found[name] = file.getvalue()
    np.savez(file := io.BytesIO(), image=_PIXELS)
    found["z.npy"] = file.getvalue()
    saved = {"a": pixels, "view": pixels.float().permute(2, 0, 1)[:, ::2], "dict": {"image": pixels}, "code": _Code()}
    for name, value in {**saved, "sparse": pixels[..., 0].float().to_sparse(), "half": pixels.half()}.items():
        torch.save(value, file := io.BytesIO())
        found[f"{name}.pt"] = file.getvalue()
    torch.save(pixels, file := io.BytesIO(), _use_new_zipfile_serialization=False)
    return {**found, "old.pt": file.getvalue(), "pickle.pt": pickle.dumps(_Code())}


class _Code:
    """Runs when it is unpickled by whoever obeys."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("exit 3",)


def read_image(_: Path, name: str, content: bytes) -> None:
    """As ``evaluate`` reads a picture or a tensor."""
    with contextlib.suppress(ImageError):
        image = decode_image(content, name, LIMITS)
        assert image.pixels.shape[0] == 3, f"an image of shape {tuple(image.pixels.shape)}"
        assert image.pixels.dtype == torch.float32, f"an image of {image.pixels.dtype}"
        assert image.pixels[0].numel() <= LIMITS.max_pixels, "an image beyond the limit"


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, as those have whose maker means them to be read."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    result, position = bytearray(content), 8
    while position + 12 <= len(result):
        end = position + 8 + int.from_bytes(result[position : position + 4], "big")
        if end + 4 > len(result):
            break
        result[end : end + 4] = struct.pack(">I", binascii.crc32(result[position + 4 : end]))
        position = end + 4
    return bytes(result)


def table_seeds(_: Path) -> Files:
    """A manifest, annotations, scores and tasks, each as CSV and as Parquet."""
    count = range(6)
    keys = {key: [f"{key[0]}{i}" for i in count] for key in ("dataset", "model", "attack", "original", "reconstruction")}
    tables: dict[str, dict[str, list[Any]]] = {
        "m": {"id": [f"=i{i}" for i in count], "clean": ["a.png"] * 6, "noisy": ["b.png"] * 6, "note": ["x\ny"] * 6},
        "votes": {**keys, "annotator_ann": [1, 0, 1, None, 1, 0], "annotator_bob": [1, 1, 0, 0, None, 1]},
        "classes": {**keys, "class": ["cat", "dog"] * 3, "annotator_ann": ["cat", "-1", "7.0", "Cat", None, "dog"]},
        "scores": {"reconstruction": keys["reconstruction"], "psnr": [1.5, 2, 3, 4, None, 6], "flag": [True, False] * 3},
        "tasks": {**keys, "class": ["cat", "dog"] * 3, "candidates": ["cat;dog"] * 6},
    }
    found: Files = {}
    for name, columns in tables.items():
        table = pa.table(columns)
        for compression in ("none", "snappy", "zstd"):
            pq.write_table(table, file := io.BytesIO(), compression=compression, row_group_size=4)
            found[f"{name}.{compression}.parquet"] = file.getvalue()
        rows = [",".join("" if cell is None else f'"{cell}"' for cell in row) for row in zip(*columns.values(), strict=True)]
        found[f"{name}.csv"] = "\n".join([",".join(columns), *rows, ""]).encode()
    return found


def read_table(folder: Path, name: str, content: bytes) -> None:
    """As ``evaluate``, ``faithfulness`` and ``annotate`` read a table."""
    path = folder / name
    path.write_bytes(content)
    with contextlib.suppress(ManifestError, TableError, ImageError):
        if name.startswith("m."):
            pairs = ManifestPairs(str(path))
            total, _ = pairs.check()
            assert len(pairs.rows(0, total)) == total, "rows are missing"
        elif name.startswith("scores"):
            read_scores(path)
        elif name.startswith("tasks"):
            for side in ("o0", "r0"):
                (folder / side).write_bytes(_pictures()[0])
            read_tasks(path, "category")
        else:
            read_annotations(path)


def run_seeds(folder: Path) -> Files:
    """What ``evaluate`` leaves: the settings and parts of an unfinished run and of its stages, and its outputs."""
    _make_pairs(folder)
    remove = UnfinishedRun.remove
    UnfinishedRun.remove = lambda self: None  # type: ignore[method-assign]  # noqa: ARG005
    try:
        command(*_EVALUATE)
    finally:
        UnfinishedRun.remove = remove  # type: ignore[method-assign]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "o").rglob("*")) if path.is_file()}


def read_run(folder: Path, name: str, content: bytes) -> None:
    """``evaluate --resume`` of parts that a stranger has made, with digests that are right, and outputs in their place."""
    _make_pairs(folder)
    run = _run(folder)
    for other, intact in {**run, name: content}.items():
        path = folder / other
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".arrow":
            identity = json.loads(run[str(Path(other).parent / "run.json")])["identity"]
            digest = hashlib.blake2b(intact, digest_size=16, key=identity.encode()).hexdigest()
            path = path.with_name(f"{path.name[:15]}{digest}.arrow")
        path.write_bytes(intact)
    command(*_EVALUATE, "--resume")


def compare_seeds(folder: Path) -> Files:
    """The files that ``compare`` reads."""
    outputs = {name: _run(folder)[name] for name in ("o/summary.json", "o/scores.parquet")}
    return {**outputs, "utility.csv": b"run,utility,lower,upper\no,0.5,0.4,0.6\np,0.7,,\n"}


def read_compared(folder: Path, name: str, content: bytes) -> None:
    """``compare`` of two runs and their utility, one of the files being a stranger's."""
    for other, intact in compare_seeds(folder).items():
        for path in (Path(other), *([Path("p", Path(other).name)] if other.startswith("o/") else [])):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content if str(path) == name else intact)
    command("compare", "o", "p", "--utility", "utility.csv", "--output", "out", "--common")


def checkpoint_seeds(folder: Path) -> Files:
    """An encoder, a checkpoint of its training, weights of a study's classifier, the state of a learned attacker."""
    encoder = Encoder(torch.nn.Linear(2, 3), Preprocessing(8))
    save_encoder(encoder, folder / "e", {"epochs": 1})
    recipe = {"hyper_parameters": dataclasses.asdict(Recipe()), "state_dict": {}, "epoch": 1}
    torch.save(recipe, file := io.BytesIO())
    weights = weights_of(build(_MODEL, 2, 8))
    return {"semsim.safetensors": (folder / "e").read_bytes(), "last.ckpt": file.getvalue(), "weights.pt": weights}


def read_checkpoint(folder: Path, name: str, content: bytes) -> None:
    """As SemSim, ``semsim train --resume``, ``study`` and ``evaluate --resume --learned`` read weights."""
    path = folder / name
    path.write_bytes(content)
    if name == "last.ckpt":
        _is_ours(path)
    with contextlib.suppress(ValueError, OSError):
        if name == "last.ckpt":
            _check_same_recipe(path, Recipe())
        elif name == "weights.pt":
            load(_MODEL, content, 2, 8, own=True)
        else:
            with contextlib.suppress(CheckpointError):
                load_encoder(path, torch.nn.Linear(2, 3))
            read_training(path)


def study_seeds(folder: Path) -> Files:
    """The file of a study and the record of a unit of its work."""
    Folder(folder).do(_unit())
    record = (folder / "manifests/score/a.json").read_bytes()
    extra = b"a: &a [1, 2.5, ~, yes, 2024-13-01, 0x1f, .inf]\nb: *a\nc: {<<: {d: !!int 7}}\n"
    return {"study.yaml": builtin_text().encode(), "tags.yaml": extra, "a.json": record, ".lock.json": b'{"process": 7}'}


def read_study(folder: Path, name: str, content: bytes) -> None:
    """As ``study`` reads its configuration and the records of what is done."""
    if name.endswith(".yaml"):
        (folder / name).write_bytes(content)
        with contextlib.suppress(ConfigError, OSError):
            read_config(folder / name)
        return
    path = folder / "manifests" / ("score/a.json" if name == "a.json" else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with Folder(folder).held():
        Folder(folder).reason_to_do(_unit())
        Folder(folder).summarize("score", [_unit()])


def with_digest(content: bytes) -> bytes:
    """A study's record whose digest is right."""
    try:
        record = json.loads(content)
        del record["digest"]
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        return json.dumps({**record, "digest": digest}).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return content


def votes_seeds(folder: Path) -> Files:
    """A database of votes."""
    items = [Item("d", "m", "a", f"o{i}", f"r{i}", "cat", ("cat", "dog"), pictures=("", "")) for i in range(3)]
    database = Database(folder / "v.sqlite")
    store = Store.create(database, Settings("category", repeats=0.5, catch=0.5), items)
    for name in ("ann", "bob"):
        annotator = store.register(name)
        while (trial := store.show(annotator).trial) is not None:
            store.vote(annotator, trial.token, "cat", visible_ms=5)
        store.undo(annotator, str(store.turn(annotator).undoable))
    database.close()
    return {"v.sqlite": (folder / "v.sqlite").read_bytes()}


def read_votes(folder: Path, name: str, content: bytes) -> None:
    """As ``annotate`` opens a database that it is given, shows its overview, and exports it."""
    (folder / name).write_bytes(content)
    with contextlib.suppress(DatabaseFileError):
        database = Database(folder / name, must_exist=True)
        try:
            overview(Store(database))
        finally:
            database.close()
    command("annotate", "export", "--database", name, "--output", "table.csv")


def output_seeds(folder: Path) -> Files:
    """Files of other people that lie where an output is to be written."""
    found = {Path(name).name: content for name, content in _run(folder).items()}
    return {**found, "t.csv": b"a,b\n", "g.png": _pictures()[0]}


def read_output(folder: Path, name: str, content: bytes) -> None:
    """As every command looks at a file before it writes there."""
    (folder / name).write_bytes(content)
    is_ours(folder / name)
    has_header(folder / name, ("a", "b"))


TARGETS = {
    "picture": Target(picture_seeds, read_image, with_checksums),
    "tiff": Target(tiff_seeds, read_image),
    "tensor": Target(tensor_seeds, read_image),
    "table": Target(table_seeds, read_table),
    "run": Target(run_seeds, read_run),
    "compare": Target(compare_seeds, read_compared),
    "checkpoint": Target(checkpoint_seeds, read_checkpoint),
    "study": Target(study_seeds, read_study, with_digest),
    "votes": Target(votes_seeds, read_votes),
    "output": Target(output_seeds, read_output),
}


def command(*arguments: str) -> None:
    """A command; the errors that it tells in one sentence are passed over.

    Raises:
        Exception: what would be the exit status 70, or no memory.
    """
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore", AttackerMetricsWarning)
        try:
            cli._understood(arguments)()
        except (UsageError, MissingExtraError, OSError, Interrupted):
            pass
        except Unexpected as error:
            raise error.__cause__ or error from None


@functools.cache
def _run(folder: Path) -> Files:
    return run_seeds(folder)


def _make_pairs(folder: Path) -> None:
    pictures = _pictures()
    rows = "".join(f"{i},{i}.png,{i}.png,g{i}\n" for i in range(len(pictures)))
    (folder / "m.csv").write_text(f"id,clean,noisy,group\n{rows}")
    for i, picture in enumerate(pictures):
        (folder / f"{i}.png").write_bytes(picture)


@functools.cache
def _pictures() -> list[bytes]:
    files = [io.BytesIO() for _ in range(12)]
    for number, file in enumerate(files):
        Image.fromarray(np.roll(_PIXELS, number, axis=0)).save(file, "PNG")
    return [file.getvalue() for file in files]


def _unit() -> Unit:
    def work(root: Path) -> dict[str, Any]:
        write_file(root / "scores.csv", b"a,b\n")
        return {"seconds": 1.5}

    return Unit("score", "a", {"betas": [0.5, {"x": None}]}, (), ("scores.csv",), work, {"data": "7"})
