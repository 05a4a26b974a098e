"""What the kernels are unrolled over: a program in normal form, its planes and their places in memory."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False, disable-error-code="assignment,var-annotated,import-untyped"

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import triton.language as tl

from attacker_metrics.attackers.standard import Blur, Gamma, Wavelet, clamp, gaussian_taps, luma, minmax, sobel, standardize
from attacker_metrics.engine.program import FOLD, Program

_MOST_PLANES = 64  # compared; the kernels are unrolled over them
_RADIUS = 5
_LUMA = tl.constexpr(-1)  # instead of the number of a channel
_TILES = tl.constexpr(128)  # block sums that are merged at once
_BORDER = tl.constexpr(_RADIUS)
_HALO = tl.constexpr(2 * _RADIUS)
_PAD = tl.constexpr(16)  # values in front of a ring row: at least the halo, and a multiple of what is loaded at once
_C1, _C2 = tl.constexpr(0.01**2), tl.constexpr(0.03**2)
_SLOPE_FLOOR = tl.constexpr(1e-6)
_FOLD = tl.constexpr(FOLD)
_VARIANCE_FLOOR = tl.constexpr(1e-36)
_LARGEST = tl.constexpr(1e15)


class Source(NamedTuple):
    """A plane whose statistics are taken: pixels or edge strengths."""

    side: int
    channel: int  # or _LUMA
    cut: bool
    edges: bool
    full: bool  # variance and range too, not the mean alone
    extra: int  # where it is stored among the extra planes, or -1


class View(NamedTuple):
    """A compared view: luma or channels of one side, perhaps cut, then an attacker."""

    side: int
    luma: bool
    cut: bool
    attacker: str  # "none", "minmax", "sobel", "edges" (sobel, then minmax), "standardize", "blur", "gamma", "wavelet"
    setting: float
    radius: int  # of a blur
    norm: float  # one over the sum of a blur's taps
    planes: int
    source: int  # number of its first plane's source
    extra: int  # of a blur: where its first plane, blurred along rows, is among the extra planes
    reduced: int  # number among the views whose pull-back needs sums over the image, or -1


class Compared(NamedTuple):
    """A comparison of two views, by number."""

    noisy: int
    clean: int
    component: int
    of: int
    first: int  # number of its first plane among the planes of all comparisons of its kind
    planes: int
    eps: float  # of squared Pearson


class PlanePair(NamedTuple):
    """Two views that are compared, by number."""

    noisy: int
    clean: int
    planes: int
    first: int  # number of the first plane of its comparison by MS-SSIM, or -1
    moments: int  # and of that by squared Pearson


class Edges(NamedTuple):
    """An edge strength through which gradients go back."""

    source: int
    extra: int  # where the strength is among the extra planes
    back: int  # where the two slopes in its derivatives are
    uses: tuple[tuple[int, int], ...]  # views made of it, and of which of their planes


class Blurred(NamedTuple):
    """A plane of a blurred view."""

    view: int
    plane: int
    extra: int  # where it is, blurred along rows, among the extra planes
    back: int  # where the slope in it is


@dataclass(frozen=True, eq=False)
class Plan:
    """A program in the normal form of this module. Launches compare plans by identity: equal ones are one object."""

    channels: int
    views: tuple[View, ...]
    sources: tuple[Source, ...]
    ms_ssim: tuple[Compared, ...]
    pearson: tuple[Compared, ...]
    pairs: tuple[PlanePair, ...]
    edges: tuple[Edges, ...]
    blurs: tuple[Blurred, ...]
    betas: tuple[float, ...]
    normalize: str
    components: int
    extras: int  # planes kept beside the images

    @property
    def planes(self) -> int:
        """Pairs of planes that MS-SSIM compares."""
        return sum(m.planes for m in self.ms_ssim)

    @property
    def moments(self) -> int:
        """Pairs of planes that squared Pearson compares."""
        return sum(p.planes for p in self.pearson)

    @property
    def reduced(self) -> int:
        """Views whose pull-back needs sums over the image."""
        return sum(view.reduced >= 0 for view in self.views)

    @property
    def coefficients(self) -> int:
        """Numbers per image that the gradient needs."""
        return 5 * len(self.pearson) + 3 * self.reduced


class Image(NamedTuple):
    """Where a pair of images is, and what is known about it."""

    noisy: Any
    clean: Any
    extra: Any
    statistics: Any
    finite: Any
    height: Any
    width: Any
    size: Any


class Flow(NamedTuple):
    """Where the gradients of an image's scores are, and what they are multiplied by."""

    gradient: Any
    stride: Any
    noisy: Any
    clean: Any
    coefficients: Any


_TAPS = tuple(gaussian_taps(1.5, _RADIUS))


@functools.lru_cache(maxsize=256)
def _plan(program: Program, channels: int) -> Plan | None:
    """The program in normal form, or None if it has none."""
    chains: list[tuple[int, tuple[Any, ...]]] = [(0, ()), (1, ())]
    for attacker, parent in program.made:
        side, chain = chains[parent]
        chains.append((side, (*chain, attacker)))
    builder = _Builder(channels)
    comparisons: tuple[list[Compared], list[Compared]] = ([], [])
    for kind, compared in enumerate((program.ms_ssim, program.pearson)):
        for c in compared:
            x, y = builder.view(*chains[c.noisy]), builder.view(*chains[c.clean])
            if x is None or y is None or (chains[c.noisy][0], chains[c.clean][0]) != (0, 1):
                return None
            noisy, clean = builder.views[x], builder.views[y]
            if noisy.planes != clean.planes or (kind and max(noisy.reduced, clean.reduced) >= 0):
                return None
            comparisons[kind].append(Compared(x, y, c.component, c.of, -1, noisy.planes, getattr(c, "eps", 0.0)))
    settings = {(m.betas, m.normalize) for m in program.ms_ssim}
    if len(settings) > 1 or sum(c.planes for kind in comparisons for c in kind) > _MOST_PLANES:
        return None
    betas, normalize = settings.pop() if settings else ((), None)
    return builder.plan(comparisons, betas, normalize or "none", program.components)


