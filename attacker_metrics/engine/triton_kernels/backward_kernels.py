"""The kernels of the backward: sums over images, slopes in the views, pull-backs to the pixels."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False, disable-error-code="assignment,var-annotated,import-untyped"
# ruff: noqa: N803, RUF005, SIM102

from __future__ import annotations

import triton
import triton.language as tl

from attacker_metrics.engine.triton_kernels.device import (
    _base,
    _before,
    _derivatives,
    _haar,
    _image,
    _mirrored,
    _moments,
    _pixel,
    _quad,
    _range,
    _step,
    _steps,
    _tap,
    _tile,
    _tone,
    _value,
)
from attacker_metrics.engine.triton_kernels.forward_kernels import (
    _correlation,
    _deviations,
    _more_moments,
    _no_moments,
    _store_moments,
)
from attacker_metrics.engine.triton_kernels.plan import _LARGEST, _LUMA, _TILES, _VARIANCE_FLOOR, Flow


@triton.jit
def _flow(flows, at, size, PLAN: tl.constexpr):
    return Flow(
        flows[0] + at * flows[1], flows[2], flows[3] + at * PLAN.planes * size, flows[4] + at * PLAN.planes * size,
        flows[5] + at * PLAN.coefficients,
    )  # fmt: skip


@triton.jit
def _incoming(image, flow, row, column, PLAN: tl.constexpr, V: tl.constexpr, PLANE: tl.constexpr):
    """The gradient in a plane of a view: weighted slopes of MS-SSIM, and of squared Pearson."""
    total = tl.zeros(row.shape, tl.float32)
    index = row * image.width + column
    for m in tl.static_range(len(PLAN.ms_ssim)):
        if PLAN.ms_ssim[m].noisy == V:
            weight = tl.load(flow.gradient + PLAN.ms_ssim[m].component * flow.stride) / PLAN.ms_ssim[m].of
            total += weight * tl.load(flow.noisy + (PLAN.ms_ssim[m].first + PLANE) * image.size + index)
        if PLAN.ms_ssim[m].clean == V:
            weight = tl.load(flow.gradient + PLAN.ms_ssim[m].component * flow.stride) / PLAN.ms_ssim[m].of
            total += weight * tl.load(flow.clean + (PLAN.ms_ssim[m].first + PLANE) * image.size + index)
    for p in tl.static_range(len(PLAN.pearson)):
        if PLAN.pearson[p].noisy == V or PLAN.pearson[p].clean == V:
            c = flow.coefficients + 5 * p
            x = _value(image, row, column, PLAN, PLAN.pearson[p].noisy, PLANE) - tl.load(c)
            y = _value(image, row, column, PLAN, PLAN.pearson[p].clean, PLANE) - tl.load(c + 1)
            if PLAN.pearson[p].noisy == V:
                total += tl.load(c + 2) * y - tl.load(c + 3) * x
            else:
                total += tl.load(c + 2) * x - tl.load(c + 4) * y
    return total


@triton.jit
def _pull_back_tone(image, flow, x, gradient, PLAN: tl.constexpr, V: tl.constexpr):
    """The transpose of the derivative of ``_tone`` at x; its sums over the image were taken before."""
    c = flow.coefficients + 5 * len(PLAN.pearson) + 3 * PLAN.views[V].reduced
    if PLAN.views[V].attacker == "minmax" or PLAN.views[V].attacker == "edges":
        low, high = _range(image, PLAN, V)
        gradient += tl.where(x == low, tl.load(c), 0.0) + tl.where(x == high, tl.load(c + 1), 0.0)
        gradient *= tl.load(c + 2)
    elif PLAN.views[V].attacker == "standardize":
        mean, variance = _moments(image, PLAN, V)
        deviation = tl.sqrt(tl.maximum(variance, 1e-12))
        value = _tone(image, x, PLAN, V)
        gradient *= value * (1.0 - value)
        gradient = (gradient - tl.load(c) - (x - mean) / deviation * tl.load(c + 1)) / deviation
    elif PLAN.views[V].attacker == "gamma":
        inside = tl.minimum(tl.maximum(x, 1e-6), 1.0)
        gradient *= _tone(image, x, PLAN, V) / inside * PLAN.views[V].setting
        gradient = tl.where(x == inside, gradient, 0.0)
    return gradient


@triton.jit
def _reductions_kernel(
    images, flows, moments, sums, height, width, tiles,
    WANTED: tl.constexpr, PLAN: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """A tile's part of every sum over an image that the gradients need."""
    at, tile, steps, count = _steps(height, width, tiles, BLOCK, STEPS)
    image = _image(images, at, height, width, PLAN)
    flow = _flow(flows, at, image.size, PLAN)
    nothing = tl.zeros((BLOCK,), tl.float32)
    of_pairs, of_views = _no_moments(PLAN.moments, BLOCK), ()
    for _ in tl.static_range(tl.constexpr(PLAN.reduced)):
        of_views = of_views + ((nothing, nothing, nothing, nothing),)
    for step in range(steps):
        _index, row, column, inside = _step(height, width, (tile * STEPS + step) * BLOCK, BLOCK)
        more = ()
        for p in tl.static_range(len(PLAN.pairs)):
            for k in tl.static_range(tl.constexpr(PLAN.pairs[p].planes)):
                if PLAN.pairs[p].moments >= 0:
                    x = _value(image, row, column, PLAN, PLAN.pairs[p].noisy, k)
                    y = _value(image, row, column, PLAN, PLAN.pairs[p].clean, k)
                    more = more + (_more_moments(of_pairs[PLAN.pairs[p].moments + k], x, y, inside, step),)
        of_pairs = more
        more = ()
        for v in tl.static_range(len(PLAN.views)):
            if PLAN.views[v].reduced >= 0:
                first, second, lows, highs = of_views[PLAN.views[v].reduced]
                if WANTED[PLAN.views[v].side]:
                    for k in tl.static_range(tl.constexpr(PLAN.views[v].planes)):
                        x = _before(image, row, column, PLAN, v, k)
                        value = _tone(image, x, PLAN, v)
                        g = _incoming(image, flow, row, column, PLAN, v, k)
                        g = tl.where(inside, g, 0.0)
                        if PLAN.views[v].attacker == "standardize":
                            mean, variance = _moments(image, PLAN, v)
                            g *= value * (1.0 - value)
                            first += g * (x - mean) / tl.sqrt(tl.maximum(variance, 1e-12))
                        else:
                            low, high = _range(image, PLAN, v)
                            lows += tl.where(inside & (x == low), 1.0, 0.0)
                            highs += tl.where(inside & (x == high), 1.0, 0.0)
                            first += g * value
                        second += g
                more = more + ((first, second, lows, highs),)
        of_views = more
    _store_moments(moments + (at * tiles + tile) * PLAN.moments * 5, of_pairs, count, PLAN, BLOCK)
    for k in tl.static_range(tl.constexpr(PLAN.reduced)):
        for i in tl.static_range(4):
            tl.store(sums + ((at * tiles + tile) * PLAN.reduced + k) * 4 + i, tl.sum(of_views[k][i], 0))


