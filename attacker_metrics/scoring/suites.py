"""Versioned suites of attackers: tables of components that never change, so that runs of different years compare.

A suite changes only under a new name. :data:`STANDARD_V1` holds the fifteen components of
:mod:`attacker_metrics.scoring.components` at their default settings, those added below, and the names of the learned
attackers (:mod:`attacker_metrics.reading.learned`) that an evaluation with a fit split adds. :data:`STANDARD_V2` adds blind
attackers and oracles (:mod:`attacker_metrics.scoring.oracles`) to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attacker_metrics.attackers import Attacker, clamp, luma, sobel
from attacker_metrics.attackers.denoising import Denoise
from attacker_metrics.attackers.filters import JPEG, AffineFit, Equalize, Unsharp, Wiener, invert, median
from attacker_metrics.attackers.jigsaw import Assemble
from attacker_metrics.scoring.components import Component, View
from attacker_metrics.scoring.oracles import (
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
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Similarity, SquaredPearson


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
        "denoise_gray",
        "assemble_gray",
        "oriented_gray",
        "registered_gray",
        "table_gray",
        "unwrapped_gray",
        "pearson_denoise",
        "pearson_assemble",
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
        "spectrum_gray",
        "pearson_linear",
        "pearson_block",
        "pearson_cnn",
        "pearson_keyed",
        "pearson_spectrum",
    ),
)
SUITES: dict[str, Suite] = {suite.name: suite for suite in (STANDARD_V1, STANDARD_V2)}


def added_components(suite: str, *, betas: Sequence[float] = DEFAULT_BETAS) -> dict[str, Component]:
    """The components that a suite adds to the fifteen, by name, in the order of reports.

    MS-SSIM is taken of luma views, so that a component costs a third of a colour one. Restoring attackers (inversion,
    unsharp mask, Wiener, affine fit) act on the noisy side alone, lossy ones (equalisation, median, JPEG) on both.
    ``identity`` is the
    control: the luma as it was sent, not even clamped. ``affine`` is an oracle that knows the clean picture
    (:class:`~attacker_metrics.attackers.filters.AffineFit`).

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
        Component("identity_gray", ms_ssim, raw, clean_gray, undoes="nothing: the control", attacker="identity"),
        Component("invert_gray", ms_ssim, (*gray, invert), clean_gray, undoes="inversion", attacker="invert"),
        Component(
            "equalize_gray",
            ms_ssim,
            (*raw, equalize),
            (*clean_gray, equalize),
            undoes="any rising tone curve, lost contrast",
            attacker="equalize",
        ),
        Component(
            "median_gray", ms_ssim, (*gray, median), (*clean_gray, median), undoes="lone wrong pixels", attacker="median"
        ),
        Component("unsharp_gray", ms_ssim, (*gray, unsharp), clean_gray, undoes="soft edges", attacker="unsharp"),
        Component(
            "wiener_gray", ms_ssim, (*gray, wiener), clean_gray, undoes="a Gaussian blur of 2 pixels", attacker="wiener"
        ),
        Component(
            "jpeg_gray", ms_ssim, (*gray, jpeg), (*clean_gray, jpeg), undoes="noise that compression drops", attacker="jpeg"
        ),
        Component(
            "affine_gray",
            AffineFit(ms_ssim),
            undoes="brightness, contrast and sign of every channel (oracle)",
            attacker="affine",
        ),
        Component(
            "pearson_identity",
            pearson,
            raw,
            clean_gray,
            undoes="affine changes, also far out of [0, 1]",
            attacker="identity",
        ),
        Component(
            "pearson_equalize",
            pearson,
            (*raw, equalize),
            (*clean_gray, equalize),
            undoes="tone curves, inversion",
            attacker="equalize",
        ),
        Component(
            "pearson_median",
            pearson,
            (*gray, median),
            (*clean_gray, median),
            undoes="lone wrong pixels, inversion",
            attacker="median",
        ),
        Component(
            "pearson_unsharp", pearson, (*gray, unsharp), clean_gray, undoes="soft edges, inversion", attacker="unsharp"
        ),
        Component(
            "pearson_wiener",
            pearson,
            (*gray, wiener),
            clean_gray,
            undoes="a Gaussian blur of 2 pixels, inversion",
            attacker="wiener",
        ),
        Component(
            "pearson_jpeg",
            pearson,
            (*gray, jpeg),
            (*clean_gray, jpeg),
            undoes="noise that compression drops",
            attacker="jpeg",
        ),
        Component(
            "pearson_affine", AffineFit(pearson), undoes="contrast and sign of every channel (oracle)", attacker="affine"
        ),
    )
    table = {row.name: row for row in (*rows, *(_of_v2(ms_ssim, pearson) if suite == STANDARD_V2.name else ()))}
    return {name: table[name] for name in SUITES[suite].added}


