"""Every option of ``attacker-metrics evaluate``: one frozen object, from which the command line is generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter, Token

from attacker_metrics._names import (
    COMPARISONS_OF_SUITE,
    DEFAULT_BETAS,
    DEFAULT_FIT_SHARE,
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
    ORIGINALS_PER_PICTURE,
    LearnedKind,
    SuiteName,
)
from attacker_metrics._options import (
    OVERWRITE,
    Affects,
    count,
    flag,
    number,
    numbers,
    option,
    path_or_url,
    positive,
    seconds,
    several,
    share,
)
from attacker_metrics.evaluation.gates import READ, READ_RATE, STRONGEST, Gate
from attacker_metrics.files.decoding import DEFAULT, Decoding, Orientation

LEARNED_KINDS: tuple[LearnedKind, ...] = get_args(LearnedKind)

_IMAGES = Group("Images", sort_key=1)
_READING = Group("Reading files", sort_key=2)
_OUTPUT = Group("Output", sort_key=3)
_ATTACKERS = Group("Attackers", sort_key=4)
_WORK = Group("Work", sort_key=5)


def _gates(_type: Any, tokens: Sequence[Token]) -> tuple[Gate, ...]:
    return tuple(Gate.of(token.value) for token in tokens)


def _kinds(_type: Any, tokens: Sequence[Token]) -> tuple[LearnedKind, ...]:
    """Each once, in the order of the table."""
    asked = {token.value for token in tokens}
    if unknown := sorted(asked - {*LEARNED_KINDS, "all"}):
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(LEARNED_KINDS)}, all")
    return tuple(kind for kind in LEARNED_KINDS if {kind, "all"} & asked)


LearnedOption = Annotated[
    tuple[LearnedKind | Literal["all"], ...],
    Affects.NUMBERS,
    several(
        "fit an attacker (5 x 5 filter, map of 8 x 8 blocks, small residual network, key of a fixed shuffle, pad or"
        " table, filter of the picture's full size; or all of them) on the fit split of the pairs, and score the others"
        " with it too; repeatable",
        converter=_kinds,
        group=_ATTACKERS,
    ),
]
"""The option of every command that fits attackers."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How files are read, of every command that scores images."""

    orientation: Annotated[
        Orientation,
        Affects.NUMBERS,
        option(
            "apply the EXIF orientation of pictures, ignore it, or apply it but refuse pairs of which one file alone has"
            " one",
            group=_READING,
        ),
    ] = DEFAULT.orientation
    timeout: Annotated[
        float,
        Affects.CIRCUMSTANCES,
        option("seconds until a file must have arrived from a server", converter=seconds, group=_READING),
    ] = DEFAULT.timeout
    max_pixels: Annotated[
        int,
        Affects.CIRCUMSTANCES,
        option("refuse larger pictures before they are decoded", converter=positive, group=_READING),
    ] = DEFAULT.max_pixels
    max_bytes: Annotated[
        int,
        Affects.CIRCUMSTANCES,
        option("refuse larger files before they are held in memory", converter=positive, group=_READING),
    ] = DEFAULT.max_bytes

    @property
    def decoding(self) -> Decoding:
        """What the options say."""
        return Decoding(self.timeout, self.max_pixels, self.max_bytes, self.orientation)


