"""Components as numbers: which views to make and what to compare, in a form that every backend of the engine reads.

A registered operator takes tensors and numbers, no Python objects. A :class:`Program` therefore turns into two flat lists
and back::

    integers:  number of made views; of each: attacker (its place in ATTACKERS), parent, place of its settings in numbers
               number of MS-SSIM comparisons; of each: component, comparisons of that component, noisy view, clean view,
                   place of its first beta in numbers, number of betas, place in NORMALIZATIONS
               number of squared Pearsons; of each: component, comparisons of that component, noisy view, clean view,
                   place of eps in numbers
               number of components
    numbers:   the settings

Views are numbered: 0 is the noisy image, 1 the clean one, then the made ones, every parent before its children. The score
of a component is the mean over its comparisons. The attackers of :data:`ONE_WAY` are evaluated only: no backend pulls a
gradient back through them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from attacker_metrics.attackers.filters import JPEG, AffineFit, Equalize, Unsharp, Wiener, invert, median
from attacker_metrics.attackers.standard import Attacker, Blur, Gamma, Wavelet, clamp, luma, minmax, sobel, standardize


@dataclass(frozen=True)
class FitTo:
    """A view in the making: the channels of its parent, each brought as close to those of a clean view as it gets.

    Args:
        clean: number of the clean view.
    """

    clean: int

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """The fitted view, given both; see :class:`~attacker_metrics.attackers.filters.AffineFit`."""
        return AffineFit.fitted(noisy, clean)


_BOTH_WAYS: tuple[Any, ...] = (luma, clamp, minmax, sobel, standardize, Blur, Gamma, Wavelet)
ONE_WAY: tuple[Any, ...] = (invert, Equalize, median, Unsharp, Wiener, JPEG, FitTo)
"""What is evaluated without gradients only."""
ATTACKERS = _BOTH_WAYS + ONE_WAY
NORMALIZATIONS = (None, "relu", "simple", "fold")
FOLD = 0.01
"""Terms of MS-SSIM below are bent under ``"fold"``."""
LARGEST = 1e15
"""Pixels beyond are cut: the square of what is left fits into float32 many times over."""


@dataclass(frozen=True)
class Measurement:
    """Two views, by number, that count ``1 / of`` in a component, by number."""

    component: int
    of: int
    noisy: int
    clean: int


@dataclass(frozen=True)
class MSSSIMMeasurement(Measurement):
    """A comparison by MS-SSIM for a data range of 1."""

    betas: tuple[float, ...]
    normalize: str | None


@dataclass(frozen=True)
class PearsonMeasurement(Measurement):
    """A comparison by squared Pearson."""

    eps: float


@dataclass(frozen=True)
class Program:
    """What the engine evaluates in one pass over a pair of batches.

    Args:
        made: attacker and parent of the views from number 2 on.
        ms_ssim: the comparisons by MS-SSIM.
        pearson: the comparisons by squared Pearson.
        components: how many scores an image gets.
    """

    made: tuple[tuple[Attacker | FitTo, int], ...]
    ms_ssim: tuple[MSSSIMMeasurement, ...]
    pearson: tuple[PearsonMeasurement, ...]
    components: int

    def channels(self, images: int) -> list[int]:
        """Number of channels of every view of images with so many."""
        counts = [images, images]
        for attacker, parent in self.made:
            counts.append(1 if attacker is luma else counts[parent])
        return counts

    @property
    def one_way(self) -> bool:
        """Whether it has an attacker through which no gradient is pulled back."""
        return not all(is_built_in(attacker) for attacker, _ in self.made)

    def chain(self, view: int) -> tuple[list[Attacker], int]:
        """The attackers that make a view, in their order, and the number of the image that they begin with."""
        attackers: list[Attacker] = []
        while view > 1:
            attacker, view = self.made[view - 2]
            assert not isinstance(attacker, FitTo), "a fitted view is made of two"
            attackers.insert(0, attacker)
        return attackers, view

    def to_numbers(self) -> tuple[list[int], list[float]]:
        """The two lists of the module's docstring."""
        integers: list[int] = [len(self.made)]
        numbers: list[float] = []
        for attacker, parent in self.made:
            settings = _settings(attacker)
            kind = type(attacker) if settings else attacker
            integers += [ATTACKERS.index(kind), parent, len(numbers)]
            numbers += settings
        integers.append(len(self.ms_ssim))
        for m in self.ms_ssim:
            normalize = NORMALIZATIONS.index(m.normalize)
            integers += [m.component, m.of, m.noisy, m.clean, len(numbers), len(m.betas), normalize]
            numbers += m.betas
        integers.append(len(self.pearson))
        for p in self.pearson:
            integers += [p.component, p.of, p.noisy, p.clean, len(numbers)]
            numbers.append(p.eps)
        return [*integers, self.components], numbers


def from_numbers(integers: Sequence[int], numbers: Sequence[float]) -> Program:
    """The program whose :meth:`Program.to_numbers` these are."""
    return _from_numbers(tuple(integers), tuple(numbers))


@functools.lru_cache(maxsize=256)
def _from_numbers(integers: tuple[int, ...], numbers: tuple[float, ...]) -> Program:
    rest: Iterator[int] = iter(integers)

    def take(count: int) -> list[int]:
        return [next(rest) for _ in range(count)]

    made = []
    for _ in range(next(rest)):
        kind, parent, at = take(3)
        made.append((_with_settings(ATTACKERS[kind], numbers[at:]), parent))
    ms_ssim = []
    for _ in range(next(rest)):
        k, of, noisy, clean, at, count, normalize = take(7)
        ms_ssim.append(MSSSIMMeasurement(k, of, noisy, clean, numbers[at : at + count], NORMALIZATIONS[normalize]))
    pearson = []
    for _ in range(next(rest)):
        k, of, noisy, clean, at = take(5)
        pearson.append(PearsonMeasurement(k, of, noisy, clean, numbers[at]))
    return Program(tuple(made), tuple(ms_ssim), tuple(pearson), next(rest))


def is_built_in(attacker: Attacker | FitTo, *, one_way: bool = False) -> bool:
    """Whether the engine knows the attacker.

    Args:
        attacker: any.
        one_way: whether no gradient is wanted.
    """
    known = ATTACKERS if one_way else _BOTH_WAYS
    return any(type(attacker) is kind if isinstance(kind, type) else attacker is kind for kind in known)


def _settings(attacker: Any) -> list[float]:
    return [float(value) for value in astuple(attacker)] if is_dataclass(type(attacker)) else []


def _with_settings(kind: Any, numbers: Sequence[float]) -> Any:
    if not isinstance(kind, type):
        return kind
    settings = zip(fields(kind), numbers, strict=False)
    return kind(*(int(number) if field.type == "int" else number for field, number in settings))