@triton.jit
def _sum_of_tiles(sums, tiles, stride):
    total = tl.zeros((_TILES,), tl.float32)
    for start in range(0, tiles, _TILES):
        tile = start + tl.arange(0, _TILES)
        total += tl.load(sums + tile * stride, mask=tile < tiles, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _coefficients_kernel(
    images, flows, moments, sums, height, width, tiles, WANTED: tl.constexpr, PLAN: tl.constexpr, BLOCK: tl.constexpr
):
    """What the slopes of squared Pearson, minmax and standardize are made of, per image.

    Per squared Pearson both means, the factor of the other view's deviation and those of the two own ones; per view of
    minmax what ties for the minimum and for the maximum get and one over the range; per view of standardize two means.
    """
    at = (tl.program_id(0) // (len(PLAN.pearson) + len(PLAN.views))).to(tl.int64)
    part = tl.program_id(0) % (len(PLAN.pearson) + len(PLAN.views))
    image, size = _image(images, at, height, width, PLAN), height * width
    flow = _flow(flows, at, size, PLAN)
    for p in tl.static_range(len(PLAN.pearson)):
        if part == p:
            x_mean, y_mean, xx, yy, xy = _correlation(moments, at, tiles, size, PLAN, p, BLOCK)
            product, floor = _deviations(xx, yy), PLAN.pearson[p].eps ** 0.5
            r = xy / tl.maximum(product, floor)
            weight = tl.load(flow.gradient + PLAN.pearson[p].component * flow.stride) / PLAN.pearson[p].of
            factor = 2.0 * r * weight / (size.to(tl.float32) * PLAN.pearson[p].planes)
            own = tl.where(product >= floor, factor * r, 0.0)
            into = flow.coefficients + 5 * p
            tl.store(into, x_mean)
            tl.store(into + 1, y_mean)
            tl.store(into + 2, factor / tl.maximum(product, floor))
            tl.store(into + 3, tl.where(xx >= _VARIANCE_FLOOR, own / tl.maximum(xx, _VARIANCE_FLOOR), 0.0))
            tl.store(into + 4, tl.where(yy >= _VARIANCE_FLOOR, own / tl.maximum(yy, _VARIANCE_FLOOR), 0.0))
    for v in tl.static_range(len(PLAN.views)):
        if PLAN.views[v].reduced >= 0 and WANTED[PLAN.views[v].side]:
            if part == len(PLAN.pearson) + v:
                stride = PLAN.reduced * 4
                here = sums + at * tiles * stride + PLAN.views[v].reduced * 4
                first, second = _sum_of_tiles(here, tiles, stride), _sum_of_tiles(here + 1, tiles, stride)
                into = flow.coefficients + 5 * len(PLAN.pearson) + 3 * PLAN.views[v].reduced
                if PLAN.views[v].attacker == "standardize":
                    _mean, variance = _moments(image, PLAN, v)
                    count = size.to(tl.float32) * PLAN.views[v].planes
                    tl.store(into, second / count)
                    tl.store(into + 1, tl.where(variance >= 1e-12, first / count, 0.0))
                else:
                    lows = tl.maximum(_sum_of_tiles(here + 2, tiles, stride), 1.0)
                    highs = tl.maximum(_sum_of_tiles(here + 3, tiles, stride), 1.0)
                    low, high = _range(image, PLAN, v)
                    of_span = tl.where(high - low >= 1e-8, first, 0.0)
                    tl.store(into, (of_span - second) / lows)
                    tl.store(into + 1, -of_span / highs)
                    tl.store(into + 2, 1.0 / tl.maximum(high - low, 1e-8))


@triton.jit
def _slopes_kernel(images, flows, height, width, tiles, WANTED: tl.constexpr, PLAN: tl.constexpr, BLOCK: tl.constexpr):
    """Planes that the gradient gathers from: slopes in Sobel's two derivatives, and in blurred views."""
    at, _tile_number, index, row, column, inside = _tile(height, width, tiles, BLOCK)
    image = _image(images, at, height, width, PLAN)
    flow = _flow(flows, at, image.size, PLAN)
    for e in tl.static_range(len(PLAN.edges)):
        if WANTED[PLAN.sources[PLAN.edges[e].source].side]:
            strength = tl.load(image.extra + PLAN.edges[e].extra * image.size + index)
            total = tl.zeros((BLOCK,), tl.float32)
            for u in tl.static_range(len(PLAN.edges[e].uses)):
                g = _incoming(image, flow, row, column, PLAN, PLAN.edges[e].uses[u][0], PLAN.edges[e].uses[u][1])
                total += _pull_back_tone(image, flow, strength, g, PLAN, PLAN.edges[e].uses[u][0])
            gx, gy = _derivatives(image, row, column, PLAN, PLAN.edges[e].source, True)
            into = image.extra + PLAN.edges[e].back * image.size + index
            tl.store(into, gx / strength * total, mask=inside)
            tl.store(into + image.size, gy / strength * total, mask=inside)
    for b in tl.static_range(len(PLAN.blurs)):
        if WANTED[PLAN.views[PLAN.blurs[b].view].side]:
            g = _incoming(image, flow, row, column, PLAN, PLAN.blurs[b].view, PLAN.blurs[b].plane)
            tl.store(image.extra + PLAN.blurs[b].back * image.size + index, g, mask=inside)


@triton.jit
def _blur_back_kernel(extra, height, width, tiles, WANTED: tl.constexpr, PLAN: tl.constexpr, BLOCK: tl.constexpr):
    """Blurs slopes along columns, transposed, from behind the extra planes to where the blurred rows were."""
    at, _tile_number, index, row, column, inside = _tile(height, width, tiles, BLOCK)
    size = height * width
    extra += at * PLAN.extras * size
    for b in tl.static_range(len(PLAN.blurs)):
        if WANTED[PLAN.views[PLAN.blurs[b].view].side]:
            line = extra + PLAN.blurs[b].back * size + column
            x = _transposed_blur(line, row, height, width, inside, PLAN, PLAN.blurs[b].view)
            tl.store(extra + PLAN.blurs[b].extra * size + index, x, mask=inside)


@triton.jit
def _transposed_blur(line, place, length, step, inside, PLAN: tl.constexpr, V: tl.constexpr):
    """The transposed blur along a line whose values are ``step`` apart, its border folded back."""
    total = tl.zeros(place.shape, tl.float32)
    for k in range(-PLAN.views[V].radius, PLAN.views[V].radius + 1):
        for i in tl.static_range(3):
            centre, exists = _mirrored(place, length, PLAN.views[V].radius, i)
            there = inside & exists & (centre + k >= 0) & (centre + k < length)
            total += _tap(k, PLAN, V) * tl.load(line + (centre + k) * step, mask=there, other=0.0)
    return total


@triton.jit
def _transposed_derivatives(image, row, column, inside, BACK: tl.constexpr):
    """The transposes of Sobel's derivatives applied to their slopes, repeated border pixels folded back."""
    total = tl.zeros(row.shape, tl.float32)
    for i in tl.static_range(-1, 2):
        for j in tl.static_range(-1, 2):
            rise_y, across_y = _sobel_taps(row, image.height, i)
            rise_x, across_x = _sobel_taps(column, image.width, j)
            y, x = row + i, column + j
            there = inside & (y >= 0) & (y < image.height) & (x >= 0) & (x < image.width)
            here = image.extra + BACK * image.size + y * image.width + x
            total += rise_x * across_y * tl.load(here, mask=there, other=0.0)
            total += rise_y * across_x * tl.load(here + image.size, mask=there, other=0.0)
    return total


@triton.jit
def _sobel_taps(place, length, APART: tl.constexpr):
    """How much a place counts in the derivative and in the mean ``APART`` places further on, the border repeated."""
    first, last = tl.where(place == 0, 1.0, 0.0), tl.where(place == length - 1, 1.0, 0.0)
    if APART == 0:
        rise, across = 0.5 * (last - first), 0.5 + 0.25 * (first + last)
    else:
        rise, across = -0.5 * APART, 0.25
    return rise, across


@triton.jit
def _pull_back_wavelet(image, flow, row, column, PLAN: tl.constexpr, V: tl.constexpr, PLANE: tl.constexpr):
    """The gradient in a pixel through the denoiser: its own transpose, with details at or below the threshold left out."""
    channel: tl.constexpr = PLAN.sources[PLAN.views[V].source + PLANE].channel
    _average, across, down, diagonal = _quad(image, row, column, PLAN, V, PLAN.views[V].side, channel)
    above, left = row // 2 * 2, column // 2 * 2
    below, right = tl.minimum(above + 1, image.height - 1), tl.minimum(left + 1, image.width - 1)
    two_rows, two_columns = above + 1 < image.height, left + 1 < image.width
    a = _incoming(image, flow, above, left, PLAN, V, PLANE)
    b = _incoming(image, flow, above, right, PLAN, V, PLANE)
    c = _incoming(image, flow, below, left, PLAN, V, PLANE)
    d = _incoming(image, flow, below, right, PLAN, V, PLANE)
    b, c = tl.where(two_columns, b, 0.0), tl.where(two_rows, c, 0.0)
    d = tl.where(two_columns & two_rows, d, 0.0)
    of_average, of_across, of_down, of_diagonal = _haar(a, b, c, d)
    of_across = tl.where(tl.abs(across) > PLAN.views[V].setting, of_across, 0.0)
    of_down = tl.where(tl.abs(down) > PLAN.views[V].setting, of_down, 0.0)
    of_diagonal = tl.where(tl.abs(diagonal) > PLAN.views[V].setting, of_diagonal, 0.0)
    ones_x = tl.where(two_columns, 1.0, 2.0)  # a last pixel without neighbour stands for two
    ones_y = tl.where(two_rows, 1.0, 2.0)
    sign_x = tl.where(two_columns, 1.0 - 2.0 * (column % 2), 0.0)
    sign_y = tl.where(two_rows, 1.0 - 2.0 * (row % 2), 0.0)
    return 0.5 * (ones_y * (ones_x * of_average + sign_x * of_across) + sign_y * (ones_x * of_down + sign_x * of_diagonal))


@triton.jit
def _of_channel(image, flow, index, row, column, inside, PLAN: tl.constexpr, SIDE: tl.constexpr, CHANNEL: tl.constexpr):
    """The gradient in a channel, or in the luma, through all views made of it."""
    total = tl.zeros(row.shape, tl.float32)
    uncut = _base(image, index, SIDE, CHANNEL, False, True)
    plane: tl.constexpr = 0 if CHANNEL == _LUMA else CHANNEL
    for v in tl.static_range(len(PLAN.views)):
        if PLAN.views[v].side == SIDE and PLAN.views[v].luma == (CHANNEL == _LUMA):
            if PLAN.views[v].attacker != "sobel" and PLAN.views[v].attacker != "edges":
                if PLAN.views[v].attacker == "blur":
                    line = image.extra + (PLAN.views[v].extra + plane) * image.size + row * image.width
                    g = _transposed_blur(line, column, image.width, 1, inside, PLAN, v)
                elif PLAN.views[v].attacker == "wavelet":
                    g = _pull_back_wavelet(image, flow, row, column, PLAN, v, plane)
                else:
                    g = _incoming(image, flow, row, column, PLAN, v, plane)
                    x = _before(image, row, column, PLAN, v, plane)
                    g = _pull_back_tone(image, flow, x, g, PLAN, v)
                total += _pull_back_cut(uncut, g, PLAN.views[v].cut)
    for e in tl.static_range(len(PLAN.edges)):
        if PLAN.sources[PLAN.edges[e].source].side == SIDE and PLAN.sources[PLAN.edges[e].source].channel == CHANNEL:
            g = _transposed_derivatives(image, row, column, inside, PLAN.edges[e].back)
            total += _pull_back_cut(uncut, g, PLAN.sources[PLAN.edges[e].source].cut)
    return total


@triton.jit
def _pull_back_cut(x, gradient, CUT: tl.constexpr):
    if CUT:
        gradient = tl.where((x >= 0.0) & (x <= 1.0), gradient, 0.0)
    return gradient


@triton.jit
def _gradient_kernel(
    images, flows, total, height, width, tiles, SIDE: tl.constexpr, PLAN: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of one side's images."""
    at, _tile_number, index, row, column, inside = _tile(height, width, tiles, BLOCK)
    image = _image(images, at, height, width, PLAN)
    flow = _flow(flows, at, image.size, PLAN)
    of_luma = tl.zeros((BLOCK,), tl.float32)
    if PLAN.channels == 3:
        of_luma = _of_channel(image, flow, index, row, column, inside, PLAN, SIDE, _LUMA)
    for c in tl.static_range(tl.constexpr(PLAN.channels)):
        g = _of_channel(image, flow, index, row, column, inside, PLAN, SIDE, c)
        if PLAN.channels == 3:
            g += (0.299 if c == 0 else 0.587 if c == 1 else 0.114) * of_luma
        passing = image.finite & (tl.abs(_pixel(image, index, SIDE, c)) < _LARGEST)
        tl.store(total + (at * PLAN.channels + c) * image.size + index, tl.where(passing, g, 0.0), mask=inside)
