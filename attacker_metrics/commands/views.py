"""``attacker-metrics views``: what every attacker sees of one pair."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attacker_metrics.commands.options import OK, add_overwrite, add_settings, bad_usage, privacy_of
from attacker_metrics.commands.reading_options import add_reading, reading_of
from attacker_metrics.files.images import ImageError
from attacker_metrics.files.terminal import printable
from attacker_metrics.files.writing import check_outputs, with_suffix, write_whole
from attacker_metrics.pairs.sources import load_pair
from attacker_metrics.report.views import views_png


def add(commands: Any) -> None:
    """Add the command's parser."""
    command = commands.add_parser(
        "views",
        help="draw what every attacker sees of one pair",
        description="Draw what every attacker sees of one pair, each tile with its score. The picture holds image data.",
    )
    command.set_defaults(command=views)
    command.add_argument("clean", type=Path, metavar="CLEAN")
    command.add_argument("noisy", type=Path, metavar="NOISY")
    command.add_argument("--output", type=Path, required=True, metavar="PNG", help="the picture to write")
    add_overwrite(command)
    add_reading(command)
    add_settings(command)


def views(options: argparse.Namespace) -> int:
    """Draw what every attacker sees of one pair."""
    with bad_usage(ValueError):
        output = with_suffix(options.output, ".png")
    check_outputs([output], inputs=[options.clean, options.noisy], overwrite=options.overwrite)
    privacy = privacy_of(options)
    with bad_usage(ImageError):
        pair = load_pair(options.clean, options.noisy, side=options.resize, reading=reading_of(options))
    with bad_usage(ValueError):
        png = views_png(pair, privacy, title=f"{options.noisy.name} against {options.clean.name}")
    check_outputs([output], inputs=[options.clean, options.noisy], overwrite=options.overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, png)
    print(f"wrote {printable(output)} (it holds image data)")
    return OK
