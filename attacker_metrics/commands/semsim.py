"""``attacker-metrics semsim train`` and ``score``: train SemSim on annotations, and score reconstructions with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from attacker_metrics._extras import MissingExtraError, missing_extra
from attacker_metrics.commands.options import OK, UsageError, add_overwrite
from attacker_metrics.files.spreadsheet import escaped
from attacker_metrics.files.terminal import printable
from attacker_metrics.files.writing import check_outputs, has_header, with_suffix, write_whole


def add(commands: Any) -> None:
    """Add the command's parsers."""
    semsim = commands.add_parser(
        "semsim", help="train SemSim on annotated reconstructions, or score with it", description="SemSim, a learned metric."
    )
    parts = semsim.add_subparsers(required=True, metavar="COMMAND")
    command = parts.add_parser(
        "train",
        help="train an encoder on which reconstructions people recognised",
        description="Train an encoder by triplets: an original, a recognisable and an unrecognisable reconstruction of it."
        " Needs the extras 'semsim' and 'faithfulness'.",
    )
    command.set_defaults(command=train)
    _add_tables(command)
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where")
    add_overwrite(command)
    command.add_argument("--architecture", choices=("resnet18", "resnet50"), default="resnet18", help="(default: resnet18)")
    command.add_argument("--size", type=int, default=32, metavar="S", help="resize to S x S pixels (default: 32)")
    command.add_argument("--margin", type=float, default=1.0, metavar="M", help="of the triplet loss (default: 1)")
    command.add_argument("--learning-rate", type=float, default=0.05, metavar="R", help="of SGD (default: 0.05)")
    command.add_argument("--epochs", type=int, default=100, metavar="N", help="(default: 100)")
    command.add_argument("--batch-size", type=int, default=64, metavar="N", help="triplets per step (default: 64)")
    command.add_argument(
        "--validation", type=float, default=0.1, metavar="SHARE", help="originals to choose the best epoch by (default: 0.1)"
    )
    command.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without a better validation loss")
    command.add_argument("--hold-out", metavar="NAME", help="data set that is only tested on")
    command.add_argument("--resume", action="store_true", help="go on where the run in --output stopped")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    command.add_argument("--accelerator", default="auto", metavar="NAME", help="cpu, gpu, ... (default: auto)")
    command.add_argument("--devices", default="auto", metavar="N", help="how many (default: auto)")
    command.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")

    command = parts.add_parser(
        "score",
        help="score the reconstructions of an annotation table",
        description="Write a score table with MSE, PSNR, SSIM and SemSim of every reconstruction, for 'faithfulness'.",
    )
    command.set_defaults(command=score)
    _add_tables(command)
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="semsim.safetensors of a training")
    command.add_argument("--output", type=Path, required=True, metavar="CSV", help="the table to write")
    add_overwrite(command)
    command.add_argument("--size", type=int, metavar="S", help="resize to S x S pixels (default: the checkpoint's)")
    command.add_argument(
        "--align",
        type=int,
        metavar="PIXELS",
        help="register originals first: mirrored and shifted by up to so many pixels; the table says which were",
    )


def train(options: argparse.Namespace) -> int:
    """Train and say what came out."""
    return _usage_errors(_train, options)


def score(options: argparse.Namespace) -> int:
    """Score and write the table."""
    return _usage_errors(_score, options)


def _add_tables(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--annotations", type=Path, required=True, metavar="FILE", help="CSV or Parquet, as for 'faithfulness'; paths as ids"
    )
    command.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder that the paths are relative to")


def _usage_errors(run: Any, options: argparse.Namespace) -> int:
    try:
        run(options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        raise missing_extra(str(error), "semsim", error) from error
    return OK


def _train(options: argparse.Namespace) -> None:
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
    training.check_writable(options.output, [options.annotations], overwrite=options.overwrite)
    report = training.train(
        read_annotations(options.annotations),
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


def _score(options: argparse.Namespace) -> None:
    import csv
    import io

    from attacker_metrics.faithfulness import read_annotations
    from attacker_metrics.quality.metrics import quality_scores
    from attacker_metrics.semsim import load_encoder, semsim
    from attacker_metrics.semsim.scoring import score_table

    if options.size is not None and options.size < 16:
        raise ValueError(f"--size is {options.size}; it is at least 16 pixels.")
    output = with_suffix(options.output, ".csv")
    _check_table(options, output)
    encoder = load_encoder(options.checkpoint)
    size = options.size or encoder.preprocessing.size
    if size is None:
        raise ValueError(f"{options.checkpoint} does not say a size; pass --size.")
    table = score_table(
        read_annotations(options.annotations),
        options.images,
        lambda preds, target: {**quality_scores(preds, target), "semsim": semsim(preds, target, encoder)},
        size=size,
        max_shift=options.align,
    )
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(table)
    writer.writerows(map(escaped, row) for row in zip(*table.values(), strict=True))
    _check_table(options, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, buffer.getvalue().encode())
    print(f"wrote {printable(output)}")


def _check_table(options: argparse.Namespace, output: Path) -> None:
    scores = ("reconstruction", "mse", "psnr", "ssim", "semsim")
    check_outputs(
        [output],
        inputs=[options.annotations, options.checkpoint],
        overwrite=options.overwrite,
        ours=lambda path: has_header(path, scores, (*scores, "flipped", "shift_y", "shift_x")),
    )
