"""The engine in torch: any device, any dtype, nothing else to install.

On a CPU images are taken a few at a time: what is made of them stays in cache, and memory does not grow with the batch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from attacker_metrics.attackers.standard import pull_back
from attacker_metrics.engine.eager.ms_ssim import ms_ssim
from attacker_metrics.engine.eager.pearson import correlate
from attacker_metrics.engine.program import LARGEST, FitTo, MSSSIMMeasurement, Program

_SHARE = 50_000  # pixels that give a CPU thread enough to do in one operation and leave what it makes in the cache
_PLANES = 16  # that are compared at once at least: filters are several times slower on a single plane
_ON_DEVICE = 2**28  # values of one map, over all planes, that are worked on at once elsewhere


def forward(noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, scores: Tensor, slopes: list[Tensor]) -> None:
    """Fill the scores and, where not empty, the slopes; see :mod:`attacker_metrics.engine.backends`."""
    wanted = (slopes[0].numel() > 0, slopes[1].numel() > 0)
    for part in _parts(noisy, program):
        views = _views(_images(noisy, clean, finite, part, scores.dtype), program)
        scores[part] = 0.0
        for p in program.pearson:
            scores[part, p.component] += correlate(views[p.noisy], views[p.clean], p.eps).squared / p.of
        groups = _groups(program)
        channels = [[views[m.noisy].shape[1] for m in group] for group in groups]
        planes = [[_gather([views[v] for v in side]) for side in _sides(group)] for group in groups]
        del views
        first = 0
        for group, counts, sides in zip(groups, channels, planes, strict=True):
            values, sloped = ms_ssim(sides, counts, group[0].betas, group[0].normalize, wanted)
            for k, m in enumerate(group):
                scores[part, m.component] += values[:, k] / m.of
            for kept, slope in zip(slopes, sloped, strict=True):
                if slope is not None:
                    kept[part, first : first + sum(counts)] = slope[0].view(-1, sum(counts), *slope.shape[2:])
            first += sum(counts)
    scores.masked_fill_(~finite[:, None], math.nan)


def backward(
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes: list[Tensor],
    program: Program,
    totals: list[Tensor],
) -> None:
    """Fill the gradients that are not empty; see :mod:`attacker_metrics.engine.backends`."""
    wanted = (totals[0].numel() > 0, totals[1].numel() > 0)
    for part in _parts(noisy, program):
        images = _images(noisy, clean, finite, part, gradient.dtype)
        views = _views(images, program)
        reached: list[Tensor | None] = [None] * len(views)  # the gradient in every view
        first = 0
        for m in program.ms_ssim:
            planes = slice(first, first + views[m.noisy].shape[1])
            weight = _per_image(gradient[part, m.component]) / m.of
            for side, view in enumerate((m.noisy, m.clean)):
                if wanted[side]:
                    kept, before = slopes[side][part, planes], reached[view]
                    reached[view] = kept * weight if before is None else before.addcmul_(kept, weight)
            first = planes.stop
        for p in program.pearson:
            weight = _per_image(gradient[part, p.component]) / p.of
            slopes_of_r = correlate(views[p.noisy], views[p.clean], p.eps).slopes(weight, wanted)
            for view, slope in zip((p.noisy, p.clean), slopes_of_r, strict=True):
                if slope is not None:
                    _add(reached, view, slope)
        for i, (attacker, parent) in reversed(list(enumerate(program.made, start=2))):
            at_view, reached[i] = reached[i], None
            if at_view is not None:
                assert not isinstance(attacker, FitTo)
                _add(reached, parent, pull_back(attacker, views[parent], views[i], at_view))
        for total, image, at_image in zip(totals, images, reached[:2], strict=True):
            if at_image is not None:
                stopped = ~_per_image(finite[part]) | (image.abs() >= LARGEST)
                total[part] = at_image.masked_fill_(stopped, 0.0)


def _parts(noisy: Tensor, program: Program) -> Iterator[slice]:
    """The images that are worked on at once: a few on a CPU; on other devices as many as leave memory bounded."""
    batch, channels, height, width = noisy.shape
    if noisy.device.type == "cpu":
        keep_freed_memory()
    planes = max(1, sum(program.channels(channels)[m.noisy] for m in program.ms_ssim))
    if noisy.device.type == "cpu":
        images = max(math.ceil(_SHARE * torch.get_num_threads() / (height * width)), _PLANES // planes)
    else:
        images = max(1, _ON_DEVICE // (planes * height * width))
    for start in range(0, batch, images):
        yield slice(start, min(start + images, batch))


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library see one block of 32 MiB come and go, untouched.

    glibc hands freed memory back to the system beyond twice the largest such block it has seen, 64 MiB at most. By default
    it would fault in what every operation returns anew: a fifth of the time.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)


def _images(noisy: Tensor, clean: Tensor, finite: Tensor, part: slice, dtype: torch.dtype) -> list[Tensor]:
    """Some pairs as they are computed with, one tensor per side."""
    return [as_computed(side[part], finite[part], dtype) for side in (noisy, clean)]


def as_computed(images: Tensor, finite: Tensor, dtype: torch.dtype) -> Tensor:
    """One side of some pairs as it is computed with: cast, cut, black where not finite, and in one layout.

    Over other layouts torch's sums round worse: by 2e-5 for pictures that were transposed from (H, W, C, B).
    """
    return images.to(dtype).contiguous().clamp(-LARGEST, LARGEST).masked_fill_(~_per_image(finite), 0.0)


def _views(images: list[Tensor], program: Program) -> list[Tensor]:
    """Every view of the images, by number."""
    views = list(images)
    for attacker, parent in program.made:
        x = views[parent]
        views.append(attacker(x, views[attacker.clean]) if isinstance(attacker, FitTo) else attacker(x))
    return views


def _groups(program: Program) -> list[list[MSSSIMMeasurement]]:
    """The runs of MS-SSIM comparisons with equal settings, which are evaluated together."""
    return [list(run) for _, run in itertools.groupby(program.ms_ssim, key=lambda m: (m.betas, m.normalize))]


def _sides(group: Sequence[MSSSIMMeasurement]) -> tuple[list[int], list[int]]:
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


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _add(sums: list[Tensor | None], at: int, value: Tensor) -> None:
    """Add to one of the sums, the first summand of which becomes the sum itself."""
    total = sums[at]
    sums[at] = value if total is None else total.add_(value)
