"""The engine: one pass over a pair of batches for all scores, one for their gradients, as registered operators.

The forward makes every view of a :class:`~attacker_metrics.program.Program` once and compares them. For the backward it
keeps one slope per plane that MS-SSIM compares (see :mod:`attacker_metrics.ms_ssim`) and nothing else: the views are made
again, the slopes weighted by the gradients of the scores, joined with those of the squared Pearsons and pulled back through
the attackers (see :mod:`attacker_metrics.attackers`). Any weighting of the scores, per image, is thus one backward.

On a CPU images are taken a few at a time: what is made of them stays in cache, and memory does not grow with the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attacker_metrics import native
from attacker_metrics.attackers import pull_back
from attacker_metrics.backends import backend
from attacker_metrics.ms_ssim import ms_ssim
from attacker_metrics.pearson import correlate
from attacker_metrics.program import MSSSIMComparison, Program, from_numbers

LARGEST = 1e15
"""Pixels beyond are cut: the square of what is left fits into float32 many times over."""
_LANES = 16  # planes that one vector instruction takes
_CACHED, _ON_DEVICE = 2**19, 2**28  # values of one map, over all planes, that are worked on at once


def evaluate(noisy: Tensor, clean: Tensor, finite: Tensor, program: Program) -> Tensor:
    """Score every image pair, differentiably (once) with respect to both batches.

    Args:
        noisy: images ``(B, C, H, W)`` in any floating dtype, large enough for the program's attackers and scales.
        clean: the same shape and device, in any floating dtype.
        finite: ``(B,)`` bool: neither image of the pair holds a NaN or an infinity.
        program: what to evaluate.

    Returns:
        ``(B, components)`` in float32, or float64 if an input is; NaN with zero gradient where not finite.
    """
    wanted = [torch.is_grad_enabled() and image.requires_grad for image in (noisy, clean)]
    scores: Tensor = _scores(noisy, clean, finite, *program.to_numbers(), *wanted)[0]
    return torch.where(finite[:, None], scores, torch.nan)


@torch.library.custom_op(
    "attacker_metrics::scores",
    mutates_args=(),
    schema="(Tensor noisy, Tensor clean, Tensor finite, int[] program, float[] numbers, bool slope_noisy, bool slope_clean)"
    " -> (Tensor, Tensor, Tensor)",
)
def _scores(
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    program: list[int],
    numbers: list[float],
    slope_noisy: bool,
    slope_clean: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores, and where wanted the slope of every MS-SSIM comparison in its noisy and its clean planes."""
    scores, *slopes = _outputs(noisy, clean, finite, program, numbers, slope_noisy, slope_clean)
    if backend(noisy.device, scores.dtype) == "native":
        native.forward(noisy, clean, finite, program, numbers, [scores, *slopes])
        return scores, slopes[0], slopes[1]
    read = from_numbers(program, numbers)
    for part in _parts(noisy, read):
        views = _views(_images(noisy, clean, finite, part, scores.dtype), read)
        scores[part] = 0.0
        for p in read.pearson:
            scores[part, p.component] += correlate(views[p.noisy], views[p.clean], p.eps).squared / p.of
        groups = _groups(read)
        channels = [[views[m.noisy].shape[1] for m in group] for group in groups]
        planes = [[_gather([views[v] for v in side]) for side in _sides(group)] for group in groups]
        del views
        first = 0
        for group, counts, sides in zip(groups, channels, planes, strict=True):
            values, sloped = ms_ssim(sides, counts, group[0].betas, group[0].normalize, (slope_noisy, slope_clean))
            for k, m in enumerate(group):
                scores[part, m.component] += values[:, k] / m.of
            for kept, slope in zip(slopes, sloped, strict=True):
                if slope is not None:
                    kept[part, first : first + sum(counts)] = slope[0].view(-1, sum(counts), *slope.shape[2:])
            first += sum(counts)
    return scores, slopes[0], slopes[1]


@_scores.register_fake
def _outputs(
    noisy: Tensor,
    clean: Tensor,
    _finite: Tensor,
    program: list[int],
    numbers: list[float],
    slope_noisy: bool,
    slope_clean: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    read = from_numbers(program, numbers)
    batch, channels, height, width = noisy.shape
    counts = read.channels(channels)
    planes = sum(counts[m.noisy] for m in read.ms_ssim)
    dtype = torch.float64 if torch.float64 in (noisy.dtype, clean.dtype) else torch.float32

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=noisy.device)

    slopes = [empty(batch, planes, height, width) if wanted else empty(0) for wanted in (slope_noisy, slope_clean)]
    return empty(batch, read.components), slopes[0], slopes[1]


