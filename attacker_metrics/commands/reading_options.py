"""The options that say how files are read, of every command that scores images."""

from __future__ import annotations

import argparse
import math
from typing import Any

from attacker_metrics.commands.options import positive
from attacker_metrics.files.reading import DEFAULT, ORIENTATIONS, Reading


def add_reading(group: Any) -> None:
    """Add the options to a parser or one of its groups."""
    group.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        default=DEFAULT.orientation,
        help="apply the EXIF orientation of pictures, ignore it, or apply it but refuse pairs of which one file alone has"
        " one (default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT.timeout,
        metavar="SECONDS",
        help="until a file must have arrived from a server (default: %(default)g)",
    )
    group.add_argument(
        "--max-pixels",
        type=positive,
        default=DEFAULT.max_pixels,
        metavar="N",
        help="refuse larger pictures before they are decoded (default: %(default)s)",
    )
    group.add_argument(
        "--max-bytes",
        type=positive,
        default=DEFAULT.max_bytes,
        metavar="N",
        help="refuse larger files before they are held in memory (default: %(default)s)",
    )


def reading_of(options: argparse.Namespace) -> Reading:
    """What the options say."""
    return Reading(options.timeout, options.max_pixels, options.max_bytes, options.orientation)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds
