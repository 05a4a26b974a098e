"""The command ``attacker-metrics compare``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_DEFAULT_OUTPUT = Path("attacker-metrics-comparison")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``compare`` to the commands of a parser."""
    command = commands.add_parser(
        "compare",
        help="compare runs on the same pairs: which leaks less, and is it more than chance",
        description="Compare two or more folders that evaluate wrote, on the same pairs: paired differences of every run to"
        " the first, per attacker, with 95 % bootstrap intervals and a sign-flip test, Holm-corrected. A column group in"
        " scores.parquet makes whole groups the unit. Writes tables (CSV, LaTeX, JSON) and plots (SVG, PDF).",
        epilog="Exit status: 0 fine, 2 bad usage or runs that cannot be compared.",
    )
    command.set_defaults(command=compare)
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run; the first is the baseline")
    command.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT, metavar="DIR", help="where (default: %(default)s)")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that this command did not write; inputs are never written over",
    )
    command.add_argument("--common", action="store_true", help="compare the pairs that all runs have")
    utility = command.add_mutually_exclusive_group()
    utility.add_argument(
        "--utility",
        type=Path,
        metavar="FILE",
        help="CSV with the columns run (a folder's name), utility and, if known, lower and upper: adds a plot of leakage"
        " against utility",
    )
    utility.add_argument(
        "--utility-column", metavar="NAME", help="the same from the mean of a column of the runs' scores.parquet"
    )


def compare(options: argparse.Namespace) -> int:
    """Compare runs, print the tables, write the files."""
    # Not before the command is asked for: statsmodels and pandas take a second to import.
    from rich.console import Console

    from attacker_metrics.comparison import outputs
    from attacker_metrics.comparison.differences import cautions, compare_runs, sentences
    from attacker_metrics.comparison.runs import ComparisonError, aligned, check_settings, load_runs
    from attacker_metrics.comparison.utility import utility_from_column, utility_from_file
    from attacker_metrics.files.terminal import printable, printable_lines
    from attacker_metrics.files.writing import staged
    from attacker_metrics.report.outputs import SCORES, SUMMARY

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
        print(f"attacker-metrics: {printable_lines(error)}", file=sys.stderr)
        return 2
    if left_out:
        notes.append(f"{len(left_out)} pairs that not all runs have are left out (--common).")
    comparison = outputs.Comparison(
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
    return 0