def _of_v2(ms_ssim: MSSSIM, pearson: SquaredPearson) -> tuple[Component, ...]:
    """What ``standard-v2`` adds to ``standard-v1``: blind attackers and oracles."""
    turned = "quarter turns, mirrors and moves; brightness, contrast and sign (oracle)"
    anyhow = "turns by any angle, mirrors, moves, scale, tilt; brightness, contrast and sign (oracle)"
    retoned, bytes_ = (
        "any curve of brightness (oracle)",
        "any table of each channel's values, bits in another order (oracle)",
    )
    wrapped = "a number added modulo 1, values that start anew at white"

    def found(name: str, attacker: str, finder: Finder, similarity: Similarity, undoes: str, *after: Attacker) -> Component:
        return Component(name, Oracle(finder, similarity, after), (luma,), (luma,), undoes=undoes, attacker=attacker)

    def read(name: str, attacker: str, similarity: Similarity, noisy: View, undoes: str, clean: View = (luma,)) -> Component:
        return Component(name, similarity, noisy, clean, undoes=undoes, attacker=attacker)

    denoised, assembled = (luma, Denoise()), (Assemble(), luma)
    orientation, registration, table = Orientation(), Registration(), Oracle(ToneTable(), ms_ssim)
    return (
        read("denoise_gray", "denoise", ms_ssim, denoised, "noise"),
        read("pearson_denoise", "denoise", pearson, denoised, "noise"),
        read("assemble_gray", "assemble", ms_ssim, assembled, "shuffled blocks, by their borders"),
        read("pearson_assemble", "assemble", pearson, assembled, "shuffled blocks, by their borders"),
        found("oriented_gray", "oriented", orientation, ms_ssim, turned),
        found("pearson_oriented", "oriented", orientation, pearson, turned),
        found("pearson_oriented_sobel", "oriented_sobel", orientation, pearson, turned, sobel),
        found("registered_gray", "registered", registration, ms_ssim, anyhow),
        found("pearson_registered", "registered", registration, pearson, anyhow),
        found("pearson_registered_sobel", "registered_sobel", registration, pearson, anyhow, sobel),
        read("table_gray", "table", table, (), bytes_),
        read("pearson_table", "table", Oracle(ToneTable(), pearson), (), bytes_),
        found("pearson_tone", "tone", ToneTable(32, by_rank=True), pearson, retoned),
        read("unwrapped_gray", "unwrapped", Oracle(Fit(), ms_ssim), (unwrap,), wrapped + " (oracle for contrast)"),
        read("pearson_unwrapped", "unwrapped", pearson, (unwrap,), wrapped),
        read("pearson_unwrapped_sobel", "unwrapped_sobel", pearson, (unwrap, sobel), wrapped, (luma, sobel)),
        found("pearson_rows", "rows", RolledRows(), pearson, "rows that were rolled (oracle)"),
        found("pearson_columns", "columns", RolledRows(columns=True), pearson, "columns that were rolled (oracle)"),
        read("correlation_ratio", "correlation_ratio", CorrelationRatio(), (luma,), retoned),
        read("mutual_information", "mutual_information", MutualInformation(), (luma,), "any change of colours (oracle)"),
        read("assigned_blocks", "assigned_blocks", AssignedBlocks(), (luma,), "shuffled, turned, negated blocks (oracle)"),
    )
