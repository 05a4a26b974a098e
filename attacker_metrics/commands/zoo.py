"""``attacker-metrics zoo``: what is known about published obfuscations, pictures hidden by one, and yours beside them."""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import App, Parameter, Token

from attacker_metrics._names import ZOO_VERSION, Family, UndoneBy
from attacker_metrics._options import flag, number, option, several, whole
from attacker_metrics._spelling import known_as
from attacker_metrics.commands.parsing import add_command, application
from attacker_metrics.evaluation.options import AttackerOptions, EvaluateOptions, LearnedOption
from attacker_metrics.jobs.ending import OK, SOME_FAILED, UsageError, bad_usage

if TYPE_CHECKING:
    from torch import Tensor

    from attacker_metrics.obfuscations import Obfuscation

MANIFEST, SENT = "manifest.csv", "sent"
"""What :func:`apply` writes."""
YOURS = "yours"
"""Name of the run on the user's own pictures."""


def _family(_type: Any, tokens: Sequence[Token]) -> str:
    """A family, in British or American spelling."""
    family = known_as(tokens[-1].value, get_args(Family))
    if family not in get_args(Family):
        raise ValueError(f"there is no family {family!r}; there are {', '.join(get_args(Family))}")
    return family


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What ``zoo list`` is asked for."""

    family: Annotated[Family | None, option("only of this family", converter=_family)] = None
    undone_by: Annotated[UndoneBy | None, option("only what this one can undo")] = None
    json: Annotated[bool, flag("print all that is known, as JSON")] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What ``zoo show`` is asked for."""

    name: Annotated[str, option("of the obfuscation; 'list' names all")] = field(kw_only=False)
    json: Annotated[bool, flag("print it as JSON")] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ApplyOptions:
    """What ``zoo apply`` is asked for."""

    name: Annotated[str, option("of the obfuscation; 'list' names all")] = field(kw_only=False)
    input: Annotated[Path, option("folder of the originals, with its subfolders")]
    output: Annotated[Path, option("folder, new or empty")]
    seed: Annotated[int, option("the secret", converter=whole)] = 0
    strength: Annotated[float | None, option("(default: the table's; see 'show')", converter=number)] = None
    format: Annotated[Literal["npy", "png"], option("png rounds to 8 bits, as sent files often are")] = "npy"


