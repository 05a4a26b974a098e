"""What is checked, on which pictures, and the words for what fails."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from attacker_metrics.metrics.attacker_metric import AttackerMetric
from attacker_metrics.scoring.pair import Pair, check_images
from attacker_metrics.testing.pictures import made_pictures

SIZES = ((24, 30), (48, 60), (96, 102), (176, 182))
"""Heights and widths that are tried in turn, until the metric takes them."""
_FEWEST = 6
ROUNDING = 1e-5
"""By how much scores may differ where only the order of sums does."""


class BrokenError(AssertionError):
    """What failed, without the name of the metric."""


@dataclass(frozen=True)
class Subject:
    """A metric to check.

    Args:
        metric: a copy that has seen nothing; not to be updated, see :meth:`fresh`.
        others: metrics of its class that must not count as the same.
        noisy: sent pictures ``(B, 3, H, W)``, B >= 6.
        clean: their originals.
    """

    metric: AttackerMetric
    others: tuple[AttackerMetric, ...]
    noisy: Tensor
    clean: Tensor

    @property
    def name(self) -> str:
        """Class and component, as failures begin."""
        return f"{type(self.metric).__name__} {self.metric.name!r}"

    @property
    def shares(self) -> tuple[slice, ...]:
        """Three uneven batches that are all pictures."""
        return slice(0, 3), slice(3, 4), slice(4, len(self.noisy))

    def fresh(self) -> AttackerMetric:
        """A copy of the metric that has seen nothing."""
        return copied(self.metric)

    def updated(self, *batches: slice) -> AttackerMetric:
        """A copy that has seen some of the pictures."""
        metric = self.fresh()
        for batch in batches:
            metric.update(self.noisy[batch], self.clean[batch])
        return metric

    def scores(self, noisy: Tensor, clean: Tensor, metric: AttackerMetric | None = None) -> Tensor:
        """The score of every picture, without gradient, by a fresh copy or by a metric that goes on."""
        with torch.no_grad():
            return (metric or self.fresh()).scores(Pair(noisy, clean))


def subject_of(metric: Any, others: tuple[Any, ...], noisy: Tensor | None, clean: Tensor | None) -> Subject:
    """The metric with the pictures that were given, or with the smallest made ones that it takes."""
    for given in (metric, *others):
        if not isinstance(given, AttackerMetric):
            raise TypeError(
                f"check_attacker takes an AttackerMetric, got {type(given).__name__}: subclass AttackerMetric, or pass"
                " AttackerMetric(Component(name, similarity, noisy=(attacker,)))."
            )
    name = f"{type(metric).__name__} {metric.name!r}"
    try:
        fresh, apart = copied(metric), tuple(map(copied, others))
    except Exception as error:
        raise AssertionError(
            f"{name}, copy: copy.deepcopy raised {type(error).__name__}: {error}; a metric must hold nothing that cannot be"
            " copied, such as an open file or a connection."
        ) from error
    if (noisy is None) != (clean is None):
        raise ValueError("noisy and clean belong together: give both or neither.")
    if noisy is not None and clean is not None:
        check_images(noisy, clean)
        if len(noisy) < _FEWEST:
            raise ValueError(f"at least {_FEWEST} pictures are needed for uneven batches, got {len(noisy)}.")
        return Subject(fresh, apart, noisy.detach(), clean.detach())
    refused: ValueError | None = None
    for size in SIZES:
        try:
            found = Subject(fresh, apart, *made_pictures(*size))
            found.scores(found.noisy[:1], found.clean[:1])
        except ValueError as error:  # too small
            refused = error
            continue
        except Exception:
            return found  # the first check tells it
        return found
    raise AssertionError(
        f"{name}, pictures: raised ValueError: {refused} Pass pictures that the attacker is for: check_attacker(metric,"
        " noisy=..., clean=...)."
    ) from refused


def copied(metric: AttackerMetric) -> AttackerMetric:
    """A copy that has seen nothing."""
    found = copy.deepcopy(metric)
    found.reset()
    return found


def broken(words: str) -> NoReturn:
    """Fail with words."""
    raise BrokenError(words)


def demand_equal(found: Tensor, wanted: Tensor, words: str, tolerance: float = ROUNDING) -> None:
    """Fail with words, ``{found}`` and ``{wanted}`` in them being the two values that differ most, unless all agree."""
    if found.shape != wanted.shape:
        broken(_filled(words, f"shape {tuple(found.shape)}", f"shape {tuple(wanted.shape)}"))
    one, other = found.detach().double().flatten(), wanted.detach().double().flatten()
    differences = torch.where(one.isnan() & other.isnan(), 0.0, (one - other).abs().nan_to_num(torch.inf))
    if len(differences) and float(differences.max()) > tolerance:
        at = int(differences.argmax())
        broken(_filled(words, f"{float(one[at]):.6g}", f"{float(other[at]):.6g}"))


def _filled(words: str, found: str, wanted: str) -> str:
    return words.replace("{found}", found).replace("{wanted}", wanted)
