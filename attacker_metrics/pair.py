"""A checked pair of image batches that makes each view and each score once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attacker_metrics.components import Component, View, is_known, is_known_similarity, program_of
from attacker_metrics.engine import evaluate
from attacker_metrics.program import LARGEST
from attacker_metrics.similarity import check_floating

_CLEAN_TOLERANCE = 1e-3


class Pair:
    """A noisy batch and its clean originals, and what attackers make of them.

    Every path of the library (functions, metrics, collection, command line) scores through this class. Images are read in
    float32 at least (float64 stays float64), whatever the surrounding autocast; each view and each component is
    evaluated once, however often it is asked for. A pair of images with a NaN or an infinity scores NaN with zero
    gradient and does not touch its neighbours. The gradient mode is that of the moment when the pair is made.

    Args:
        noisy: obfuscated or reconstructed images ``(B, 3, H, W)``; may leave [0, 1].
        clean: the originals, same shape and device, in [0, 1].
        channels: the number of channels to insist on; ``None`` for any, which only attackers that take any can use.

    Raises:
        TypeError: if an argument is no tensor of float16, bfloat16, float32 or float64.
        ValueError: if the shapes or devices differ, are not ``(B, 3, H, W)``, or the images are empty.

    Example:
        >>> import torch
        >>> from attacker_metrics.components import standard_components
        >>> clean = torch.rand(2, 3, 176, 176)
        >>> pair = Pair(1 - clean, clean)
        >>> pair.score(standard_components()["pearson_rgb"]).round(decimals=4)  # an inverted picture still shows everything
        tensor([1., 1.])
    """

    def __init__(self, noisy: Tensor, clean: Tensor, *, channels: int | None = 3) -> None:
        check_images(noisy, clean, channels=channels)
        self.dtype = torch.promote_types(noisy.dtype, clean.dtype)
        """Promoted dtype of the two inputs, in which the functions answer."""
        self._given = noisy, clean
        (low, high), self._clean_bounds = ([b.to(self.dtype) for b in _bounds(image)] for image in (noisy, clean))
        bounds = torch.stack([low, high, *self._clean_bounds])  # NaN and infinity show in them
        self.finite: Tensor = torch.linalg.vector_norm(bounds, math.inf, dim=0) < math.inf
        """``(B,)`` bool: no pixel of either image is NaN or infinite."""
        self._grad = torch.is_grad_enabled()
        self._views: dict[tuple[int, View], Tensor] = {}
        self._scores: dict[Component, Tensor] = {}

    def __len__(self) -> int:
        return len(self.finite)

    @property
    def device(self) -> torch.device:
        """The device of both images."""
        return self.finite.device

    @cached_property
    def counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """How many pairs are finite, how many are not, and how many clean images leave [0, 1]: int64 scalars."""
        return self.finite.sum(), (~self.finite).sum(), (~self.clean_in_range).sum()

    @cached_property
    def counted(self) -> tuple[int, int, int]:
        """:attr:`counts` as numbers, for which an accelerator has to be waited for."""
        finite, skipped, out_of_range = map(int, self.counts)
        return finite, skipped, out_of_range

    @cached_property
    def none(self) -> Tensor:
        """``(B,)`` bool: no image."""
        return torch.zeros_like(self.finite)

    @property
    def clean_in_range(self) -> Tensor:
        """``(B,)`` bool: every finite clean value lies in [0, 1], give or take 1e-3."""
        low, high = (bound.to(torch.promote_types(self.dtype, torch.float32)) for bound in self._clean_bounds)
        return ~self.finite | ((low >= -_CLEAN_TOLERANCE) & (high <= 1 + _CLEAN_TOLERANCE))

    def views(self, component: Component) -> list[tuple[Tensor, Tensor]]:
        """What a component compares: per branch the noisy and the clean view, float32 or float64."""
        with torch.autocast(self.device.type, enabled=False), torch.set_grad_enabled(self._grad):
            return [(self._view(0, noisy), self._view(1, clean)) for noisy, clean in component.branches]

    def score(self, component: Component) -> Tensor:
        """The score of every image, ``(B,)`` in float32 or float64; NaN where a pixel is not finite.

        Raises:
            ValueError: if the images are too small for the component, or its similarity returns another shape.
        """
        return self.scores([component])[0]

    def scores(self, components: Iterable[Component]) -> list[Tensor]:
        """Like :meth:`score` for several components, evaluated together."""
        wanted = list(components)
        found = [(component, self._scores.get(component)) for component in wanted]
        missing = list(dict.fromkeys(component for component, score in found if score is None))
        if not missing:
            return [score for _, score in found if score is not None]
        with torch.autocast(self.device.type, enabled=False), torch.set_grad_enabled(self._grad):
            known = [component for component in missing if is_known(component, one_way=self._one_way)]
            if known:
                scores = self._evaluate(known)
                self._scores.update((component, scores[:, k]) for k, component in enumerate(known))
            self._scores.update(self._score_by_views([component for component in missing if component not in known]))
        return [self._scores[component] for component in wanted]

    def scores_side_by_side(self, components: Sequence[Component]) -> Tensor:
        """The scores of components that the engine knows, ``(B, components)``, evaluated anew."""
        with torch.set_grad_enabled(self._grad):
            return self._evaluate(components)

    @property
    def _one_way(self) -> bool:
        """Whether the engine may evaluate the suites' attackers: on a CPU (elsewhere not every backend can), no gradient."""
        wanted = self._grad and any(image.requires_grad for image in self._given)  # now: they may have come to want one
        return self.device.type == "cpu" and not wanted

    def _evaluate(self, known: Sequence[Component]) -> Tensor:
        return evaluate(*self._given, self.finite, program_of(known, *self._given[0].shape[1:]))

    def _score_by_views(self, components: Sequence[Component]) -> dict[Component, Tensor]:
        """The scores of components with an attacker or a similarity that the engine does not know.

        Views that one of this library's similarities compares are laid behind each other and compared in one go.
        """
        batches: dict[Any, list[tuple[Component, Tensor, Tensor]]] = {}
        for component in components:
            for number, (noisy, clean) in enumerate(self.views(component)):
                alike = (component.similarity, noisy.shape, clean.shape)
                key = alike if is_known_similarity(component.similarity) else (component, number)
                batches.setdefault(key, []).append((component, noisy, clean))
        values: dict[Component, list[Tensor]] = {component: [] for component in components}
        for batch in batches.values():
            members, *sides = zip(*batch, strict=True)
            noisy, clean = (side[0] if len(side) == 1 else torch.cat(side) for side in sides)
            together = members[0].similarity(noisy, clean)
            if together.shape != (len(members) * len(self),):
                raise ValueError(
                    f"component {members[0].name!r}: its similarity must return one number per image, shape"
                    f" ({len(members) * len(self)},), got {tuple(together.shape)}."
                )
            for component, value in zip(members, together.view(len(members), -1), strict=True):
                values[component].append(value)
        means = {component: torch.stack(found).mean(dim=0) for component, found in values.items()}
        return {component: torch.where(self.finite, mean, torch.nan) for component, mean in means.items()}

    def _view(self, side: int, view: View) -> Tensor:
        if (side, view) not in self._views:
            if view:
                before = self._view(side, view[:-1])
                self._views[side, view] = view[-1](before).to(before.dtype)
            else:
                dtype = torch.promote_types(self.dtype, torch.float32)
                mask = self.finite.view(-1, 1, 1, 1)
                self._views[side, view] = torch.where(mask, as_computed(self._given[side], dtype), 0.0)
        return self._views[side, view]


