"""The table: which attacker acts on which side before which similarity, for every component.

A :class:`Component` is data. :func:`standard_components` lists the library's fifteen; a component of your own is one more
:class:`Component`, which :class:`attacker_metrics.AttackerMetric` turns into a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from attacker_metrics._settings import sequence
from attacker_metrics.attackers.filters import AffineFit, Unsharp, Wiener
from attacker_metrics.attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
    Attacker,
    Blur,
    Gamma,
    Wavelet,
    clamp,
    luma,
    minmax,
    sobel,
    standardize,
)
from attacker_metrics.engine.program import FitTo, MSSSIMMeasurement, PearsonMeasurement, Program, is_built_in
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Normalize, Similarity, SquaredPearson

View = tuple[Attacker, ...]

SPEC_VERSION = "3"
"""Version of the formulas: it changes whenever a score of the same pair of images does."""

MS_SSIM_COMPONENT_NAMES: tuple[str, ...] = (
    "rgb_clamp",
    "rgb_minmax",
    "gray_clamp",
    "gray_minmax",
    "sobel_gray",
    "blur_gray",
    "standardize_gray",
    "gamma_gray",
    "wavelet_gray",
)
PEARSON_COMPONENT_NAMES: tuple[str, ...] = (
    "pearson_rgb",
    "pearson_gray",
    "pearson_sobel",
    "pearson_blur",
    "pearson_gamma",
    "pearson_wavelet",
)
MEANS: dict[str, tuple[str, ...]] = {"ms_ssim": MS_SSIM_COMPONENT_NAMES, "pearson": PEARSON_COMPONENT_NAMES}
"""Name of each mean -> the components that it averages with equal weights."""


def component_names(*, compute_ms_ssim: bool = True, compute_pearson: bool = True) -> tuple[str, ...]:
    """Names of the components of the families that are switched on, in the order of all reports.

    Raises:
        ValueError: if both families are switched off.
    """
    for switch, given in (("compute_ms_ssim", compute_ms_ssim), ("compute_pearson", compute_pearson)):
        if given not in (True, False):
            raise ValueError(f"{switch} must be True or False, got {given!r}.")
    if not (compute_ms_ssim or compute_pearson):
        raise ValueError("compute_ms_ssim and compute_pearson are both False: nothing is left to compute.")
    return MS_SSIM_COMPONENT_NAMES * compute_ms_ssim + PEARSON_COMPONENT_NAMES * compute_pearson


def families(names: Sequence[str]) -> dict[str, slice]:
    """Name of each mean -> where its components stand among some that hold all of a family or none."""
    first = {mean: names.index(members[0]) for mean, members in MEANS.items() if members[0] in names}
    return {mean: slice(start, start + len(MEANS[mean])) for mean, start in first.items()}


@dataclass(frozen=True)
class Component:
    """One score: the similarity of two views, one per side.

    Args:
        name: the key under which the score is reported.
        similarity: ``(noisy_view, clean_view) -> (B,)``, e.g. :class:`~attacker_metrics.MSSSIM`.
        noisy: attackers applied to the noisy image, left to right; none = the image as it was given.
        clean: attackers applied to the clean image.
        variants: further attackers of which each in turn ends both chains; the score is the mean over them.
        undoes: what the attacker undoes, for tables.
        attacker: short name of the attacker, which components of several similarities share, such as ``"sobel"`` of
            ``sobel_gray`` and ``pearson_sobel``; by default the component's name.
        family: the mean to whose kind the score belongs, ``"ms_ssim"`` or ``"pearson"``; by default that of the similarity,
            empty for one of your own. Neither these two nor ``undoes`` make a component another one.

    Raises:
        TypeError: if an attacker or the similarity cannot be called or hashed.

    Example:
        >>> from attacker_metrics.attackers import Blur, clamp
        >>> Component("blur_rgb", SquaredPearson(), noisy=(clamp, Blur(1.0)), clean=(Blur(1.0),)).branches
        (((<function clamp at ...>, Blur(blur_sigma=1.0)), (Blur(blur_sigma=1.0),)),)
    """

    name: str
    similarity: Similarity
    noisy: View = ()
    clean: View = ()
    variants: View = ()
    undoes: str = field(default="", compare=False)
    attacker: str = field(default="", compare=False)
    family: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacker", self.attacker or self.name)
        object.__setattr__(self, "family", self.family or _family_of(self.similarity))
        for part in (self.similarity, *self.noisy, *self.clean, *self.variants):
            if not callable(part):
                raise TypeError(f"component {self.name!r}: {part!r} is not callable; pass a function (B, C, H, W) -> view.")
            if type(part).__hash__ is None:
                raise TypeError(
                    f"component {self.name!r}: {part!r} cannot be hashed, so its views cannot be shared;"
                    " make it a function, a dataclass(frozen=True) or a torch module."
                )

    @property
    def branches(self) -> tuple[tuple[View, View], ...]:
        """The pairs of (noisy, clean) chains whose similarities are averaged: one, or one per variant."""
        if not self.variants:
            return ((self.noisy, self.clean),)
        return tuple(((*self.noisy, last), (*self.clean, last)) for last in self.variants)


def _family_of(similarity: Any) -> str:
    similarity = getattr(similarity, "similarity", similarity)  # of an oracle
    return "ms_ssim" if isinstance(similarity, MSSSIM) else "pearson" if isinstance(similarity, SquaredPearson) else ""


def standard_components(
    *,
    gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
    blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
    wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
    betas: Sequence[float] = DEFAULT_BETAS,
    normalize: Normalize = "relu",
) -> dict[str, Component]:
    """Return the fifteen components by name: nine of MS-SSIM, then six of squared Pearson.

    Args:
        gamma_values: exponents of the gamma attacker, one or more, each > 0.
        blur_sigma: standard deviation of the blur attacker in pixels, > 0.
        wavelet_threshold: soft threshold of the wavelet attacker, >= 0.
        betas: MS-SSIM's exponents, one per scale, > 0.
        normalize: what MS-SSIM does to terms that are not positive; see :class:`~attacker_metrics.MSSSIM`.

    Raises:
        ValueError: if a setting is out of its range.

    Example:
        >>> list(standard_components())[:3]
        ['rgb_clamp', 'rgb_minmax', 'gray_clamp']
    """
    exponents = sequence("gamma_values", gamma_values, "be a sequence of positive numbers such as (0.5, 2.0)")
    if not exponents:
        raise ValueError("gamma_values is empty: the gamma attacker needs at least one exponent, e.g. (0.5, 2.0).")
    ms_ssim, pearson = MSSSIM(betas, normalize=normalize), SquaredPearson()  # type: ignore[arg-type]
    gammas = tuple(Gamma(gamma) for gamma in exponents)
    blur, wavelet = Blur(blur_sigma), Wavelet(wavelet_threshold)
    gray, clean_gray = (luma, clamp), (luma,)
    rows = (
        Component("rgb_clamp", ms_ssim, (clamp,), (), undoes="nothing: it looks at the picture", attacker="rgb"),
        Component("rgb_minmax", ms_ssim, (minmax,), (), undoes="values shifted or scaled out of [0, 1]"),
        Component("gray_clamp", ms_ssim, gray, clean_gray, undoes="colour noise", attacker="gray"),
        Component("gray_minmax", ms_ssim, (luma, minmax), clean_gray, undoes="shifted or scaled brightness, colour noise"),
        Component(
            "sobel_gray",
            ms_ssim,
            (luma, sobel, minmax),
            (luma, sobel, minmax),
            undoes="inversion, shifts, lost contrast",
            attacker="sobel",
        ),
        Component("blur_gray", ms_ssim, (*gray, blur), (*clean_gray, blur), undoes="fine-grained noise", attacker="blur"),
        Component(
            "standardize_gray",
            ms_ssim,
            (luma, standardize),
            (luma, standardize),
            undoes="shifted or scaled brightness",
            attacker="standardize",
        ),
        Component(
            "gamma_gray", ms_ssim, gray, clean_gray, gammas, undoes="darkening, brightening, tone curves", attacker="gamma"
        ),
        Component(
            "wavelet_gray",
            ms_ssim,
            (*gray, wavelet),
            (*clean_gray, wavelet),
            undoes="weak noise, kept edges",
            attacker="wavelet",
        ),
        Component("pearson_rgb", pearson, (clamp,), (), undoes="any affine change of all values, inversion", attacker="rgb"),
        Component(
            "pearson_gray", pearson, gray, clean_gray, undoes="affine changes, inversion, colour noise", attacker="gray"
        ),
        Component(
            "pearson_sobel",
            pearson,
            (luma, sobel),
            (luma, sobel),
            undoes="inversion, shifts, lost contrast",
            attacker="sobel",
        ),
        Component(
            "pearson_blur",
            pearson,
            (*gray, blur),
            (*clean_gray, blur),
            undoes="fine-grained noise, inversion",
            attacker="blur",
        ),
        Component(
            "pearson_gamma", pearson, gray, clean_gray, gammas, undoes="tone curves, inversion in part", attacker="gamma"
        ),
        Component(
            "pearson_wavelet",
            pearson,
            (*gray, wavelet),
            (*clean_gray, wavelet),
            undoes="weak noise, inversion",
            attacker="wavelet",
        ),
    )
    return {row.name: row for row in rows}


def is_known(component: Component, *, one_way: bool = False) -> bool:
    """Whether the engine can evaluate a component: only attackers and similarities of this library, data range 1.

    Args:
        component: any.
        one_way: whether no gradient is wanted; the engine then knows the attackers that suites add, too.
    """
    similarity = component.similarity
    if one_way and type(similarity) is AffineFit:
        similarity = similarity.similarity
    attackers = (*component.noisy, *component.clean, *component.variants)
    return is_known_similarity(similarity) and all(is_built_in(attacker, one_way=one_way) for attacker in attackers)


def is_known_similarity(similarity: Similarity) -> bool:
    """Whether the engine evaluates a similarity: one of this library, for a data range of 1."""
    return type(similarity) is SquaredPearson or (type(similarity) is MSSSIM and similarity.data_range == 1.0)


def program_of(components: Sequence[Component], channels: int, height: int, width: int) -> Program:
    """What the engine has to do for some components that it knows, every view made once.

    Args:
        components: what to evaluate.
        channels: of the images.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Raises:
        ValueError: if the images are too small for an attacker or a similarity, or the numbers of channels do not fit,
            or the engine does not know a similarity.
    """
    numbers: dict[tuple[int, tuple[Any, ...]], int] = {(0, ()): 0, (1, ()): 1}
    made: list[tuple[Any, int]] = []
    ms_ssim, pearson = [], []

    def number(side: int, view: tuple[Any, ...]) -> int:
        if (side, view) not in numbers:
            parent = number(side, view[:-1])
            if isinstance(view[-1], (Blur, Unsharp, Wiener)):
                Blur(view[-1].blur_sigma).check_size(height, width)
            made.append((view[-1], parent))
            numbers[side, view] = len(made) + 1
        return numbers[side, view]

    for k, component in enumerate(components):
        branches: Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]] = component.branches
        similarity = component.similarity
        if isinstance(similarity, AffineFit):
            similarity = similarity.similarity
            branches = [((*noisy, FitTo(number(1, clean)), luma), (*clean, luma)) for noisy, clean in branches]
        if not is_known_similarity(similarity):
            raise ValueError(
                f"component {component.name!r}: the engine does not know {similarity!r}; score it by its views."
            )
        if isinstance(similarity, MSSSIM):
            similarity.check_size(height, width)
        for noisy, clean in branches:
            place = (k, len(branches), number(0, noisy), number(1, clean))
            if isinstance(similarity, MSSSIM):
                ms_ssim.append(MSSSIMMeasurement(*place, similarity.betas, similarity.normalize))
            elif isinstance(similarity, SquaredPearson):
                pearson.append(PearsonMeasurement(*place, similarity.eps))
    program = Program(tuple(made), tuple(ms_ssim), tuple(pearson), len(components))
    counts = program.channels(channels)
    for attacker, parent in made:
        if attacker is luma and counts[parent] != 3:
            raise ValueError(f"luma needs 3 channels, got {counts[parent]}: leave it out for images that are grey already.")
    for compared in (*ms_ssim, *pearson):
        if counts[compared.noisy] != counts[compared.clean]:
            raise ValueError(
                f"component {components[compared.component].name!r}: the noisy and the clean view must have the same shape,"
                f" got {counts[compared.noisy]} and {counts[compared.clean]} channels."
            )
    return program