@torch.library.custom_op(
    "attacker_metrics::scores_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor noisy, Tensor clean, Tensor finite, Tensor slopes_noisy, Tensor slopes_clean,"
    " int[] program, float[] numbers, bool wants_noisy, bool wants_clean) -> (Tensor, Tensor)",
)
def _scores_backward(
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes_noisy: Tensor,
    slopes_clean: Tensor,
    program: list[int],
    numbers: list[float],
    wants_noisy: bool,
    wants_clean: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of both batches, given those of the scores; an empty tensor where none is wanted."""
    wanted = (wants_noisy, wants_clean)
    sizes = [noisy.shape if keep else (0,) for keep in wanted]
    totals = [torch.empty(size, dtype=gradient.dtype, device=noisy.device) for size in sizes]
    if backend(noisy.device, gradient.dtype) == "native":
        native.backward(gradient, noisy, clean, finite, (slopes_noisy, slopes_clean), program, numbers, totals)
    else:
        _fill_gradients(totals, gradient, noisy, clean, finite, (slopes_noisy, slopes_clean), from_numbers(program, numbers))
    cast = [_cast(total, side.dtype) for total, side in zip(totals, (noisy, clean), strict=True)]
    return cast[0], cast[1]


def _fill_gradients(
    totals: list[Tensor],
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes: tuple[Tensor, Tensor],
    read: Program,
) -> None:
    wanted = (totals[0].numel() > 0, totals[1].numel() > 0)
    for part in _parts(noisy, read):
        images = _images(noisy, clean, finite, part, gradient.dtype)
        views = _views(images, read)
        reached: list[Tensor | None] = [None] * len(views)  # the gradient in every view
        first = 0
        for m in read.ms_ssim:
            planes = slice(first, first + views[m.noisy].shape[1])
            weight = _per_image(gradient[part, m.component]) / m.of
            for side, view in enumerate((m.noisy, m.clean)):
                if wanted[side]:
                    _add(reached, view, slopes[side][part, planes] * weight)
            first = planes.stop
        for p in read.pearson:
            weight = _per_image(gradient[part, p.component]) / p.of
            slopes_of_r = correlate(views[p.noisy], views[p.clean], p.eps).slopes(weight, wanted)
            for view, slope in zip((p.noisy, p.clean), slopes_of_r, strict=True):
                if slope is not None:
                    _add(reached, view, slope)
        for i, (attacker, parent) in reversed(list(enumerate(read.made, start=2))):
            at_view, reached[i] = reached[i], None
            if at_view is not None:
                _add(reached, parent, pull_back(attacker, views[parent], views[i], at_view))
        for total, image, at_image in zip(totals, images, reached[:2], strict=True):
            if at_image is not None:
                passing = _per_image(finite[part]) & (image.abs() < LARGEST)
                torch.where(passing, at_image, torch.zeros_like(at_image), out=total[part])


@_scores_backward.register_fake
def _gradients(
    _gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    _finite: Tensor,
    _slopes_noisy: Tensor,
    _slopes_clean: Tensor,
    _program: list[int],
    _numbers: list[float],
    wants_noisy: bool,
    wants_clean: bool,
) -> tuple[Tensor, Tensor]:
    return (
        noisy.new_empty(noisy.shape if wants_noisy else (0,)),
        clean.new_empty(clean.shape if wants_clean else (0,)),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    noisy, clean, finite, ctx.program, ctx.numbers, *ctx.wanted = inputs
    ctx.save_for_backward(noisy, clean, finite, *output[1:])
    ctx.set_materialize_grads(False)


def _pull_back_scores(ctx: Any, gradient: Tensor | None, *_of_slopes: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 5
    if gradient is None:
        return None, None, *nothing
    found = _scores_backward(gradient, *ctx.saved_tensors, ctx.program, ctx.numbers, *ctx.wanted)
    return *(total if wanted else None for total, wanted in zip(found, ctx.wanted, strict=True)), *nothing


def _refuse(*_: Any) -> None:
    raise RuntimeError("the scores can be differentiated once only: their second derivatives are not implemented.")


_scores.register_autograd(_pull_back_scores, setup_context=_keep)
_scores_backward.register_autograd(_refuse)


def _parts(noisy: Tensor, program: Program) -> Iterator[slice]:
    """The images that are worked on at once: a few on a CPU; on other devices as many as leave memory bounded."""
    batch, channels, height, width = noisy.shape
    planes = max(1, sum(program.channels(channels)[m.noisy] for m in program.ms_ssim))
    if noisy.device.type == "cpu":
        images = max(1, min(-(-_LANES // planes), _CACHED // (planes * height * width)))
    else:
        images = max(1, _ON_DEVICE // (planes * height * width))
    for start in range(0, batch, images):
        yield slice(start, min(start + images, batch))


def _images(noisy: Tensor, clean: Tensor, finite: Tensor, part: slice, dtype: torch.dtype) -> list[Tensor]:
    """Some pairs as they are computed with: cast, cut, and black where not finite."""
    mask = _per_image(finite[part])
    return [torch.where(mask, side[part].to(dtype).clamp(-LARGEST, LARGEST), 0.0) for side in (noisy, clean)]


def _views(images: list[Tensor], program: Program) -> list[Tensor]:
    """Every view of the images, by number."""
    views = list(images)
    for attacker, parent in program.made:
        views.append(attacker(views[parent]))
    return views


def _groups(program: Program) -> list[list[MSSSIMComparison]]:
    """The runs of MS-SSIM comparisons with equal settings, which are evaluated together."""
    return [list(run) for _, run in itertools.groupby(program.ms_ssim, key=lambda m: (m.betas, m.normalize))]


def _sides(group: Sequence[MSSSIMComparison]) -> tuple[list[int], list[int]]:
    return [m.noisy for m in group], [m.clean for m in group]


def _gather(views: Sequence[Tensor]) -> Tensor:
    """Copy images' planes side by side into one image ``(1, images * planes, H, W)``, planes innermost."""
    images, _, height, width = views[0].shape
    channels = [view.shape[1] for view in views]
    size = (1, images * sum(channels), height, width)
    planes = torch.empty(size, dtype=views[0].dtype, device=views[0].device, memory_format=torch.channels_last)
    by_view = torch.split(planes.view(images, sum(channels), height, width), channels, dim=1)
    for view, part in zip(views, by_view, strict=True):
        part.copy_(view)
    return planes


def _cast(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """In float16 saturated instead of infinite."""
    if gradient.dtype == dtype:
        return gradient
    limit = torch.finfo(dtype).max
    return gradient.clamp_(-limit, limit).to(dtype)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _add(sums: list[Tensor | None], at: int, value: Tensor) -> None:
    """Add to one of the sums, the first summand of which becomes the sum itself."""
    total = sums[at]
    sums[at] = value if total is None else total.add_(value)