def _bounds(images: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of every image, by what is fastest on its device."""
    values = images.detach().flatten(1)
    if values.is_cuda:  # in one pass
        low, high = torch.aminmax(values, dim=1)
        return low, high
    return values.amin(dim=1), values.amax(dim=1)


def check_images(noisy: Any, clean: Any, *, channels: int | None = 3, allow_empty: bool = False) -> None:
    """Raise unless both are real floating tensors ``(B, C, H, W)`` of one shape, on one device, not empty.

    Args:
        noisy: what was given as the noisy images.
        clean: what was given as the clean images.
        channels: the number of channels required; ``None`` for any.
        allow_empty: whether a batch of no images will do.
    """
    check_floating(noisy, clean)
    if noisy.shape != clean.shape:
        raise ValueError(f"noisy and clean must have the same shape, got {tuple(noisy.shape)} and {tuple(clean.shape)}.")
    if noisy.device != clean.device:
        raise ValueError(f"noisy and clean must be on the same device, got {noisy.device} and {clean.device}.")
    wanted = "C" if channels is None else channels
    if noisy.ndim != 4:
        raise ValueError(
            f"images must have shape (B, {wanted}, H, W), got {tuple(noisy.shape)}; add a batch dimension to a single"
            " image by image.unsqueeze(0)."
        )
    if channels is not None and noisy.shape[1] != channels:
        raise ValueError(
            f"images must have {channels} channels (B, {channels}, H, W), got {tuple(noisy.shape)}; move channels to"
            " dimension 1, or repeat a grey one by image.expand(-1, 3, -1, -1)."
        )
    if noisy.shape[0] == 0 and not allow_empty:
        raise ValueError(f"the batch is empty: shape {tuple(noisy.shape)}; pass at least one pair of images.")
    if 0 in noisy.shape[1:]:
        raise ValueError(f"the images have no pixels: shape {tuple(noisy.shape)}.")


def as_computed(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast images for computation; values beyond +-1e15 are cut, so that no square of a finite value overflows.

    A gradient that flows back into float16 saturates at its largest number instead of becoming infinite.
    """
    if images.dtype == torch.float16 and images.requires_grad:
        images = _FromHalf.apply(images, dtype)  # type: ignore[no-untyped-call]
    return images.to(dtype).clamp(-LARGEST, LARGEST)


class _FromHalf(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, images: Tensor, dtype: torch.dtype) -> Tensor:
        return images.to(dtype)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        limit = torch.finfo(torch.float16).max
        return gradient.clamp(-limit, limit).to(torch.float16), None