class _Builder:
    """Collects views and the planes that they need."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.views: list[View] = []
        self.numbers: dict[Any, int] = {}
        self.groups: dict[tuple[int, bool, bool, bool], int] = {}  # (side, luma, cut, edges) -> first source
        self.sources: list[Source] = []
        self.extras = 2  # the lumas
        self.reduced = 0

    def view(self, side: int, chain: tuple[Any, ...]) -> int | None:
        """The number of a view, or None if it has no normal form."""
        if (side, chain) in self.numbers:
            return self.numbers[side, chain]
        rest = list(chain)
        is_luma = rest[:1] == [luma]
        rest = rest[is_luma:]
        is_cut = rest[:1] == [clamp]
        rest = rest[is_cut:]
        attacker, setting, radius, norm = "none", 0.0, 0, 1.0
        if len(rest) == 1 and isinstance(rest[0], Blur):
            attacker, setting = "blur", rest[0].blur_sigma
            radius = math.ceil(3 * setting)
            norm = gaussian_taps(setting, radius)[radius]
        elif len(rest) == 1 and isinstance(rest[0], Gamma):
            attacker, setting = "gamma", rest[0].gamma
        elif len(rest) == 1 and isinstance(rest[0], Wavelet):
            attacker, setting = "wavelet", rest[0].wavelet_threshold
        elif rest:
            simple = {(minmax,): "minmax", (sobel,): "sobel", (sobel, minmax): "edges", (standardize,): "standardize"}
            if tuple(rest) not in simple:
                return None
            attacker = simple[tuple(rest)]
        if is_luma and self.channels != 3:
            return None
        planes = 1 if is_luma else self.channels
        edges, reduced = attacker in ("sobel", "edges"), attacker in ("minmax", "edges", "standardize")
        source = self._source(side, is_luma, is_cut, edges, reduced)
        extra = self._take(planes if attacker == "blur" else 0)
        number = self.reduced if reduced else -1
        self.reduced += reduced
        self.views.append(View(side, is_luma, is_cut, attacker, setting, radius, norm, planes, source, extra, number))
        self.numbers[side, chain] = len(self.views) - 1
        return len(self.views) - 1

    def _take(self, planes: int) -> int:
        self.extras += planes
        return self.extras - planes

    def _source(self, side: int, is_luma: bool, cut: bool, edges: bool, full: bool) -> int:
        if is_luma and (cut or edges):  # so that the luma itself is stored
            self._source(side, True, False, False, False)
        channels = [_LUMA.value] if is_luma else list(range(self.channels))
        first = self.groups.setdefault((side, is_luma, cut, edges), len(self.sources))
        if first == len(self.sources):
            for channel in channels:
                extra = self._take(1) if edges else side if is_luma and not cut else -1
                self.sources.append(Source(side, channel, cut, edges, full, extra))
        for k in range(first, first + len(channels)):
            self.sources[k] = self.sources[k]._replace(full=full or self.sources[k].full)
        return first

    def plan(
        self, comparisons: tuple[list[Compared], list[Compared]], betas: tuple[float, ...], normalize: str, components: int
    ) -> Plan:
        """What was collected; planes for the slopes get their places behind the others."""
        edges, blurs = [], []
        for k, source in enumerate(self.sources):
            if source.edges:
                made = [(v, k - view.source) for v, view in enumerate(self.views) if view.attacker in ("sobel", "edges")]
                uses = tuple((v, plane) for v, plane in made if 0 <= plane < self.views[v].planes)
                edges.append(Edges(k, source.extra, self._take(2), uses))
        for v, view in enumerate(self.views):
            if view.attacker == "blur":
                blurs += [Blurred(v, plane, view.extra + plane, self._take(1)) for plane in range(view.planes)]
        pairs, ms_ssim, pearson = _number(*comparisons)
        return Plan(
            self.channels, tuple(self.views), tuple(self.sources), ms_ssim, pearson, pairs, tuple(edges), tuple(blurs),
            tuple(betas), normalize, components, self.extras,
        )  # fmt: skip


def _number(
    ms_ssim: list[Compared], pearson: list[Compared]
) -> tuple[tuple[PlanePair, ...], tuple[Compared, ...], tuple[Compared, ...]]:
    """All pairs of views, and the comparisons with their planes numbered in the order of these pairs."""
    pairs: list[PlanePair] = []
    numbered: tuple[list[Compared], list[Compared]] = ([], [])
    free = list(range(len(pearson)))
    first = moments = 0

    def add(m: Compared | None, p: int | None) -> None:
        nonlocal first, moments
        c = m or pearson[p or 0]
        pairs.append(PlanePair(c.noisy, c.clean, c.planes, -1 if m is None else first, -1 if p is None else moments))
        if m is not None:
            numbered[0].append(m._replace(first=first))
            first += c.planes
        if p is not None:
            free.remove(p)
            pearson[p] = pearson[p]._replace(first=moments)
            moments += c.planes

    for m in ms_ssim:
        add(m, next((p for p in free if (pearson[p].noisy, pearson[p].clean) == (m.noisy, m.clean)), None))
    for p in list(free):
        add(None, p)
    return tuple(pairs), tuple(numbered[0]), tuple(pearson)
