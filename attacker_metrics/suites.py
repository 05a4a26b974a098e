"""Versioned suites of attackers: tables of components that never change, so that runs of different years compare.

A suite changes only under a new name. :data:`STANDARD_V1` holds the fifteen components of :mod:`attacker_metrics.components`
at their default settings, those added below, and the names of the learned attackers (:mod:`attacker_metrics.learned`) that
an evaluation with a fit split adds. :data:`STANDARD_V2` adds oracles (:mod:`attacker_metrics.reading.oracles`) to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attacker_metrics.attackers import Attacker, clamp, luma, sobel
from attacker_metrics.components import Component
from attacker_metrics.filters import JPEG, AffineFit, Equalize, Unsharp, Wiener, invert, median
from attacker_metrics.reading.oracles import (
    AssignedBlocks,
    CorrelationRatio,
    Finder,
    Fit,
    MutualInformation,
    Oracle,
    Orientation,
    Registration,
    RolledRows,
    ToneTable,
    unwrap,
)
from attacker_metrics.similarity import DEFAULT_BETAS, MSSSIM, Similarity, SquaredPearson


@dataclass(frozen=True)
class Suite:
    """A frozen choice of attackers.

    Args:
        name: with its version, such as ``"standard-v1"``.
        added: names of the components beyond the fifteen, in the order of reports; see :func:`added_components`.
        learned: names of the scores of learned attackers, which need a fit split.
    """

    name: str
    added: tuple[str, ...]
    learned: tuple[str, ...]


STANDARD_V1 = Suite(
    "standard-v1",
    added=(
        "identity_gray",
        "invert_gray",
        "equalize_gray",
        "median_gray",
        "unsharp_gray",
        "wiener_gray",
        "jpeg_gray",
        "affine_gray",
        "pearson_identity",
        "pearson_equalize",
        "pearson_median",
        "pearson_unsharp",
        "pearson_wiener",
        "pearson_jpeg",
        "pearson_affine",
    ),
    learned=("linear_gray", "block_gray", "cnn_gray", "pearson_linear", "pearson_block", "pearson_cnn"),
)
STANDARD_V2 = Suite(
    "standard-v2",
    added=(
        *STANDARD_V1.added,
        "oriented_gray",
        "registered_gray",
        "table_gray",
        "unwrapped_gray",
        "pearson_oriented",
        "pearson_registered",
        "pearson_table",
        "pearson_tone",
        "pearson_unwrapped",
        "pearson_rows",
        "pearson_columns",
        "pearson_oriented_sobel",
        "pearson_registered_sobel",
        "pearson_unwrapped_sobel",
        "correlation_ratio",
        "mutual_information",
        "assigned_blocks",
    ),
    learned=(
        "linear_gray",
        "block_gray",
        "cnn_gray",
        "keyed_gray",
        "pearson_linear",
        "pearson_block",
        "pearson_cnn",
        "pearson_keyed",
    ),
)
SUITES: dict[str, Suite] = {suite.name: suite for suite in (STANDARD_V1, STANDARD_V2)}


def added_components(suite: str, *, betas: Sequence[float] = DEFAULT_BETAS) -> dict[str, Component]:
    """The components that a suite adds to the fifteen, by name, in the order of reports.

    MS-SSIM is taken of luma views, so that a component costs a third of a colour one. Restoring attackers (inversion,
    unsharp mask, Wiener, affine fit) act on the noisy side alone, lossy ones (equalisation, median, JPEG) on both.
    ``identity`` is the
    control: the luma as it was sent, not even clamped. ``affine`` is an oracle that knows the clean picture
    (:class:`~attacker_metrics.filters.AffineFit`).

    Args:
        suite: ``"standard-v1"`` or ``"standard-v2"``.
        betas: MS-SSIM's exponents, one per scale; all that may differ from the suite's table, for images below 176 pixels.

    Raises:
        ValueError: if there is no such suite, or a beta is not positive.
        MissingExtraError: for ``"standard-v2"`` without SciPy.

    Example:
        >>> list(added_components("standard-v1"))[:3]
        ['identity_gray', 'invert_gray', 'equalize_gray']
    """
    if not isinstance(suite, str) or suite not in SUITES:
        raise ValueError(f"suite must be one of {', '.join(map(repr, SUITES))}, got {suite!r}.")
    ms_ssim, pearson = MSSSIM(betas), SquaredPearson()  # type: ignore[arg-type]
    raw, gray, clean_gray = (luma,), (luma, clamp), (luma,)
    equalize, jpeg, unsharp, wiener = Equalize(), JPEG(50), Unsharp(2.0, 1.0), Wiener(2.0, 1e-2)
    rows = (
        Component("identity_gray", ms_ssim, raw, clean_gray, undoes="nothing: the control"),
        Component("invert_gray", ms_ssim, (*gray, invert), clean_gray, undoes="inversion"),
        Component(
            "equalize_gray",
            ms_ssim,
            (*raw, equalize),
            (*clean_gray, equalize),
            undoes="any rising tone curve, lost contrast",
        ),
        Component("median_gray", ms_ssim, (*gray, median), (*clean_gray, median), undoes="lone wrong pixels"),
        Component("unsharp_gray", ms_ssim, (*gray, unsharp), clean_gray, undoes="soft edges"),
        Component("wiener_gray", ms_ssim, (*gray, wiener), clean_gray, undoes="a Gaussian blur of 2 pixels"),
        Component("jpeg_gray", ms_ssim, (*gray, jpeg), (*clean_gray, jpeg), undoes="noise that compression drops"),
        Component("affine_gray", AffineFit(ms_ssim), undoes="brightness, contrast and sign of every channel (oracle)"),
        Component("pearson_identity", pearson, raw, clean_gray, undoes="affine changes, also far out of [0, 1]"),
        Component("pearson_equalize", pearson, (*raw, equalize), (*clean_gray, equalize), undoes="tone curves, inversion"),
        Component("pearson_median", pearson, (*gray, median), (*clean_gray, median), undoes="lone wrong pixels, inversion"),
        Component("pearson_unsharp", pearson, (*gray, unsharp), clean_gray, undoes="soft edges, inversion"),
        Component("pearson_wiener", pearson, (*gray, wiener), clean_gray, undoes="a Gaussian blur of 2 pixels, inversion"),
        Component("pearson_jpeg", pearson, (*gray, jpeg), (*clean_gray, jpeg), undoes="noise that compression drops"),
        Component("pearson_affine", AffineFit(pearson), undoes="contrast and sign of every channel (oracle)"),
    )
    table = {row.name: row for row in (*rows, *(_oracles(ms_ssim, pearson) if suite == STANDARD_V2.name else ()))}
    return {name: table[name] for name in SUITES[suite].added}


def _oracles(ms_ssim: MSSSIM, pearson: SquaredPearson) -> tuple[Component, ...]:
    """What ``standard-v2`` adds."""
    turned = "quarter turns, mirrors and moves; brightness, contrast and sign (oracle)"
    anyhow = "turns by any angle, mirrors, moves, scale, tilt; brightness, contrast and sign (oracle)"
    retoned, bytes_ = (
        "any curve of brightness (oracle)",
        "any table of each channel's values, bits in another order (oracle)",
    )
    wrapped = "a number added modulo 1, values that start anew at white"

    def row(name: str, finder: Finder, similarity: Similarity, undoes: str, *after: Attacker) -> Component:
        return Component(name, Oracle(finder, similarity, after), (luma,), (luma,), undoes=undoes)

    return (
        row("oriented_gray", Orientation(), ms_ssim, turned),
        row("pearson_oriented", Orientation(), pearson, turned),
        row("pearson_oriented_sobel", Orientation(), pearson, turned, sobel),
        row("registered_gray", Registration(), ms_ssim, anyhow),
        row("pearson_registered", Registration(), pearson, anyhow),
        row("pearson_registered_sobel", Registration(), pearson, anyhow, sobel),
        Component("table_gray", Oracle(ToneTable(), ms_ssim), (), (luma,), undoes=bytes_),
        Component("pearson_table", Oracle(ToneTable(), pearson), (), (luma,), undoes=bytes_),
        row("pearson_tone", ToneTable(32, by_rank=True), pearson, retoned),
        Component("unwrapped_gray", Oracle(Fit(), ms_ssim), (unwrap,), (luma,), undoes=wrapped + " (oracle for contrast)"),
        Component("pearson_unwrapped", pearson, (unwrap,), (luma,), undoes=wrapped),
        Component("pearson_unwrapped_sobel", pearson, (unwrap, sobel), (luma, sobel), undoes=wrapped),
        row("pearson_rows", RolledRows(), pearson, "rows that were rolled (oracle)"),
        row("pearson_columns", RolledRows(columns=True), pearson, "columns that were rolled (oracle)"),
        Component("correlation_ratio", CorrelationRatio(), (luma,), (luma,), undoes=retoned),
        Component("mutual_information", MutualInformation(), (luma,), (luma,), undoes="any change of colours (oracle)"),
        Component("assigned_blocks", AssignedBlocks(), (luma,), (luma,), undoes="shuffled, turned, negated blocks (oracle)"),
    )
