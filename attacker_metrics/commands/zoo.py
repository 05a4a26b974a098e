"""``attacker-metrics zoo``: what is known about published obfuscations, and a folder of pictures hidden by one."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from attacker_metrics.commands.options import OK, UsageError, bad_usage
from attacker_metrics.files.images import PICTURE_SUFFIXES, TENSOR_SUFFIXES, ImageError, read_image
from attacker_metrics.files.spreadsheet import escaped
from attacker_metrics.files.writing import staged
from attacker_metrics.obfuscations import FAMILIES, UNDONE_BY, ZOO_VERSION, Obfuscation, obfuscation, zoo

MANIFEST = "manifest.csv"


def add(commands: Any) -> None:
    """Add the command's parsers."""
    parts = commands.add_parser(
        "zoo",
        help="published obfuscations: list them, show what is known, hide pictures by one",
        description=f"The table {ZOO_VERSION} of obfuscations that are used, sold or published.",
    ).add_subparsers(required=True, metavar="COMMAND")

    command = parts.add_parser("list", help="name them", description="List the obfuscations, one a line.")
    command.set_defaults(command=list_zoo)
    command.add_argument("--family", choices=FAMILIES, help="only of this family")
    command.add_argument("--undone-by", choices=UNDONE_BY, help="only what this one can undo")
    command.add_argument("--json", action="store_true", help="print all that is known, as JSON")

    command = parts.add_parser(
        "show", help="what is known about one", description="Show what is known about an obfuscation."
    )
    command.set_defaults(command=show)
    command.add_argument("name", metavar="NAME")
    command.add_argument("--json", action="store_true", help="print it as JSON")

    command = parts.add_parser(
        "apply",
        help="hide a folder of pictures",
        description=f"Hide every picture of a folder, and write {MANIFEST} for 'evaluate --manifest'. Keys per image follow"
        " from the picture's path below --input.",
    )
    command.set_defaults(command=apply)
    command.add_argument("name", metavar="NAME")
    command.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="of the originals, with its subfolders")
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new or empty")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the secret (default: 0)")
    command.add_argument("--strength", type=float, metavar="S", help="(default: the table's; see 'show')")
    command.add_argument(
        "--format",
        choices=("npy", "png"),
        default="npy",
        help="png rounds to 8 bits, as sent files often are (default: npy)",
    )


def list_zoo(options: argparse.Namespace) -> int:
    """Print names, who can undo each, and what it does."""
    entries = zoo(family=options.family, undone_by=options.undone_by)
    if options.json:
        print(json.dumps([entry.metadata() for entry in entries], indent=2))
        return OK
    name, family = (max((len(getattr(entry, field)) for entry in entries), default=0) for field in ("name", "family"))
    for entry in entries:
        print(f"{entry.name:{name}}  {entry.family:{family}}  {entry.undone_by:6}  {entry.summary}")
    return OK


def show(options: argparse.Namespace) -> int:
    """Print all that is known about an obfuscation."""
    known = _entry(options.name).metadata()
    if options.json:
        print(json.dumps(known, indent=2))
        return OK
    if known["strength"]:
        known["strength"] = "{meaning}: {default:g} ({low:g} to {high:g})".format(**known["strength"])
    low, high = known["bounds"]
    known["bounds"] = f"{'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"
    words = {None: "-", True: "yes", False: "no"}
    for field, value in known.items():
        shown = words[value] if value is None or isinstance(value, bool) else value
        print(f"{field.replace('_', ' '):14} {shown}")
    return OK


def apply(options: argparse.Namespace) -> int:
    """Hide the pictures of a folder."""
    entry = _entry(options.name)
    if options.format == "png" and not (entry.bounds[0] >= 0 and entry.bounds[1] <= 1):
        raise UsageError(f"{entry.name} leaves [0, 1], which PNG would clip; pass --format npy.")
    source, output = options.input.resolve(), options.output.resolve()
    if output == source or source in output.parents:
        raise UsageError(f"--output {options.output} lies in --input; write elsewhere, or a second run would hide it again.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"--output {options.output} exists and is not an empty folder; nothing is overwritten.")
    pictures = _pictures(options.input)
    with staged(output) as stage, (stage / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "clean", "noisy", "obfuscation"])
        for name, path in pictures.items():
            sent = Path("sent", f"{name}.{options.format}")
            (stage / sent).parent.mkdir(parents=True, exist_ok=True)
            (stage / sent).write_bytes(_encoded(_hidden(entry, path, name, options), options.format))
            clean = Path(os.path.relpath(path.resolve(), output)).as_posix()
            row = (name, clean, sent.as_posix(), f"{ZOO_VERSION}/{entry.name}")
            writer.writerow([escaped(cell) for cell in row])
    print(f"hid {len(pictures)} pictures by {entry.name}; wrote {options.output / MANIFEST} (the folder holds image data)")
    return OK


def _entry(name: str) -> Obfuscation:
    try:
        return obfuscation(name)
    except KeyError as error:
        raise UsageError(f"{error.args[0]} 'attacker-metrics zoo list' names all.") from error


def _pictures(folder: Path) -> dict[str, Path]:
    """Path below the folder without suffix -> file."""
    if not folder.is_dir():
        raise UsageError(f"--input {folder} is not a folder.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (*PICTURE_SUFFIXES, *TENSOR_SUFFIXES) or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UsageError(f"{path} and {found[name]} differ in their suffix only; rename one.")
        found[name] = path
    if not found:
        raise UsageError(f"--input {folder} holds no picture ({', '.join((*PICTURE_SUFFIXES, *TENSOR_SUFFIXES))}).")
    return found


def _hidden(entry: Obfuscation, path: Path, name: str, options: argparse.Namespace) -> Tensor:
    with bad_usage(ImageError):
        original = read_image(path).pixels
    try:
        return entry(original[None], seed=options.seed, strength=options.strength, ids=[name])[0]
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _encoded(picture: Tensor, suffix: str) -> bytes:
    content = io.BytesIO()
    if suffix == "npy":
        np.save(content, picture.numpy())
    else:
        from PIL import Image

        pixels = (picture * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(content, "png")
    return content.getvalue()
