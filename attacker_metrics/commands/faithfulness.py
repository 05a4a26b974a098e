"""``attacker-metrics faithfulness``: do metrics agree with the people who annotated reconstructions?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter, Token

from attacker_metrics._options import OVERWRITE, count, flag, option, several, whole
from attacker_metrics.commands.parsing import add_command
from attacker_metrics.files.terminal import printable
from attacker_metrics.jobs.ending import OK, bad_usage

Direction = Literal["higher", "lower"]


def _directions(_type: Any, tokens: Sequence[Token]) -> tuple[tuple[str, Direction], ...]:
    found: list[tuple[str, Direction]] = []
    for token in tokens:
        name, _, direction = token.value.rpartition("=")
        if name and direction == "higher":
            found.append((name, "higher"))
        elif name and direction == "lower":
            found.append((name, "lower"))
        else:
            raise ValueError(f"{token.value!r} is not NAME=higher or NAME=lower, e.g. dreamsim=lower")
    return tuple(found)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FaithfulnessOptions:
    """What ``faithfulness`` is asked for."""

    scores: Annotated[
        Path,
        option("CSV or Parquet: a column 'reconstruction' (or 'id') and one per metric, e.g. scores.parquet of evaluate"),
    ]
    annotations: Annotated[
        Path,
        option(
            "CSV or Parquet: dataset, model, attack, original, reconstruction, a column annotator_NAME per annotator"
            " (1, 0 or empty; with a column 'class', the class that was named), optionally recognizable"
        ),
    ]
    direction: Annotated[
        tuple[tuple[str, Direction], ...],
        several(
            "NAME=higher or NAME=lower: which values of a column mean more leakage, for metrics that declare nothing;"
            " repeatable",
            converter=_directions,
            n_tokens=1,
        ),
    ] = ()
    metric: Annotated[tuple[str, ...], several("use this column only; repeatable")] = ()
    rule: Annotated[
        Literal["majority", "any", "all", "mean"],
        option("when an image counts as recognised; mean: every vote by itself"),
    ] = "majority"
    calibrate: Annotated[
        Literal["isotonic", "logistic"] | None,
        option("fit maps from each metric (logistic: and from all) to the probability that a person recognises the image"),
    ] = None
    resamples: Annotated[
        int, option("of the bootstrap (--draws in release 0.1)", name=("--resamples", "--draws"), converter=whole)
    ] = 1000
    seed: Annotated[int, option("of the resamples", converter=count)] = 0
    allow_unmatched: Annotated[bool, flag("leave rows without a partner out")] = False
    output: Annotated[Path | None, option("write JSON, a page and plots into this folder")] = None
    overwrite: Annotated[bool, flag(OVERWRITE)] = False
    json: Annotated[bool, flag("print JSON instead of tables")] = False


def add(app: App) -> None:
    """Add the command."""
    add_command(
        app,
        faithfulness,
        "Example:",
        "  attacker-metrics faithfulness --scores scores.csv --annotations annotations.csv --output faith/",
    )


def faithfulness(options: FaithfulnessOptions) -> int:
    """Measure whether metrics agree with human annotations of reconstructions.

    Correlates metrics with the people who recognised reconstructions, or did not, per image and per model; compares the
    metrics with each other and with the agreement of the annotators. Needs the extra 'faithfulness'.
    """
    with bad_usage(ValueError):
        return _run(options)


def _run(options: FaithfulnessOptions) -> int:
    from attacker_metrics import faithfulness as library
    from attacker_metrics.faithfulness import report
    from attacker_metrics.faithfulness.analysis import FEWEST_DRAWS
    from attacker_metrics.files.writing import staged
    from attacker_metrics.report.outputs import as_json

    if options.calibrate and options.rule == "mean":
        raise ValueError("--calibrate needs a rule that says yes or no: majority, any or all, not mean.")
    if options.resamples < FEWEST_DRAWS:
        raise ValueError(f"--resamples {options.resamples}: an interval needs at least {FEWEST_DRAWS}, better 1000.")
    inputs = [options.scores, options.annotations]
    if options.output is not None:
        report.check_writable(options.output, inputs, overwrite=options.overwrite)
    annotations = library.read_annotations(options.annotations)
    scores = library.read_scores(options.scores, dict(options.direction), list(options.metric) or None)
    chances: dict[str, Any] = {"rule": options.rule, "draws": options.resamples, "seed": options.seed}
    chances["allow_unmatched"] = options.allow_unmatched
    outcome = library.faithfulness(scores, annotations, **chances)
    fits, method = [], options.calibrate
    if method is not None:
        wanted = [[name] for name in scores.columns]
        if method == "logistic" and len(scores.columns) > 1:
            wanted.append(list(scores.columns))
        fits = [library.calibrate(scores, annotations, metrics, method=method, **chances) for metrics in wanted]
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
