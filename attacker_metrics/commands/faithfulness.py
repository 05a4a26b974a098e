"""``attacker-metrics faithfulness``: do metrics agree with the people who annotated reconstructions?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from attacker_metrics.commands.options import OK, UsageError, add_overwrite
from attacker_metrics.files.terminal import printable
from attacker_metrics.files.writing import staged


def add(commands: Any) -> None:
    """Add the command's parser."""
    command = commands.add_parser(
        "faithfulness",
        help="measure whether metrics agree with human annotations of reconstructions",
        description="Correlate metrics with the people who recognised reconstructions, or did not, per image and per model;"
        " compare the metrics with each other and with the agreement of the annotators. Needs the extra 'faithfulness'.",
    )
    command.set_defaults(command=faithfulness)
    command.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or Parquet: a column 'reconstruction' (or 'id') and one per metric, e.g. scores.parquet of evaluate",
    )
    command.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or Parquet: dataset, model, attack, original, reconstruction, a column annotator_NAME per annotator"
        " (1, 0 or empty; with a column 'class', the class that was named), optionally recognizable",
    )
    command.add_argument(
        "--direction",
        type=_direction,
        action="append",
        default=[],
        metavar="NAME=higher|lower",
        help="which values of a column mean more leakage, for metrics that declare nothing; repeatable",
    )
    command.add_argument("--metric", action="append", metavar="NAME", help="use this column only; repeatable")
    command.add_argument(
        "--rule",
        choices=("majority", "any", "all", "mean"),
        default="majority",
        help="when an image counts as recognised; mean: every vote by itself (default: majority)",
    )
    command.add_argument(
        "--calibrate",
        choices=("isotonic", "logistic"),
        help="fit maps from each metric (logistic: and from all) to the probability that a person recognises the image",
    )
    command.add_argument("--draws", type=int, default=1000, metavar="N", help="bootstrap draws (default: 1000)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    command.add_argument("--allow-unmatched", action="store_true", help="leave rows without a partner out")
    command.add_argument("--output", type=Path, metavar="DIR", help="write JSON, a page and plots there")
    add_overwrite(command)
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def faithfulness(options: argparse.Namespace) -> int:
    """Read the tables, analyse, print and write."""
    try:
        return _run(options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _run(options: argparse.Namespace) -> int:
    from attacker_metrics import faithfulness as library
    from attacker_metrics.faithfulness import report
    from attacker_metrics.report.outputs import as_json

    if options.calibrate and options.rule == "mean":
        raise ValueError("--calibrate needs a rule that says yes or no: majority, any or all, not mean.")
    inputs = [options.scores, options.annotations]
    if options.output is not None:
        report.check_writable(options.output, inputs, overwrite=options.overwrite)
    annotations = library.read_annotations(options.annotations)
    scores = library.read_scores(options.scores, dict(options.direction), options.metric)
    chances: dict[str, Any] = {"rule": options.rule, "draws": options.draws, "seed": options.seed}
    chances["allow_unmatched"] = options.allow_unmatched
    outcome = library.faithfulness(scores, annotations, **chances)
    wanted = [[name] for name in scores.columns] if options.calibrate else []
    if options.calibrate == "logistic" and len(scores.columns) > 1:
        wanted.append(list(scores.columns))
    fits = [library.calibrate(scores, annotations, metrics, method=options.calibrate, **chances) for metrics in wanted]
    if options.output is not None:
        report.check_writable(options.output, inputs, overwrite=options.overwrite)
        with staged(options.output) as stage:
            report.write_outputs(stage, outcome, fits)
    if options.json:
        print(as_json(report.summary(outcome, fits)), end="")
        return OK
    _print(report.tables(outcome), report.sentences(outcome), options.output)
    return OK


def _print(tables: list[Any], sentences: list[str], output: Path | None) -> None:
    from rich.console import Console

    terminal = Console(width=None if sys.stdout.isatty() else 150)
    for table in tables:
        terminal.print(table)
    for sentence in sentences:
        terminal.print(f"- {printable(sentence)}", markup=False, highlight=False, soft_wrap=True)
    if output is not None:
        terminal.print(f"\nreport: {printable(output / 'faithfulness.md')}", markup=False, highlight=False, soft_wrap=True)


def _direction(text: str) -> tuple[str, str]:
    name, _, direction = text.rpartition("=")
    if not name or direction not in ("higher", "lower"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=higher or NAME=lower, e.g. dreamsim=lower")
    return name, direction
