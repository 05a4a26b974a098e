"""``attacker-metrics semsim train`` and ``score``: train SemSim on annotations, and score reconstructions with it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from cyclopts import App, Parameter

from attacker_metrics._extras import MissingExtraError, missing_extra
from attacker_metrics._options import OVERWRITE, flag, number, option, whole
from attacker_metrics.commands.parsing import add_command, application
from attacker_metrics.files.terminal import printable
from attacker_metrics.jobs.ending import OK, bad_usage

if TYPE_CHECKING:
    from attacker_metrics.faithfulness import Annotations

_Options = TypeVar("_Options")


@dataclass(frozen=True, kw_only=True)
class _Tables:
    annotations: Annotated[Path, option("CSV or Parquet, as for 'faithfulness'; paths as ids")]
    images: Annotated[Path, option("folder that the paths are relative to")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainOptions(_Tables):
    """What ``semsim train`` is asked for."""

    output: Annotated[Path, option("folder of the training")]
    overwrite: Annotated[bool, flag(OVERWRITE)] = False
    architecture: Annotated[Literal["resnet18", "resnet50"], option("the encoder")] = "resnet18"
    size: Annotated[int, option("resize to so many pixels, both sides", converter=whole)] = 32
    margin: Annotated[float, option("of the triplet loss", converter=number)] = 1.0
    learning_rate: Annotated[float, option("of SGD", converter=number)] = 0.05
    epochs: Annotated[int, option("passes over the triplets", converter=whole)] = 100
    batch_size: Annotated[int, option("triplets per step", converter=whole)] = 64
    validation: Annotated[float, option("share of originals to choose the best epoch by", converter=number)] = 0.1
    patience: Annotated[
        int | None, option("stop after so many epochs without a better validation loss", converter=whole)
    ] = None
    hold_out: Annotated[str | None, option("data set that is only tested on")] = None
    resume: Annotated[bool, flag("go on where the run in --output stopped")] = False
    seed: Annotated[int, option("of weights and batches", converter=whole)] = 0
    accelerator: Annotated[str, option("cpu, gpu, ...")] = "auto"
    devices: Annotated[str, option("how many")] = "auto"
    workers: Annotated[int, option("processes that read images", converter=whole)] = 0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScoreOptions(_Tables):
    """What ``semsim score`` is asked for."""

    checkpoint: Annotated[Path, option("semsim.safetensors of a training")]
    output: Annotated[Path, option("the CSV table to write")]
    overwrite: Annotated[bool, flag(OVERWRITE)] = False
    size: Annotated[
        int | None, option("resize to so many pixels, both sides (default: the checkpoint's)", converter=whole)
    ] = None
    align: Annotated[
        int | None,
        option(
            "register originals first: mirrored and shifted by up to so many pixels; the table says which were",
            converter=whole,
        ),
    ] = None


def add(app: App) -> None:
    """Add the commands."""
    semsim = application("semsim", "Train SemSim, a learned metric, on annotated reconstructions, or score with it.")
    add_command(semsim, train)
    add_command(semsim, score)
    add_command(app, semsim)


def train(options: TrainOptions) -> int:
    """Train an encoder on which reconstructions people recognised.

    By triplets: an original, a recognisable and an unrecognisable reconstruction of it. Needs the extras 'semsim' and
    'faithfulness'.
    """
    return _usage_errors(_train, options)


def score(options: ScoreOptions) -> int:
    """Score the reconstructions of an annotation table.

    Writes a score table with MSE, PSNR, SSIM and SemSim of every reconstruction, for 'faithfulness'.
    """
    return _usage_errors(_score, options)


def _usage_errors(run: Callable[[_Options], None], options: _Options) -> int:
    try:
        with bad_usage(ValueError):
            run(options)
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        raise missing_extra(str(error), "semsim", error) from error
    return OK


def _train(options: TrainOptions) -> None:
    from attacker_metrics.faithfulness import read_annotations
    from attacker_metrics.semsim import training

    recipe = training.Recipe(
        architecture=options.architecture,
        size=options.size,
        margin=options.margin,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation=options.validation,
        patience=options.patience,
        hold_out=options.hold_out,
        seed=options.seed,
    )
    annotations = read_annotations(options.annotations)
    training.check_writable(
        options.output,
        [options.annotations],
        overwrite=options.overwrite,
        many=lambda: _pictures(annotations, options.images),
    )
    report = training.train(
        annotations,
        options.images,
        options.output,
        recipe,
        resume=options.resume,
        workers=options.workers,
        progress=sys.stderr.isatty(),
        accelerator=options.accelerator,
        devices=options.devices,
    )
    skipped = report["skipped"]
    if skipped:
        named = ", ".join(skipped[:10]) + (f" and {len(skipped) - 10} more" if len(skipped) > 10 else "")
        named = printable(named)
        print(f"skipped, without reconstructions of both kinds: {len(skipped)} originals: {named}", file=sys.stderr)
    for name, value in report["results"].items():
        print(f"{name}: {value:.4f}")
    print(f"wrote {printable(options.output / training.CHECKPOINT)}")


def _score(options: ScoreOptions) -> None:
    from attacker_metrics.faithfulness import read_annotations
    from attacker_metrics.files.spreadsheet import csv_text
    from attacker_metrics.files.writing import with_suffix, write_whole
    from attacker_metrics.quality.metrics import quality_scores
    from attacker_metrics.semsim import load_encoder, semsim
    from attacker_metrics.semsim.scoring import score_table

    if options.size is not None and options.size < 16:
        raise ValueError(f"--size is {options.size}; it is at least 16 pixels.")
    output = with_suffix(options.output, ".csv")
    annotations = read_annotations(options.annotations)
    _check_table(options, output, annotations)
    encoder = load_encoder(options.checkpoint)
    size = options.size or encoder.preprocessing.size
    if size is None:
        raise ValueError(f"{options.checkpoint} does not say a size; pass --size.")
    table = score_table(
        annotations,
        options.images,
        lambda preds, target: {**quality_scores(preds, target), "semsim": semsim(preds, target, encoder)},
        size=size,
        max_shift=options.align,
    )
    _check_table(options, output, annotations)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, csv_text([list(table), *zip(*table.values(), strict=True)]).encode())
    print(f"wrote {printable(output)}")


def _pictures(annotations: "Annotations", images: Path) -> list[Path]:
    return [images / str(name) for names in (annotations.original, annotations.reconstruction) for name in names]


def _check_table(options: ScoreOptions, output: Path, annotations: "Annotations") -> None:
    from attacker_metrics.files.writing import check_outputs, has_header

    scores = ("reconstruction", "mse", "psnr", "ssim", "semsim")
    check_outputs(
        [output],
        inputs=[options.annotations, options.checkpoint],
        overwrite=options.overwrite,
        ours=lambda path: has_header(path, scores, (*scores, "flipped", "shift_y", "shift_x")),
        many=lambda: _pictures(annotations, options.images),
    )
