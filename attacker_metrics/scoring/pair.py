"""A checked pair of image batches that makes each view and each score once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attacker_metrics._transforms import transforming, wants_gradient
from attacker_metrics._warnings import warn_unless
from attacker_metrics.attackers import Attacker
from attacker_metrics.attackers.filters import AffineFit
from attacker_metrics.attackers.slopes import cut
from attacker_metrics.engine import evaluate
from attacker_metrics.engine.program import LARGEST, is_built_in
from attacker_metrics.scoring.components import Component, View, is_known, is_known_similarity, program_of
from attacker_metrics.scoring.oracles.oracle import Finder, Oracle, Sight, compared, without_slope
from attacker_metrics.scoring.similarity import MSSSIM, SquaredPearson, check_floating

_TOLERANCE = 1e-3
_BRIGHT = 100
"""The brightest pixel of a picture in 0..255 is brighter; those in [0, 1] are far from it, whatever noise was added."""


class Pair:
    """A noisy batch and its clean originals, and what attackers make of them.

    Every path of the library (functions, metrics, collection, command line) scores through this class. Images are read in
    float32 at least (float64 stays float64), whatever the surrounding autocast; each view and each component is
    evaluated once, however often it is asked for; also where one picture, ``image.expand(B, -1, -1, -1)``, is compared with
    many and no gradient is wanted. A pair of images with a NaN or an infinity scores NaN with zero gradient and does not
    touch its neighbours. The gradient mode is that of the moment when the pair is made.

    Args:
        noisy: obfuscated or reconstructed images ``(B, 3, H, W)``; may leave [0, 1].
        clean: the originals, same shape and device, in [0, 1].
        channels: the number of channels to insist on; ``None`` for any, which only attackers that take any can use.

    Raises:
        TypeError: if an argument is no tensor of float16, bfloat16, float32 or float64.
        ValueError: if the shapes or devices differ, are not ``(B, 3, H, W)``, or the images are empty.

    Example:
        >>> import torch
        >>> from attacker_metrics.scoring.components import standard_components
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
        self._versions = _versions(self._given)
        self._bounds = [[bound.to(self.dtype) for bound in _bounds(image)] for image in (noisy, clean)]
        bounds = torch.stack([*self._bounds[0], *self._bounds[1]])  # NaN and infinity show in them
        self.finite: Tensor = torch.linalg.vector_norm(bounds, math.inf, dim=0) < math.inf
        """``(B,)`` bool: no pixel of either image is NaN or infinite."""
        self._grad = torch.is_grad_enabled()
        self._of_one = [self._is_one_picture(image) for image in self._given]
        self._views: dict[tuple[int, View], Tensor] = {}
        self._sights: dict[tuple[Finder, View, View], Sight] = {}
        self._scores: dict[Component, Tensor] = {}
        self._convention_checked = False

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
        if transforming():
            raise NotImplementedError(
                "metrics count images in their state, which torch.func's transforms (vmap, grad, ...) cannot do: use"
                " multi_attacker_scores or multi_attacker_privacy_loss inside them."
            )
        finite, skipped, out_of_range = map(int, self.counts)
        return finite, skipped, out_of_range

    @cached_property
    def none(self) -> Tensor:
        """``(B,)`` bool: no image."""
        return torch.zeros_like(self.finite)

    @property
    def clean_in_range(self) -> Tensor:
        """``(B,)`` bool: every finite clean value lies in [0, 1], give or take 1e-3."""
        return self._in_range(1)

    @property
    def seem_swapped(self) -> bool:
        """Whether some of the clean images leave [0, 1], where none of the noisy ones does; waits for an accelerator."""
        return not bool(self.clean_in_range.all()) and bool(self._in_range(0).all())

    def warn_of_convention(self) -> None:
        """Warn, once per pair, of noisy images that look like 0..255 where their originals are in [0, 1].

        They may leave [0, 1]; but values from 0 to 255 are rather a convention than an obfuscation, and every component
        would see white. An accelerator is not waited for: there the warning comes with a later call.
        """
        if not self._convention_checked and not torch.compiler.is_compiling():
            self._convention_checked = True
            low, high = (bound.float() for bound in self._bounds[0])
            if self.device.type == "cpu" and not transforming() and not bool((high > _BRIGHT).any()):
                return
            mean = self._given[0].detach()[:, :, ::4, ::4].flatten(1).float().mean(dim=1)  # a sample will do
            like_bytes = (high > _BRIGHT) & (high - low < 4 * 255) & (high - low > 64) & (mean > 16) & (mean < 255 - 16)
            warn_unless(
                ~(like_bytes & self.finite & self.clean_in_range),
                "{} of {} noisy images look like values from 0 to 255, while the clean images lie in [0, 1]: divide them by"
                " 255, noisy / 255, or every attacker sees white. (If they are an obfuscation's, ignore this.)",
            )

    def _in_range(self, side: int) -> Tensor:
        low, high = (bound.to(torch.promote_types(self.dtype, torch.float32)) for bound in self._bounds[side])
        return ~self.finite | ((low >= -_TOLERANCE) & (high <= 1 + _TOLERANCE))

    def views(self, component: Component) -> list[tuple[Tensor, Tensor]]:
        """What a component compares: per branch the noisy and the clean view, float32 or float64, each a copy."""
        with torch.autocast(self.device.type, enabled=False), torch.set_grad_enabled(self._grad):
            return [(noisy.clone(), clean.clone()) for noisy, clean in self._branches(component)]

    def _branches(self, component: Component) -> list[tuple[Tensor, Tensor]]:
        if isinstance(component.similarity, Oracle):
            return [sight[:2] for sight in self._sights_of(component.similarity, component)]
        return [(self._view(0, noisy), self._view(1, clean)) for noisy, clean in component.branches]

    def _sights_of(self, oracle: Oracle, component: Component) -> list[Sight]:
        """What an oracle finds in each branch; components with one finder share it."""
        found = []
        for noisy, clean in component.branches:
            key = (oracle.finder, noisy, clean)
            if key not in self._sights:
                self._sights[key] = oracle.find(self._view(0, noisy), self._view(1, clean))
            found.append(oracle.look(self._sights[key]))
        return found

    def score(self, component: Component) -> Tensor:
        """The score of every image, ``(B,)`` in float32 or float64; NaN where a pixel is not finite.

        Raises:
            ValueError: if the images are too small for the component, or its similarity returns another shape.
        """
        return self.scores([component])[0]

    def scores(self, components: Iterable[Component]) -> list[Tensor]:
        """Like :meth:`score` for several components, evaluated together."""
        kept = self.kept_scores(components)
        with torch.set_grad_enabled(self._grad):  # in one memory of their own
            together = torch.stack(kept) if kept else self.finite
            return [together[k] for k in range(len(kept))]

    def kept_scores(self, components: Iterable[Component]) -> list[Tensor]:
        """The :meth:`scores` themselves, which others are given copies of: not to be written to."""
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
        return self.device.type == "cpu" and not self._wants_gradient

    @property
    def _wants_gradient(self) -> bool:
        """Whether a gradient is wanted now: the images may have come to want one."""
        return self._grad and any(map(wants_gradient, self._given))

    def _check_unchanged(self) -> None:
        """Raise if an image was written to since its bounds were read."""
        now = _versions(self._given)
        if None not in (now, self._versions) and now != self._versions:
            raise RuntimeError(
                "the images were changed in place after the Pair was made, so its scores would be of no one picture: make"
                " the Pair afterwards, or change a copy, image.clone()."
            )

    def _is_one_picture(self, images: Tensor) -> bool:
        if torch.compiler.is_compiling() or transforming() or self._wants_gradient:
            return False
        return len(images) > 1 and images.stride(0) == 0

    def _evaluate(self, known: Sequence[Component]) -> Tensor:
        self._check_unchanged()
        return evaluate(*self._given, self.finite, program_of(known, *self._given[0].shape[1:]))

    def _score_by_views(self, components: Sequence[Component]) -> dict[Component, Tensor]:
        """The scores of components with an attacker or a similarity that the engine does not know.

        Views that one of this library's similarities compares are laid behind each other and compared in one go.
        """
        batches: dict[Any, list[tuple[Component, Tensor, Tensor]]] = {}
        for component in components:
            for number, (noisy, clean) in enumerate(self._branches(component)):
                similarity = compared(component.similarity)
                key = (similarity, noisy.shape, clean.shape) if is_known_similarity(similarity) else (component, number)
                batches.setdefault(key, []).append((component, noisy, clean))
        values: dict[Component, list[Tensor]] = {component: [] for component in components}
        for batch in batches.values():
            members, *sides = zip(*batch, strict=True)
            similarity = compared(members[0].similarity)
            ours = isinstance(similarity, (MSSSIM, SquaredPearson, AffineFit))  # others may write into what they are given
            noisy, clean = (torch.cat(side) if len(side) > 1 else side[0] if ours else side[0].clone() for side in sides)
            together = similarity(noisy, clean)
            wanted = (len(members) * len(self),)
            if not isinstance(together, Tensor) or together.shape != wanted:
                got = tuple(together.shape) if isinstance(together, Tensor) else f"a {type(together).__name__}"
                raise ValueError(
                    f"component {members[0].name!r}: its similarity must return one number per image, shape"
                    f" {wanted}, got {got}."
                )
            for component, value in zip(members, together.view(len(members), -1), strict=True):
                values[component].append(value)
        for component, found in values.items():
            if isinstance(component.similarity, Oracle):
                seen = [sight.seen for sight in self._sights_of(component.similarity, component)]
                slope = without_slope(self._view(0, ()), self._view(1, ()))
                values[component] = [torch.where(s, value, 0.0) + slope for s, value in zip(seen, found, strict=True)]
        means = {component: torch.stack(found).mean(dim=0) for component, found in values.items()}
        return {component: torch.where(self.finite, mean, torch.nan) for component, mean in means.items()}

    def _view(self, side: int, view: View) -> Tensor:
        if (side, view) not in self._views:
            if view:
                before = self._view(side, view[:-1])
                if self._of_one[side]:
                    self._views[side, view] = _expanded(_seen_by(view[-1], before[:1]), len(self))
                else:
                    self._views[side, view] = _seen_by(view[-1], before)
            else:
                self._check_unchanged()
                self._views[side, view] = self._image(side)
        return self._views[side, view]

    def _image(self, side: int) -> Tensor:
        """The images as they are computed with: 0 where a pixel is not finite."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        if self._of_one[side]:
            image = self._given[side][:1]
            return _expanded(torch.where(image.isfinite().all(), as_computed(image, dtype), 0.0), len(self))
        return torch.where(self.finite.view(-1, 1, 1, 1), as_computed(self._given[side], dtype), 0.0)


def _seen_by(attacker: Attacker, images: Tensor) -> Tensor:
    """What an attacker makes of a view that others share: it gets a copy that it may write to, as may be what it returns."""
    if is_built_in(attacker, one_way=True):
        return attacker(images)
    view = attacker(images.clone())
    if not isinstance(view, Tensor) or view.is_complex() or view.ndim == 0 or len(view) != len(images):
        got = f"{view.dtype} of shape {tuple(view.shape)}" if isinstance(view, Tensor) else f"a {type(view).__name__}"
        raise TypeError(
            f"the attacker {attacker!r} must return a real tensor with one view per image, ({len(images)}, C, H, W), got"
            f" {got}."
        )
    return view.to(images.dtype, copy=True)


def _expanded(view: Tensor, count: int) -> Tensor:
    return view.expand(count, *view.shape[1:])


def _versions(images: tuple[Tensor, Tensor]) -> tuple[int, ...] | None:
    """How often each tensor was written to; None where torch does not count."""
    if torch.compiler.is_compiling() or transforming() or any(image.is_inference() for image in images):
        return None
    return tuple(image._version for image in images)


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
    if images.dtype == torch.float16 and wants_gradient(images):
        images = _FromHalf.apply(images, dtype)
    return cut(images.to(dtype), -LARGEST, LARGEST)


class _FromHalf(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, dtype: torch.dtype) -> Tensor:
        return images.to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.dtype], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        limit = torch.finfo(torch.float16).max
        return gradient.clamp(-limit, limit).to(torch.float16), None