@dataclass(frozen=True, kw_only=True)
class AttackerOptions:
    """The attackers' settings, of every command that scores images."""

    resize: Annotated[
        int | None,
        Affects.MEANING,
        option("scale both images so that the smaller side is so many pixels", converter=positive, group=_ATTACKERS),
    ] = None
    gamma: Annotated[
        tuple[float, ...],
        Affects.MEANING,
        Parameter(help="gamma attacker's exponents", consume_multiple=(1, None), converter=numbers, group=_ATTACKERS),
    ] = DEFAULT_GAMMA_ATTACK_VALUES
    blur_sigma: Annotated[
        float,
        Affects.MEANING,
        option("blur attacker's standard deviation in pixels", converter=number, group=_ATTACKERS),
    ] = DEFAULT_GAUSSIAN_BLUR_SIGMA
    wavelet_threshold: Annotated[
        float, Affects.MEANING, option("wavelet attacker's soft threshold", converter=number, group=_ATTACKERS)
    ] = DEFAULT_WAVELET_SOFT_THRESHOLD
    betas: Annotated[
        tuple[float, ...],
        Affects.MEANING,
        Parameter(
            help="MS-SSIM's exponents, one per scale; the smaller side must be at least 11, 22, 44, 88 or 176 pixels for one"
            " to five of them",
            consume_multiple=(1, None),
            converter=numbers,
            group=_ATTACKERS,
        ),
    ] = DEFAULT_BETAS
    suite: Annotated[
        SuiteName | None,
        Affects.MEANING,
        option("add the attackers of a frozen suite behind the fifteen", group=_ATTACKERS),
    ] = None
    extra: Annotated[
        tuple[str, ...],
        Affects.NUMBERS,
        several(
            "MODULE:CLASS of a metric of your own, an AttackerMetric or any torchmetrics Metric on (noisy, clean);"
            " repeatable",
            group=_ATTACKERS,
        ),
    ] = ()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(AttackerOptions, ReadingOptions):
    """What ``evaluate`` is asked for."""

    clean: Annotated[Path | None, Affects.NUMBERS, option("folder of the originals", group=_IMAGES)] = None
    noisy: Annotated[
        Path | None,
        Affects.SUBJECT,
        option(
            "folder of the noisy images, paired with the originals by relative path without suffix: PNG, JPEG, WebP, AVIF,"
            " BMP, GIF, PPM, TIFF, or .npy, .safetensors and .pt tensors (3, H, W) in the scale of the originals that may"
            " leave [0, 1]",
            group=_IMAGES,
        ),
    ] = None
    # The digest of the pairs says what came of it.
    allow_unmatched: Annotated[bool, Affects.OUTPUT, flag("leave files without a partner out", group=_IMAGES)] = False
    manifest: Annotated[
        Path | str | None,
        Affects.SUBJECT,
        option(
            "instead of folders, a CSV or Parquet file with the columns id, clean and noisy: paths relative to it, or URLs"
            " (s3://, gs://, http://, https://); further columns go into scores.parquet",
            converter=path_or_url,
            group=_IMAGES,
        ),
    ] = None
    draws: Annotated[
        int | None,
        Affects.MEANING,
        option(
            "of a random obfuscation that was drawn so many times per picture, let every attacker see the first draw and, as"
            " draws_NAME, the mean of all: each noisy cell of the manifest lists the files, separated by semicolons",
            converter=positive,
            group=_IMAGES,
        ),
    ] = None
    output: Annotated[
        Path, Affects.OUTPUT, option("folder of the report, on storage that all processes share", group=_OUTPUT)
    ] = Path("attacker-metrics-report")
    overwrite: Annotated[bool, Affects.SESSION, flag(OVERWRITE, group=_OUTPUT)] = False
    resume: Annotated[
        bool,
        Affects.SESSION,
        flag("continue an unfinished run in --output, if there is one, with the same settings", group=_OUTPUT),
    ] = False
    gallery: Annotated[
        int,
        Affects.OUTPUT,
        option(
            "add what each attacker sees of so many of the most leaking pairs to the report: this stores image data in it",
            converter=count,
            group=_OUTPUT,
        ),
    ] = 0
    fail_above: Annotated[
        tuple[Gate, ...],
        Affects.OUTPUT,
        several(
            "COMPONENT=VALUE[@mean|p95|max]: exit with status 3 if that statistic (default: mean) of a component is above"
            f" the value, or cannot be judged; also of '{STRONGEST}' (the strongest attacker's percentile among unrelated"
            f" pairs), and '{READ}=VALUE', the share of pictures that it reads at a false-positive rate of {READ_RATE:.0%}"
            " (both need --null); repeatable",
            converter=_gates,
            n_tokens=1,
            group=_OUTPUT,
        ),
    ] = ()
    json: Annotated[bool, Affects.SESSION, flag("print the summary as JSON instead of the table", group=_OUTPUT)] = False
    null: Annotated[
        int | None,
        Affects.CIRCUMSTANCES,
        option(
            f"compare every noisy image with {ORIGINALS_PER_PICTURE} clean ones of other groups too, at most so many"
            " comparisons, and measure by them the strongest attacker of every pair; beyond them, a random choice of pairs"
            f" is measured. They take the time of as many pairs (default: {COMPARISONS_OF_SUITE} with --suite or --learned,"
            " otherwise 0)",
            converter=count,
            group=_ATTACKERS,
        ),
    ] = None
    learned: LearnedOption = ()
    fit_split: Annotated[
        float | None,
        Affects.NUMBERS,
        option(
            "share of the pairs to fit on, decided by a hash of group, else of the clean file; a manifest's column split"
            f" (fit or score) decides instead (default: {DEFAULT_FIT_SHARE:g} with --learned)",
            converter=share,
            group=_ATTACKERS,
        ),
    ] = None
    device: Annotated[str, Affects.CIRCUMSTANCES, option("where to compute: auto, cpu, cuda, mps", group=_WORK)] = "auto"
    batch_size: Annotated[int, Affects.SPEED, option("pairs at once", converter=positive, group=_WORK)] = 16
    workers: Annotated[
        int | None,
        Affects.SPEED,
        option(
            "threads of each process that read and decode files; 0 takes turns with computing (default: by its cores)",
            converter=count,
            group=_WORK,
        ),
    ] = None
    part_size: Annotated[
        int | None,
        Affects.SPEED,
        option(
            "pairs that are stored at once, so that each process loses at most so many to a crash (default: at most 256)",
            converter=positive,
            group=_WORK,
        ),
    ] = None


@dataclass(frozen=True)
class Found:
    """What a run finds out before it scores, recorded beside its options.

    Args:
        null: comparisons with unrelated originals at most, 0 for none.
        fit_pairs: pairs that are for fitting only.
        split_by: what decided which.
        pairs: that are scored.
        pairs_digest: of all their names.
        unmatched: files without a partner that were left out.
        unused: why other files are no pairs -> how many.
    """

    null: Annotated[int, Affects.CIRCUMSTANCES]
    fit_pairs: Annotated[int, Affects.NUMBERS]
    split_by: Annotated[str | None, Affects.NUMBERS]
    pairs: Annotated[int, Affects.SUBJECT]
    pairs_digest: Annotated[str, Affects.SUBJECT]
    unmatched: Annotated[list[str], Affects.OUTPUT]
    unused: Annotated[dict[str, Any], Affects.CIRCUMSTANCES]
