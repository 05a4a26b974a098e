"""The options of ``attacker-metrics evaluate``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from attacker_metrics.commands.options import add_overwrite, add_settings, count, positive
from attacker_metrics.commands.reading_options import add_reading
from attacker_metrics.evaluation.summary import READ, READ_RATE, STATISTICS, STRONGEST, Gate
from attacker_metrics.pairs.split import DEFAULT_SHARE
from attacker_metrics.reading.learned import STANDARD_LEARNED
from attacker_metrics.reading.strongest.originals import MOST_COMPARISONS, PER_PICTURE

MOST_PAIRS = 1_000_000
NULL_OF_SUITE = MOST_COMPARISONS
"""Comparisons of a suite's run by default."""
_DEFAULT_OUTPUT = Path("attacker-metrics-report")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the parser of ``evaluate``."""
    command: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="score pairs of images and write a report",
        description="Score pairs of noisy and clean images after every attacker's post-processing. Without images it"
        " evaluates four built-in photographs under six built-in obfuscations. Processes of torchrun share the work.",
        epilog="Exit status: 0 all fine, 1 some pairs failed, 2 bad usage or nothing could be written, 3 a --fail-above"
        " limit was exceeded, 130 or 143 interrupted (--resume continues).",
    )
    files = command.add_argument_group("images")
    files.add_argument("--clean", type=Path, metavar="DIR", help="folder of the originals")
    files.add_argument(
        "--noisy",
        type=Path,
        metavar="DIR",
        help="folder of the noisy images, paired with the originals by relative path without suffix: PNG, JPEG, WebP,"
        " AVIF, BMP, GIF, PPM, TIFF, or .npy, .safetensors and .pt tensors (3, H, W) in the scale of the originals that may"
        " leave [0, 1]",
    )
    files.add_argument("--allow-unmatched", action="store_true", help="leave files without a partner out")
    files.add_argument(
        "--manifest",
        metavar="FILE",
        help="instead of folders, a CSV or Parquet file with the columns id, clean and noisy: paths relative to it, or URLs"
        " (s3://, gs://, http://, https://); further columns go into scores.parquet",
    )
    files.add_argument(
        "--draws",
        type=positive,
        metavar="K",
        help="of a random obfuscation that was drawn K times per picture, let every attacker see the first draw and, as"
        " draws_NAME, the mean of all: each noisy cell of the manifest lists K files, separated by semicolons",
    )
    add_reading(files)
    command.add_argument(
        "--output",
        type=Path,
        default=_DEFAULT_OUTPUT,
        metavar="DIR",
        help="where, on storage that all processes share (default: %(default)s)",
    )
    add_overwrite(command)
    command.add_argument(
        "--resume",
        action="store_true",
        help="continue an unfinished run in --output, if there is one, with the same settings",
    )
    command.add_argument(
        "--part-size",
        type=positive,
        metavar="N",
        help="pairs that are stored at once, so that each process loses at most so many to a crash (default: at most 256)",
    )
    command.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="where to compute (default: auto)")
    command.add_argument("--batch-size", type=positive, default=16, metavar="N", help="pairs at once (default: 16)")
    command.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="threads of each process that read and decode files; 0 takes turns with computing (default: by its cores)",
    )
    command.add_argument(
        "--gallery",
        type=count,
        default=0,
        metavar="N",
        help="add what each attacker sees of the N most leaking pairs to the report: this stores image data in it",
    )
    command.add_argument(
        "--fail-above",
        type=_gate,
        action="append",
        default=[],
        metavar="COMPONENT=VALUE[@mean|p95|max]",
        help="exit with status 3 if that statistic (default: mean) of a component is above the value, or cannot be judged;"
        f" also of '{STRONGEST}' (the strongest attacker's percentile among unrelated originals), and '{READ}=VALUE', the"
        f" share of pictures that it reads at a false-positive rate of {READ_RATE:.0%}% (both need --null); repeatable",
    )
    command.add_argument(
        "--null",
        type=count,
        metavar="N",
        help=f"compare every noisy image with {PER_PICTURE} clean ones of other groups too, at most N comparisons, and"
        " measure by them the strongest attacker of every pair; beyond N, a random choice of pairs is measured. They take"
        f" the time of as many pairs (default: {NULL_OF_SUITE} with --suite or --learned, otherwise 0)",
    )
    command.add_argument(
        "--learned",
        choices=(*STANDARD_LEARNED, "all"),
        action="append",
        default=[],
        help="fit an attacker (5 x 5 filter, map of 8 x 8 blocks, small residual network, key of a fixed"
        " shuffle, pad or table, filter of the picture's full size; or all of them) on the fit split of the pairs, and"
        " score the others with it too; repeatable",
    )
    command.add_argument(
        "--fit-split",
        type=_share,
        metavar="SHARE",
        help="share of the pairs to fit on, decided by a hash of group, else of the clean file; a manifest's column split"
        f" (fit or score) decides instead (default: {DEFAULT_SHARE:g} with --learned)",
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON instead of the table")
    add_settings(command)
    return command


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1, such as {DEFAULT_SHARE:g}")
    return share


def _gate(text: str) -> Gate:
    name, equals, rest = text.partition("=")
    value, at, statistic = rest.partition("@")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not (name and equals) or not math.isfinite(limit) or (at and statistic not in STATISTICS):
        raise argparse.ArgumentTypeError(f"{text!r} is not COMPONENT=VALUE[@{'|'.join(STATISTICS)}], e.g. ms_ssim=0.3@p95")
    return Gate(name, limit, statistic or STATISTICS[0])
