"""The files that a finished run leaves: their names, and whether they may be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from attacker_metrics.files.writing import check_outputs, earlier_release, is_ours

SUMMARY, SCORES, REPORT = "summary.json", "scores.parquet", "report.html"


def check_writable(
    output: Path,
    names: Iterable[str],
    inputs: Iterable[str | Path | None],
    *,
    overwrite: bool,
    many: Callable[[], Iterable[str | Path]] = tuple,
) -> None:
    """Refuse an output folder in which files of these names are somebody else's, or read by the run.

    Raises:
        OSError: naming the file.
    """
    old = earlier_release(output / SUMMARY, "components", "settings")
    check_outputs(
        [output / name for name in names],
        inputs=inputs,
        overwrite=overwrite,
        ours=lambda path: old or is_ours(path),
        many=many,
    )
