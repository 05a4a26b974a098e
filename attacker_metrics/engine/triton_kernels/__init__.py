r"""The engine for CUDA devices in Triton: the scores, slopes and gradients of ``backends/eager.py`` in twenty launches.

The formulas are those of ``ms_ssim.py``, ``pearson.py`` and ``attackers.py``; here is how they are spread over kernels.
Every number is written by one program, block sums are finished in a fixed order, and no size depends on a value: results
are reproducible, do not depend on the rest of the batch, and the launches can be captured in a CUDA graph.

*Views.* Each compared view is luma or all channels, perhaps cut to [0, 1], then at most one attacker (:func:`supports`).
``_before`` is the value in front of the pointwise part of that attacker (a pixel, an edge strength, a blurred or denoised
pixel), ``_tone`` the pointwise part; their transposes are ``_pull_back_tone`` and what ``_of_channel`` gathers.

*MS-SSIM* works on the sum u = x + y and the difference v = x - y of a pair of planes. With the window W, the variances
:math:`V_u = W(u^2) - \mu_u^2`, :math:`V_v` likewise and :math:`S = V_u + V_v + 2 C_2`, the contrast is
:math:`c = (V_u - V_v + 2 C_2) / S`, and with :math:`A = l (1 - c) / S`, :math:`B = -l (1 + c) / S` (l = 1 but at the
coarsest scale) the slope of its mean over n windows is

.. math::
    \frac{\partial t}{\partial x} = \frac{2}{n} \Big( u \cdot W^T A + v \cdot W^T B
    - W^T \Big[ A \mu_u + B \mu_v - \frac{c\,(\mu_y - l \mu_x)}{m} \Big] \Big)

and in y the same with v and B negated and x, y exchanged. One kernel per scale makes the term, its slopes and the next
scale's planes: a strip of columns walks down the rows; shifted loads give the window's row sums, ten running sums per map
its columns (forward and transposed), and the transposed row sums go through a small ring in memory that stays in cache.
Planes are centred by what the attacker makes of the mean of its input. That is the plane's mean, but for gamma, where it
is within about a standard deviation of it: second moments then cancel no more than they do anyway.

*Bytes per image pixel*, three float32 channels, the standard table (14 plane pairs), five scales, gradient in noisy:

====================  =============================================================================  =====
kernel                read + written                                                                 bytes
====================  =============================================================================  =====
_statistics_kernel    images 24 + 2 lumas, 2 edge strengths 16                                          40
_blur_rows_kernel     lumas 8 + 8                                                                       16
_views_kernel         images 24, lumas 8, strengths 8, blurred rows 8 + sums and differences 112       160
_scale_kernel x 5     planes 112 * 4/3 + slopes 56 * 4/3, coarser planes 112 / 3                       261
_combine_kernel       slopes 56 * 4/3 + slopes 56                                                      131
_statistics_kernel    as above                                                                          40
_blur_rows_kernel     as above                                                                          16
_reductions_kernel    images 24, lumas 8, strengths 8, blurred rows 8, slopes 24                        72
_slopes_kernel        lumas 8, strengths 8, blurred rows 8, slopes 8 + 12                               44
_blur_back_kernel     4 + 4                                                                              8
_gradient_kernel      images 24, lumas 8, slopes 48, 3 planes 12 + gradient 12                         104
together                                                                                               892
====================  =============================================================================  =====

The others (block sums merged, the coarsest border folded) move a few bytes per block. These are 20 launches, 23 with both
gradients. Around them a step of the loss takes 20 small ones of torch: the check for pixels that are not finite, which
reads the images once more (24 bytes), and the batch's means (:mod:`attacker_metrics.scoring.batch_means`).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False, disable-error-code="assignment,var-annotated,import-untyped"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from attacker_metrics.engine.program import Program
from attacker_metrics.engine.triton_kernels.backward_kernels import (
    _blur_back_kernel,
    _coefficients_kernel,
    _gradient_kernel,
    _reductions_kernel,
    _slopes_kernel,
)
from attacker_metrics.engine.triton_kernels.forward_kernels import (
    _blur_rows_kernel,
    _combine_kernel,
    _fold_kernel,
    _merge_kernel,
    _scale_kernel,
    _scores_kernel,
    _statistics_kernel,
    _views_kernel,
)
from attacker_metrics.engine.triton_kernels.plan import _PAD, _RADIUS, _TAPS, Plan, _plan

_BLOCK = 512  # pixels of a program of the pixel-wise kernels
_SLACK = 1024  # values behind a plane that may be read, never used
_STEP, _STEPS = 256, 8  # pixels that kernels which sum over pixels work on at once, and how often
_WIDTHS = (32, 64, 128, 256)  # columns that a program of the scale kernel may have
_CHUNK = 128  # rows of a program of the scale kernel, at most; even
_VALUES = 2**28  # values of one map, over all planes, that are worked on at once
_PACK = 1  # plane pairs of a program of the scale kernel, beyond what fills a warp


launches = 0
"""Kernels launched so far in this process."""


def supports(program: Program, channels: int) -> bool:
    """Whether these kernels can evaluate a program.

    Every view must be: luma or nothing, then clamp or nothing, then one of minmax, sobel, sobel and minmax, standardize,
    blur, gamma, wavelet or nothing. MS-SSIM must have the same settings throughout, and squared Pearson must not compare
    views of minmax or standardize, since their pull-back would wait for its moments.

    Args:
        program: what to evaluate.
        channels: of the images.
    """
    return _plan(program, channels) is not None


def forward(noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, scores: Tensor, slopes: list[Tensor]) -> None:
    """Fill the scores and, where not empty, the slopes in the noisy and in the clean planes.

    Args:
        noisy: images ``(B, C, H, W)`` in float32, bfloat16 or float16.
        clean: the same shape and device.
        finite: ``(B,)`` bool: which pairs to read; the others are taken to be black, and score NaN.
        program: what to evaluate, one that is supported.
        scores: ``(B, components)`` float32, to be filled.
        slopes: two tensors ``(B, planes, H, W)`` float32 to be filled, or empty.
    """
    plan = _plan(program, noisy.shape[1])
    assert plan is not None
    sides = [side for side in (0, 1) if slopes[side].numel()]
    noisy, clean, finite = noisy.contiguous(), clean.contiguous(), finite.contiguous()
    with torch.cuda.device_of(noisy):
        for part in _parts(noisy, plan):
            of_part = [slopes[side][part] for side in sides]
            _forward_part(noisy[part], clean[part], finite[part], plan, scores[part], of_part, sides)


def backward(
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes: list[Tensor],
    program: Program,
    totals: list[Tensor],
) -> None:
    """Fill the gradients, where not empty, of the noisy and of the clean images.

    Args:
        gradient: of the scores, ``(B, components)`` float32.
        noisy: as for :func:`forward`.
        clean: as for :func:`forward`.
        finite: as for :func:`forward`; the gradient of the other pairs is 0.
        slopes: what :func:`forward` made of them.
        program: as for :func:`forward`.
        totals: two tensors ``(B, C, H, W)`` float32 to be filled, or empty.
    """
    plan = _plan(program, noisy.shape[1])
    assert plan is not None
    wanted = (totals[0].numel() > 0, totals[1].numel() > 0)
    noisy, clean, finite = noisy.contiguous(), clean.contiguous(), finite.contiguous()
    kept = [slope.contiguous() for slope in slopes]
    with torch.cuda.device_of(noisy):
        for part in _parts(noisy, plan):
            of_part = [kept[side][part] if wanted[side] else kept[side] for side in (0, 1)]
            made = [totals[side][part] if wanted[side] else totals[side] for side in (0, 1)]
            _backward_part(gradient[part], noisy[part], clean[part], finite[part], of_part, plan, made, wanted)


def _forward_part(
    noisy: Tensor, clean: Tensor, finite: Tensor, plan: Plan, scores: Tensor, slopes: list[Tensor], sides: list[int]
) -> None:
    batch, _, height, width = noisy.shape
    tile, tiles = _STEP * _STEPS, triton.cdiv(height * width, _STEP * _STEPS)
    scales, planes = len(plan.betas), plan.planes
    images = _statistics(noisy, clean, finite, plan)
    offsets, weights = _empty(noisy, batch * planes, 2), _empty(noisy, batch * planes, scales)
    moments = _empty(noisy, batch, tiles, plan.moments, 5)
    sizes = [(height >> scale, width >> scale) for scale in range(scales)]
    pyramid = [_empty(noisy, batch * planes * 2 * h * _pitch(w) + _SLACK) for h, w in sizes] or [offsets]
    _launch(
        _views_kernel, batch * tiles, images, offsets, moments, pyramid[0], height, width, _pitch(width), tiles,
        plan, _STEP, _STEPS, warps=8, registers=128,
    )  # fmt: skip
    layouts, terms, maps = [], [], []
    for scale, (h, w) in enumerate(sizes):
        last = scale == scales - 1
        rows, columns = (h + 2 * _RADIUS, w + 2 * _RADIUS) if last else (h, w)
        block, strips, chunk, chunks = _strips(rows, columns)
        parts, pack = strips * chunks, _PACK * max(1, 64 // block)
        programs = triton.cdiv(batch * planes, pack) * parts
        made = slopes if scale == 0 and not last else [_empty(noisy, batch * planes, rows, _pitch(columns)) for _ in sides]
        pitch = made[0].stride(-2) if made else columns
        term = _empty(noisy, batch * planes, parts)
        ring = _empty(noisy, programs * pack, 2, 4, block + _PAD.value) if sides else term
        layouts.append((rows, columns, pitch, parts, (rows - 2 * _RADIUS) * (columns - 2 * _RADIUS)))
        terms.append(term)
        maps.append((made[0] if 0 in sides else term, made[-1] if 1 in sides else term))
        _launch(
            _scale_kernel, programs, pyramid[scale], pyramid[min(scale + 1, scales - 1)], offsets, ring, term, *maps[-1],
            h, w, _pitch(w), pitch, _pitch(w // 2), batch * planes, chunk, strips, chunks,
            _TAPS, pack, block, last, 0 in sides, 1 in sides, warps=max(1, block // 64),
        )  # fmt: skip
    most = max((triton.next_power_of_2(layout[3]) for layout in layouts), default=1)
    _launch(
        _scores_kernel, batch * plan.components, finite, tuple(terms) or (offsets,), moments, weights, scores,
        height * width, tiles, tuple(layout[3] for layout in layouts), tuple(1.0 / layout[4] for layout in layouts), most,
        plan, tile, warps=1,
    )  # fmt: skip
    for place, side in enumerate(sides if planes else []):
        rows, columns, pitch = layouts[-1][:3]
        h, w = sizes[-1]
        folded = _empty(noisy, batch * planes, h, w)
        blocks = triton.cdiv(h * w, _BLOCK)
        _launch(_fold_kernel, batch * planes * blocks, maps[-1][side], folded, rows, columns, pitch, blocks, _BLOCK, warps=4)
        scaled = (*(of_scale[side] for of_scale in maps[:-1]), folded)
        flat = (*(layout[:3] for layout in layouts[:-1]), (h, w, w))
        blocks = triton.cdiv(height * width, 2 * _BLOCK)
        _launch(
            _combine_kernel, batch * planes * blocks, slopes[place], scaled, weights, blocks,
            flat, height, width, 2 * _BLOCK, warps=4,
        )  # fmt: skip


def _backward_part(
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes: list[Tensor],
    plan: Plan,
    totals: list[Tensor],
    wanted: tuple[bool, bool],
) -> None:
    batch, _, height, width = noisy.shape
    size, tile = height * width, _STEP * _STEPS
    tiles, blocks = triton.cdiv(size, tile), triton.cdiv(size, _BLOCK)
    images = _statistics(noisy, clean, finite, plan)
    flows = (gradient, gradient.stride(0), gradient.stride(1), *slopes, _empty(noisy, batch, plan.coefficients))
    moments, sums = _empty(noisy, batch, tiles, plan.moments, 5), _empty(noisy, batch, tiles, plan.reduced, 4)
    _launch(
        _reductions_kernel, batch * tiles, images, flows, moments, sums, height, width, tiles,
        wanted, plan, _STEP, _STEPS, warps=8, registers=128,
    )  # fmt: skip
    finished = len(plan.pearson) + len(plan.views)
    _launch(
        _coefficients_kernel, batch * finished, images, flows, moments, sums, height, width, tiles,
        wanted, plan, tile, warps=1,
    )  # fmt: skip
    if plan.edges or plan.blurs:
        _launch(_slopes_kernel, batch * blocks, images, flows, height, width, blocks, wanted, plan, _BLOCK, warps=4)
    if plan.blurs:
        _launch(_blur_back_kernel, batch * blocks, images[3], height, width, blocks, wanted, plan, _BLOCK, warps=4)
    for side in (0, 1):
        if wanted[side]:
            _launch(
                _gradient_kernel, batch * blocks, images, flows, totals[side], height, width, blocks,
                side, plan, _BLOCK, warps=8,
            )  # fmt: skip


def _statistics(noisy: Tensor, clean: Tensor, finite: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Everything that kernels are told about the images: they themselves, which to read, extra planes, statistics."""
    batch, _, height, width = noisy.shape
    size, tile, count = height * width, _STEP * _STEPS, len(plan.sources)
    tiles, blocks = triton.cdiv(size, tile), triton.cdiv(size, _BLOCK)
    partials, statistics = _empty(noisy, batch, tiles, count, 4), _empty(noisy, batch, count, 4)
    images = (noisy, clean, finite, _empty(noisy, batch, plan.extras, height, width), statistics)
    _launch(_statistics_kernel, batch * tiles, images, partials, height, width, tiles, plan, _STEP, _STEPS, warps=8)
    _launch(_merge_kernel, batch * count, partials, statistics, size, tiles, count, tile, warps=4)
    if plan.blurs:
        _launch(_blur_rows_kernel, batch * blocks, images, height, width, blocks, plan, _BLOCK, warps=4)
    return images


