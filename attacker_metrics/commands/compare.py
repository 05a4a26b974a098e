"""``attacker-metrics compare``: which of several runs leaks less."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from attacker_metrics._options import OVERWRITE, flag, option, several
from attacker_metrics.commands.parsing import add_command
from attacker_metrics.jobs.ending import OK, UsageError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What ``compare`` is asked for."""

    runs: Annotated[tuple[Path, ...], several("folders of runs; the first is the baseline")] = field(kw_only=False)
    output: Annotated[Path, option("folder of the comparison")] = Path("attacker-metrics-comparison")
    overwrite: Annotated[bool, flag(OVERWRITE)] = False
    common: Annotated[bool, flag("compare the pairs that all runs have")] = False
    utility: Annotated[
        Path | None,
        option(
            "CSV with the columns run (a folder's name), utility and, if known, lower and upper: adds a plot of leakage"
            " against utility"
        ),
    ] = None
    utility_column: Annotated[
        str | None, option("the same from the mean of a column of the runs' scores.parquet; instead of --utility")
    ] = None


def add(app: App) -> None:
    """Add the command."""
    add_command(
        app,
        compare,
        "Example:",
        "  attacker-metrics compare before/ after/ --output comparison/",
        "",
        "Exit status: 0 fine, 2 bad usage or runs that cannot be compared.",
    )


def compare(options: CompareOptions) -> int:
    """Compare runs on the same pairs: which leaks less, and is it more than chance.

    Two or more folders that evaluate wrote: paired differences of every run to the first, per attacker, with 95 % bootstrap
    intervals and a sign-flip test, Holm-corrected. A column group in scores.parquet makes whole groups the unit. Writes
    tables (CSV, LaTeX, JSON) and plots (SVG, PDF).
    """
    if options.utility is not None and options.utility_column is not None:
        raise UsageError("--utility and --utility-column say the same in two ways; pass one of them.")
    from rich.console import Console

    from attacker_metrics.comparison import outputs
    from attacker_metrics.comparison.differences import cautions, compare_runs, sentences
    from attacker_metrics.comparison.runs import ComparisonError, aligned, check_settings, load_runs
    from attacker_metrics.comparison.utility import utility_from_column, utility_from_file
    from attacker_metrics.files.run_files import SCORES, SUMMARY
    from attacker_metrics.files.terminal import printable
    from attacker_metrics.files.writing import staged

    inputs = [run / name for run in options.runs for name in (SUMMARY, SCORES)]
    inputs += [] if options.utility is None else [options.utility]
    with_utility = options.utility is not None or options.utility_column is not None
    outputs.check_writable(options.output, inputs, trade_off=with_utility, overwrite=options.overwrite)
    try:
        loaded = load_runs(options.runs)
        notes = check_settings(loaded)
        runs, left_out = aligned(loaded, common=options.common)
        utility = None
        if options.utility is not None:
            utility = utility_from_file(options.utility, runs)
        elif options.utility_column is not None:
            utility = utility_from_column(options.utility_column, runs)
        differences = compare_runs(runs)
        if not differences:
            raise ComparisonError("no component has a score of one pair in both runs: there is nothing to compare.")
    except ComparisonError as error:
        raise UsageError(str(error)) from error
    if left_out:
        notes.append(f"{len(left_out)} pairs that not all runs have are left out (--common).")
    comparison = outputs.ComparedRuns(
        runs, left_out, differences, sentences(runs, differences), notes + cautions(runs, differences), utility
    )
    outputs.check_writable(options.output, inputs, trade_off=with_utility, overwrite=options.overwrite)
    with staged(options.output) as stage:
        outputs.write_outputs(stage, comparison)
    outputs.remove_stale(options.output, comparison)
    terminal = Console(width=None if sys.stdout.isatty() else 130)
    for run in runs[1:]:
        terminal.print(outputs.as_table(comparison, run))
    for sentence in [*comparison.sentences, *comparison.notes]:
        terminal.print(f"- {printable(sentence)}", markup=False, highlight=False, soft_wrap=True)
    terminal.print(f"\ncomparison: {printable(options.output)}", markup=False, highlight=False, soft_wrap=True)
    return OK
