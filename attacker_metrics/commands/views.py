"""``attacker-metrics views``: what every attacker sees of one pair."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from attacker_metrics._options import OVERWRITE, flag, option
from attacker_metrics.commands.parsing import add_command
from attacker_metrics.evaluation.options import AttackerOptions, ReadingOptions
from attacker_metrics.files.terminal import printable
from attacker_metrics.jobs.ending import OK, bad_usage


@dataclass(frozen=True, kw_only=True)
class _Pair:
    clean: Annotated[Path, option("the original")] = field(kw_only=False)
    noisy: Annotated[Path, option("what was sent of it")] = field(kw_only=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ViewsOptions(AttackerOptions, ReadingOptions, _Pair):
    """What ``views`` is asked for."""

    output: Annotated[Path, option("the picture to write")]
    overwrite: Annotated[bool, flag(OVERWRITE)] = False


def add(app: App) -> None:
    """Add the command."""
    add_command(app, views, "Example:", "  attacker-metrics views originals/cat.png sent/cat.png --output grid.png")


def views(options: ViewsOptions) -> int:
    """Draw what every attacker sees of one pair.

    Each tile with its score. The picture holds image data.
    """
    from attacker_metrics.evaluation.attackers import privacy_of
    from attacker_metrics.files.images import ImageError
    from attacker_metrics.files.writing import check_outputs, with_suffix, write_whole
    from attacker_metrics.pairs.sources import load_pair
    from attacker_metrics.report.views import views_png

    inputs = [options.clean, options.noisy]
    with bad_usage(ValueError):
        output = with_suffix(options.output, ".png")
    check_outputs([output], inputs=inputs, overwrite=options.overwrite)
    privacy = privacy_of(options)
    with bad_usage(ImageError):
        pair = load_pair(options.clean, options.noisy, side=options.resize, decoding=options.decoding)
    with bad_usage(ValueError):
        png = views_png(pair, privacy, title=f"{options.noisy.name} against {options.clean.name}")
    check_outputs([output], inputs=inputs, overwrite=options.overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, png)
    print(f"wrote {printable(output)} (it holds image data)")
    return OK