def _launch(kernel: Any, programs: int, *arguments: Any, warps: int, registers: int | None = None) -> None:
    global launches
    launches += 1
    kernel[(programs,)](*arguments, num_warps=warps, num_stages=1, maxnreg=registers, enable_fp_fusion=True)


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _parts(noisy: Tensor, plan: Plan) -> Iterator[slice]:
    """The images that are worked on at once: as many as leave memory bounded."""
    batch, channels, height, width = noisy.shape
    images = max(1, _VALUES // (max(plan.planes, channels) * height * width))
    for start in range(0, batch, images):
        yield slice(start, min(start + images, batch))


def _pitch(width: int) -> int:
    """Values from row to row: a multiple of 16, so that pairs of columns are loaded at once."""
    return -(-width // 16) * 16


def _strips(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Columns of a program and number of strips, rows of a program and number of chunks; strips overlap by the halo."""

    def strips(block: int) -> int:
        return 1 + max(0, -(-(columns - block) // (block - 2 * _RADIUS)))

    block = min(_WIDTHS, key=lambda block: strips(block) * block)
    chunks = triton.cdiv(rows, _CHUNK)
    chunk = 2 * triton.cdiv(rows, 2 * chunks)
    return block, strips(block), chunk, triton.cdiv(rows, chunk)
