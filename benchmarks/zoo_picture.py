"""The matrix of obfuscations and attackers as one picture: a column per kind of attacker, the rows by who can undo them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from attacker_metrics.reading.kinds import kinds

Row = Mapping[str, Any]
COLUMNS: dict[str, tuple[str, ...]] = {
    "looks at it": ("rgb", "gray", "identity"),
    "stretches": ("rgb_minmax", "gray_minmax", "standardize"),
    "edges": ("sobel",),
    "smooths": ("blur", "median", "wavelet", "jpeg", "denoise"),
    "sharpens": ("unsharp", "wiener"),
    "tone curves": ("gamma", "invert", "equalize", "affine"),
    "any table of values*": ("table", "tone", "correlation_ratio", "mutual_information"),
    "unwraps": ("unwrapped", "unwrapped_sobel"),
    "turns, moves*": ("oriented", "oriented_sobel", "registered", "registered_sobel"),
    "rolled rows*": ("rows", "columns"),
    "matches blocks*": ("assigned_blocks",),
    "assembles blocks": ("assemble",),
    "learned filter": ("linear",),
    "learned block map": ("block",),
    "learned key": ("keyed",),
    "learned spectrum": ("spectrum",),
}
"""Kind -> its attackers by their short names."""
GROUPS = {
    "anyone": "anyone can undo",
    "pairs": "who has pairs can undo",
    "key": "who has the picture's key can undo",
    "nobody": "nobody can undo",
}
FURTHER = "who has pairs can undo (not in the zoo)"
_COLOURS = LinearSegmentedColormap.from_list("read", ["#f4f4f4", "#fdd49e", "#fc8d59", "#b30000"])
_COLOURS.set_bad("white")


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a PNG: in each field the share of pictures read, that of the better score of a kind's.

    Args:
        rows: as ``zoo.py`` stores them, in their order.
        path: of the file.
        title: of the picture.
    """
    half = -(-len(rows) // 2) if len(rows) > 40 else len(rows)
    parts = [_with_headings(part) for part in (rows[:half], rows[half:]) if part]
    height = max(map(len, parts))
    figure, every = plt.subplots(1, len(parts), squeeze=False, figsize=(6.2 * len(parts), 2 + 0.135 * height), dpi=100)
    for axes, part in zip(every[0], parts, strict=True):
        _matrix(axes, [*part, *[""] * (height - len(part))])
    figure.suptitle(
        f"Share of pictures read at 1 % false positives, {title}\nwhite: not tried   *: sees the original to choose",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def fields(row: Row) -> list[float]:
    """All attackers together, then every kind; NaN for one that was not tried."""
    alone: dict[str, list[float]] = {}
    for name, share in row["alone"].items():
        alone.setdefault(kinds()[name].attacker, []).append(share)
    assert not (unknown := alone.keys() - {one for members in COLUMNS.values() for one in members}), unknown
    return [
        row["read"],
        *(max((share for one in members for share in alone.get(one, [])), default=np.nan) for members in COLUMNS.values()),
    ]


def _with_headings(rows: Sequence[Row]) -> list[Row | str]:
    made: list[Row | str] = []
    last = ""
    for row in rows:
        heading = FURTHER if row["family"] == "others" else GROUPS[row["undone_by"]]
        made += [row] if heading == last else [heading, row]
        last = heading
    return made


def _matrix(axes: Axes, rows: Sequence[Row | str]) -> None:
    """Draw rows, and headings where there is text in their place."""
    nothing = [np.nan] * (len(COLUMNS) + 1)
    cells = np.array([nothing if isinstance(row, str) else fields(row) for row in rows])
    axes.imshow(np.ma.masked_invalid(cells), cmap=_COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="none")
    for y, row in enumerate(rows):
        if isinstance(row, str):
            axes.text(-0.4, y, row, ha="left", va="center", fontsize=7, fontweight="bold")
        else:
            colour = "white" if row["read"] > 0.6 else "black"
            axes.text(0, y, f"{100 * row['read']:.0f}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_xticks(range(len(COLUMNS) + 1), ["all together", *COLUMNS], rotation=60, ha="left", fontsize=7)
    axes.xaxis.tick_top()
    names = ["" if isinstance(row, str) else row["obfuscation"] for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=6.5)
    axes.axvline(0.5, color="white", linewidth=2)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