_STANDARD = AttackerOptions()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What ``zoo compare`` is asked for."""

    names: Annotated[tuple[str, ...], several("of obfuscations; 'list' names all")] = field(kw_only=False)
    clean: Annotated[Path, option("folder of the originals")]
    noisy: Annotated[Path, option("folder of the same pictures as you hid them, by the same relative paths")]
    output: Annotated[Path, option("folder, new or empty")]
    seed: Annotated[int, option("the obfuscations' secret", converter=whole)] = 0
    learned: LearnedOption = ()
    attackers: Annotated[AttackerOptions, Parameter(name="*")] = _STANDARD


_ALL = ListOptions()


def add(app: App) -> None:
    """Add the commands."""
    zoo = application(
        "zoo",
        "Published obfuscations: list them, show what is known, hide pictures by one, compare yours with them.\n\nThe table"
        f" {ZOO_VERSION} of obfuscations that are used, sold or published.",
    )
    add_command(zoo, list_zoo, name="list")
    add_command(zoo, show)
    add_command(zoo, apply, "Example:", "  attacker-metrics zoo apply mosaic --input originals/ --output hidden/")
    add_command(
        zoo,
        compare,
        "Example:",
        "  attacker-metrics zoo compare etc-colour mosaic --clean originals/ --noisy sent/ --output beside/ --learned all",
    )
    add_command(app, zoo)


def list_zoo(options: ListOptions = _ALL) -> int:
    """List the obfuscations, one a line: name, family, who can undo it, what it does."""
    from attacker_metrics.obfuscations import zoo

    entries = zoo(family=options.family, undone_by=options.undone_by)
    if options.json:
        print(json.dumps([entry.metadata() for entry in entries], indent=2))
        return OK
    name, family = (max((len(getattr(entry, fact)) for entry in entries), default=0) for fact in ("name", "family"))
    for entry in entries:
        print(f"{entry.name:{name}}  {entry.family:{family}}  {entry.undone_by:6}  {entry.summary}")
    return OK


def show(options: ShowOptions) -> int:
    """Show all that is known about an obfuscation."""
    known = _entry(options.name).metadata()
    if options.json:
        print(json.dumps(known, indent=2))
        return OK
    if known["strength"]:
        known["strength"] = "{meaning}: {default:g} ({low:g} to {high:g})".format(**known["strength"])
    low, high = known["bounds"]
    known["bounds"] = f"{'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"
    words = {None: "-", True: "yes", False: "no"}
    for fact, value in known.items():
        shown = words[value] if value is None or isinstance(value, bool) else value
        print(f"{fact.replace('_', ' '):14} {shown}")
    return OK


def apply(options: ApplyOptions) -> int:
    """Hide every picture of a folder, and write manifest.csv for 'evaluate --manifest'.

    Keys per image follow from the picture's path below --input.
    """
    from attacker_metrics.files.spreadsheet import csv_text
    from attacker_metrics.files.writing import staged

    entry = _entry(options.name)
    if options.format == "png" and not (entry.bounds[0] >= 0 and entry.bounds[1] <= 1):
        raise UsageError(f"{entry.name} leaves [0, 1], which PNG would clip; pass --format npy.")
    _check_new(options.output, [options.input])
    output = options.output.resolve()
    pictures = _pictures(options.input)
    rows = [("id", "clean", "noisy", "obfuscation")]
    with staged(output) as stage:
        for name, path in pictures.items():
            sent = Path(SENT, f"{name}.{options.format}")
            (stage / sent).parent.mkdir(parents=True, exist_ok=True)
            (stage / sent).write_bytes(_encoded(_hidden(entry, path, name, options), options.format))
            clean = Path(os.path.relpath(path.resolve(), output)).as_posix()
            rows.append((name, clean, sent.as_posix(), f"{ZOO_VERSION}/{entry.name}"))
        (stage / MANIFEST).write_text(csv_text(rows), encoding="utf-8", newline="")
    print(f"hid {len(pictures)} pictures by {entry.name}; wrote {options.output / MANIFEST} (the folder holds image data)")
    return OK


def compare(options: CompareOptions) -> int:
    """Compare your way to hide pictures with obfuscations of the zoo: the same originals, the same attackers.

    Hides --clean by each, evaluates what came out and --noisy as 'evaluate' does, and compares the runs with yours as
    'compare' does. --output holds the hidden pictures (hidden/), a report of each (reports/) and the comparison.
    """
    from attacker_metrics.commands.compare import CompareOptions as Runs
    from attacker_metrics.commands.compare import compare as compare_runs
    from attacker_metrics.pairs.folders import FolderPairs, PairingError
    from attacker_metrics.report.evaluated import evaluate

    names = dict.fromkeys(_entry(name).name for name in options.names)
    _check_new(options.output, (options.clean, options.noisy))
    with bad_usage(PairingError):
        FolderPairs(options.clean, options.noisy)
    hidden, reports = options.output / "hidden", options.output / "reports"
    sent = {YOURS: options.noisy, **{name: hidden / name / SENT for name in names}}
    for name in names:
        apply(ApplyOptions(name, input=options.clean, output=hidden / name, seed=options.seed))
    settings = {one.name: getattr(options.attackers, one.name) for one in fields(AttackerOptions)}
    worst = OK
    for name, noisy in sent.items():
        print(f"\n{name}:")
        run = EvaluateOptions(clean=options.clean, noisy=noisy, output=reports / name, learned=options.learned, **settings)
        worst = max(worst, status := evaluate(run))
        if status not in (OK, SOME_FAILED):
            return status
    print()
    compare_runs(Runs(tuple(reports / name for name in sent), output=options.output / "comparison"))
    return worst


def _check_new(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse a folder of somebody else's, or one that would be read again by a second run."""
    whole = output.resolve()
    for given in inputs:
        if whole == given.resolve() or given.resolve() in whole.parents:
            raise UsageError(f"--output {output} lies in {given}; write elsewhere, or a second run would read it too.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"--output {output} exists and is not an empty folder; nothing is overwritten.")


def _entry(name: str) -> "Obfuscation":
    from attacker_metrics.obfuscations import obfuscation

    try:
        return obfuscation(name)
    except KeyError as error:
        raise UsageError(f"{error.args[0]} 'attacker-metrics zoo list' names all.") from error


def _pictures(folder: Path) -> dict[str, Path]:
    """Path below the folder without suffix -> file."""
    from attacker_metrics.files.images import PICTURE_SUFFIXES, TENSOR_SUFFIXES

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


def _hidden(entry: "Obfuscation", path: Path, name: str, options: ApplyOptions) -> "Tensor":
    from attacker_metrics.files.images import ImageError, read_image

    with bad_usage(ImageError):
        original = read_image(path).pixels
    try:
        return entry(original[None], seed=options.seed, strength=options.strength, ids=[name])[0]
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _encoded(picture: "Tensor", suffix: str) -> bytes:
    import numpy as np

    content = io.BytesIO()
    if suffix == "npy":
        np.save(content, picture.numpy())
    else:
        from PIL import Image

        pixels = (picture * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(content, "png")
    return content.getvalue()
