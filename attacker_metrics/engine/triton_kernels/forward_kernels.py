"""The kernels of the forward: statistics, views, MS-SSIM scale by scale with its slopes, scores."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False, disable-error-code="assignment,var-annotated,import-untyped"
# ruff: noqa: N803, RUF005, SIM108

from __future__ import annotations

import triton
import triton.language as tl

from attacker_metrics.engine.triton_kernels.device import (
    _base,
    _derivatives,
    _image,
    _mirror,
    _mirrored,
    _offset,
    _step,
    _steps,
    _strength,
    _tap,
    _tile,
    _value,
)
from attacker_metrics.engine.triton_kernels.plan import (
    _BORDER,
    _C1,
    _C2,
    _FOLD,
    _HALO,
    _LUMA,
    _PAD,
    _SLOPE_FLOOR,
    _TILES,
    _VARIANCE_FLOOR,
)


@triton.jit
def _statistics_kernel(images, partials, height, width, tiles, PLAN: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Mean, variance and range of every source over a tile; stores lumas and edge strengths.

    Every lane keeps the mean of its pixels and the sum of their squared distances from it (Welford); these are then merged.
    """
    at, tile, steps, count = _steps(height, width, tiles, BLOCK, STEPS)
    image = _image(images, at, height, width, PLAN)
    nothing = tl.zeros((BLOCK,), tl.float32)
    sums = ()
    for _ in tl.static_range(len(PLAN.sources)):
        sums = sums + ((nothing, nothing, nothing + float("inf"), nothing - float("inf")),)
    for step in range(steps):
        index, row, column, inside = _step(height, width, (tile * STEPS + step) * BLOCK, BLOCK)
        more = ()
        for s in tl.static_range(len(PLAN.sources)):
            if PLAN.sources[s].edges:
                gx, gy = _derivatives(image, row, column, PLAN, s, False)
                x = _strength(gx, gy)
            else:
                x = _base(image, index, PLAN.sources[s].side, PLAN.sources[s].channel, PLAN.sources[s].cut, False)
            if PLAN.sources[s].extra >= 0:
                tl.store(image.extra + PLAN.sources[s].extra * image.size + index, x, mask=inside)
            share = 1.0 / (step + 1)
            mean, squares, low, high = sums[s]
            apart = tl.where(inside, x - mean, 0.0)
            mean += share * apart
            if PLAN.sources[s].full:
                squares += (1.0 - share) * apart * apart
                low, high = tl.minimum(low, x), tl.maximum(high, x)
            more = more + ((mean, squares, low, high),)
        sums = more
    of_lane = _of_lane(count, BLOCK)
    for s in tl.static_range(len(PLAN.sources)):
        mean, squares, low, high = sums[s]
        into = partials + ((at * tiles + tile) * len(PLAN.sources) + s) * 4
        total = tl.sum(of_lane * mean, 0) / count
        tl.store(into, total)
        if PLAN.sources[s].full:
            apart = mean - total
            tl.store(into + 1, tl.sum(squares + of_lane * apart * apart, 0) / count)
            tl.store(into + 2, tl.min(low, 0))
            tl.store(into + 3, tl.max(high, 0))


@triton.jit
def _of_lane(count, BLOCK: tl.constexpr):
    """How many of a tile's pixels every lane met."""
    return ((count - tl.arange(0, BLOCK) + BLOCK - 1) // BLOCK).to(tl.float32)


@triton.jit
def _merge_kernel(partials, statistics, size, tiles, sources, BLOCK: tl.constexpr):
    """A source's statistics over its image from those over tiles; of those that were not taken nothing is read later."""
    program = tl.program_id(0).to(tl.int64)
    first = partials + (program // sources * tiles * sources + program % sources) * 4
    mean, variance = tl.zeros((_TILES,), tl.float32), tl.zeros((_TILES,), tl.float32)
    low, high = tl.full((_TILES,), float("inf"), tl.float32), tl.full((_TILES,), float("-inf"), tl.float32)
    for start in range(0, tiles, _TILES):
        tile = start + tl.arange(0, _TILES)
        share = _share(tile, size, BLOCK)
        mean += share * tl.load(first + tile * sources * 4, mask=tile < tiles, other=0.0)
        low = tl.minimum(low, tl.load(first + tile * sources * 4 + 2, mask=tile < tiles, other=float("inf")))
        high = tl.maximum(high, tl.load(first + tile * sources * 4 + 3, mask=tile < tiles, other=float("-inf")))
    total = tl.sum(mean, 0)
    for start in range(0, tiles, _TILES):
        tile = start + tl.arange(0, _TILES)
        apart = tl.load(first + tile * sources * 4, mask=tile < tiles, other=0.0) - total
        within = tl.load(first + tile * sources * 4 + 1, mask=tile < tiles, other=0.0)
        variance += _share(tile, size, BLOCK) * (within + apart * apart)
    into = statistics + program * 4
    tl.store(into, total)
    tl.store(into + 1, tl.sum(variance, 0))
    tl.store(into + 2, tl.min(low, 0))
    tl.store(into + 3, tl.max(high, 0))


@triton.jit
def _share(tile, size, BLOCK: tl.constexpr):
    """Share of an image's pixels that are in a tile."""
    return tl.minimum(tl.maximum(size - tile * BLOCK, 0), BLOCK).to(tl.float32) / size.to(tl.float32)


@triton.jit
def _blur_rows_kernel(images, height, width, tiles, PLAN: tl.constexpr, BLOCK: tl.constexpr):
    """Blurs along rows."""
    at, _tile_number, index, row, column, inside = _tile(height, width, tiles, BLOCK)
    image = _image(images, at, height, width, PLAN)
    for b in tl.static_range(len(PLAN.blurs)):
        _blur_row(image, index, row, column, inside, PLAN, b, PLAN.blurs[b].view)


@triton.jit
def _blur_row(image, index, row, column, inside, PLAN: tl.constexpr, B: tl.constexpr, V: tl.constexpr):
    x = tl.zeros(row.shape, tl.float32)
    channel: tl.constexpr = _LUMA if PLAN.views[V].luma else PLAN.blurs[B].plane
    for k in range(-PLAN.views[V].radius, PLAN.views[V].radius + 1):
        at = row * image.width + _mirror(column + k, image.width)
        x += _tap(k, PLAN, V) * _base(image, at, PLAN.views[V].side, channel, PLAN.views[V].cut, True)
    tl.store(image.extra + PLAN.blurs[B].extra * image.size + index, x, mask=inside)


@triton.jit
def _views_kernel(
    images, offsets, moments, planes, height, width, pitch, tiles,
    PLAN: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sums and differences of the centred planes that MS-SSIM compares; a tile's moments of what Pearson compares."""
    at, tile, steps, count = _steps(height, width, tiles, BLOCK, STEPS)
    image = _image(images, at, height, width, PLAN)
    planes += at * PLAN.planes * 2 * height * pitch
    centres = ()
    for p in tl.static_range(len(PLAN.pairs)):
        for k in tl.static_range(tl.constexpr(PLAN.pairs[p].planes)):
            x_centre, y_centre = _offset(image, PLAN, PLAN.pairs[p].noisy, k), _offset(image, PLAN, PLAN.pairs[p].clean, k)
            centres = centres + ((x_centre, y_centre),)
            if PLAN.pairs[p].first >= 0:
                into = offsets + (at * PLAN.planes + PLAN.pairs[p].first + k) * 2
                tl.store(into, x_centre, mask=tile == 0)
                tl.store(into + 1, y_centre, mask=tile == 0)
    sums = _no_moments(PLAN.moments, BLOCK)
    for step in range(steps):
        _index, row, column, inside = _step(height, width, (tile * STEPS + step) * BLOCK, BLOCK)
        more = ()
        for p in tl.static_range(len(PLAN.pairs)):
            for k in tl.static_range(tl.constexpr(PLAN.pairs[p].planes)):
                x = _value(image, row, column, PLAN, PLAN.pairs[p].noisy, k)
                y = _value(image, row, column, PLAN, PLAN.pairs[p].clean, k)
                if PLAN.pairs[p].moments >= 0:
                    more = more + (_more_moments(sums[PLAN.pairs[p].moments + k], x, y, inside, step),)
                if PLAN.pairs[p].first >= 0:
                    # The place of a pair among the centres is that of its planes: pairs without MS-SSIM come last.
                    x, y = x - centres[PLAN.pairs[p].first + k][0], y - centres[PLAN.pairs[p].first + k][1]
                    here = planes + (PLAN.pairs[p].first + k) * 2 * height * pitch + row * pitch + column
                    tl.store(here, x + y, mask=inside)
                    tl.store(here + height * pitch, x - y, mask=inside)
        sums = more
    _store_moments(moments + (at * tiles + tile) * PLAN.moments * 5, sums, count, PLAN, BLOCK)


@triton.jit
def _no_moments(COUNT: tl.constexpr, BLOCK: tl.constexpr):
    nothing = tl.zeros((BLOCK,), tl.float32)
    sums = ()
    for _ in tl.static_range(COUNT):
        sums = sums + ((nothing, nothing, nothing, nothing, nothing),)
    return sums


@triton.jit
def _more_moments(sums, x, y, inside, step):
    """Every lane's means and sums of squares and products of what its pixels are apart from them, with one pixel more."""
    share = 1.0 / (step + 1)
    x, y = tl.where(inside, x - sums[0], 0.0), tl.where(inside, y - sums[1], 0.0)
    rest_x, rest_y = (1.0 - share) * x, (1.0 - share) * y
    return sums[0] + share * x, sums[1] + share * y, sums[2] + rest_x * x, sums[3] + rest_y * y, sums[4] + rest_x * y


@triton.jit
def _store_moments(into, sums, count, PLAN: tl.constexpr, BLOCK: tl.constexpr):
    """Means of pairs of planes over a tile, their variances and covariance, merged from those of lanes."""
    of_lane = _of_lane(count, BLOCK)
    for k in tl.static_range(tl.constexpr(PLAN.moments)):
        x_mean, y_mean = tl.sum(of_lane * sums[k][0], 0) / count, tl.sum(of_lane * sums[k][1], 0) / count
        x, y = sums[k][0] - x_mean, sums[k][1] - y_mean
        tl.store(into + 5 * k, x_mean)
        tl.store(into + 5 * k + 1, y_mean)
        tl.store(into + 5 * k + 2, tl.sum(sums[k][2] + of_lane * x * x, 0) / count)
        tl.store(into + 5 * k + 3, tl.sum(sums[k][3] + of_lane * y * y, 0) / count)
        tl.store(into + 5 * k + 4, tl.sum(sums[k][4] + of_lane * x * y, 0) / count)


@triton.jit
def _correlation(moments, at, tiles, size, PLAN: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Means, variances and covariance of two views over an image, merged from those over tiles of their planes."""
    x_mean, y_mean = tl.zeros((_TILES,), tl.float32), tl.zeros((_TILES,), tl.float32)
    xx, yy, xy = x_mean, x_mean, x_mean
    stride = PLAN.moments * 5
    first = moments + at * tiles * stride + PLAN.pearson[P].first * 5
    for start in range(0, tiles, _TILES):
        tile = start + tl.arange(0, _TILES)
        share = _share(tile, size, BLOCK) / PLAN.pearson[P].planes
        for k in tl.static_range(tl.constexpr(PLAN.pearson[P].planes)):
            x_mean += share * tl.load(first + tile * stride + k * 5, mask=tile < tiles, other=0.0)
            y_mean += share * tl.load(first + tile * stride + k * 5 + 1, mask=tile < tiles, other=0.0)
    x_total, y_total = tl.sum(x_mean, 0), tl.sum(y_mean, 0)
    for start in range(0, tiles, _TILES):
        tile = start + tl.arange(0, _TILES)
        share = _share(tile, size, BLOCK) / PLAN.pearson[P].planes
        for k in tl.static_range(tl.constexpr(PLAN.pearson[P].planes)):
            here = first + tile * stride + k * 5
            x = tl.load(here, mask=tile < tiles, other=0.0) - x_total
            y = tl.load(here + 1, mask=tile < tiles, other=0.0) - y_total
            xx += share * (tl.load(here + 2, mask=tile < tiles, other=0.0) + x * x)
            yy += share * (tl.load(here + 3, mask=tile < tiles, other=0.0) + y * y)
            xy += share * (tl.load(here + 4, mask=tile < tiles, other=0.0) + x * y)
    return x_total, y_total, tl.sum(xx, 0), tl.sum(yy, 0), tl.sum(xy, 0)


@triton.jit
def _deviations(xx, yy):
    """Product of two standard deviations, whose squares are floored."""
    return tl.sqrt(tl.maximum(xx, _VARIANCE_FLOOR)) * tl.sqrt(tl.maximum(yy, _VARIANCE_FLOOR))


@triton.jit
def _window(ends, TAPS: tl.constexpr):
    """Window sums at two neighbouring places, given the 12 values from the first one on as six pairs' halves."""
    even, odd = TAPS[0] * ends[0], TAPS[0] * ends[1]
    for k in tl.static_range(1, 11):
        even += TAPS[k] * ends[k]
        odd += TAPS[k] * ends[k + 1]
    return tl.join(even, odd)


@triton.jit
def _squares(ends):
    squares = ()
    for k in tl.static_range(12):
        squares = squares + (ends[k] * ends[k],)
    return squares


@triton.jit
def _row_pair(u_plane, v_plane, at, column, K: tl.constexpr, height, width, pitch, LAST: tl.constexpr):
    """Two neighbouring columns of both planes, 2 K further right; where ``LAST``, counted from 5 before the image."""
    if LAST:
        row = _mirror(tl.minimum(at, height + _HALO - 1) - _BORDER, height)
        column = tl.maximum(tl.minimum(_mirror(column + 2 * K - _BORDER, width), width - 1), 0)
    else:
        row = tl.minimum(at, height - 1)
        column = column + 2 * K
    return tl.load(u_plane + row * pitch + column), tl.load(v_plane + row * pitch + column)


@triton.jit
def _walk(running, row, TAPS: tl.constexpr):
    """One row on: the sum over the last 11 rows, and the ten running sums of the windows that are not complete."""
    r = running
    moved = (
        r[1] + TAPS[9] * row, r[2] + TAPS[8] * row, r[3] + TAPS[7] * row, r[4] + TAPS[6] * row, r[5] + TAPS[5] * row,
        r[6] + TAPS[4] * row, r[7] + TAPS[3] * row, r[8] + TAPS[2] * row, r[9] + TAPS[1] * row, TAPS[0] * row,
    )  # fmt: skip
    return r[0] + TAPS[10] * row, moved


@triton.jit(do_not_specialize=["count"])
def _scale_kernel(
    planes, coarser, offsets, ring, terms, slopes_x, slopes_y, height, width, pitch, slope_pitch, coarser_pitch,
    count, chunk, strips, chunks, TAPS: tl.constexpr, PACK: tl.constexpr, BLOCK: tl.constexpr, LAST: tl.constexpr,
    X: tl.constexpr, Y: tl.constexpr,
):  # fmt: skip
    """One scale of a plane pair, a strip of columns and a chunk of rows: part of the term, its slopes, the coarser planes.

    A program owns columns and rows of the slopes, and the windows that begin there; it sees 10 columns and rows before them.
    At the last scale, columns and rows count from 5 before the image, which is mirrored.
    """
    program = tl.program_id(0)
    part = program % (strips * chunks)
    plane = program // (strips * chunks) * PACK + tl.arange(0, PACK)[:, None, None]
    plane = tl.minimum(plane, count - 1).to(tl.int64)  # beyond the last one it is repeated
    left, top = part % strips * (BLOCK - _HALO), part // strips * chunk
    lane = tl.arange(0, BLOCK // 2)[None, :]
    pair = 2 * lane[:, :, None] + tl.arange(0, 2)[None, None, :]
    column = left + pair
    first_plane = tl.reshape(plane, (PACK, 1))
    halo = tl.where(left == 0, 0, _HALO)
    own = pair >= halo
    rows, columns = height, width
    if LAST:
        rows, columns = height + _HALO, width + _HALO
    bottom = tl.minimum(top + chunk, rows)
    start, stop = top, bottom + _HALO
    if X or Y:
        start = tl.maximum(top - _HALO, 0)
        ring += (program.to(tl.int64) * PACK + tl.arange(0, PACK)[:, None, None]) * (8 * (BLOCK + _PAD))
        margin = tl.arange(0, 8)[None, :, None] * (BLOCK + _PAD) + tl.arange(0, _PAD)[None, None, :]
        tl.store(ring + margin, tl.zeros((PACK, 8, _PAD), tl.float32))
    u_plane = planes + plane * 2 * height * pitch
    v_plane = u_plane + height * pitch
    if LAST:
        x_offset, y_offset = tl.load(offsets + plane * 2), tl.load(offsets + plane * 2 + 1)
    zero = tl.zeros((PACK, BLOCK // 2, 2), tl.float32)
    total = zero
    u_sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    v_sums, uu_sums, vv_sums, a_sums, b_sums, x_sums, y_sums = u_sums, u_sums, u_sums, u_sums, u_sums, u_sums, u_sums
    half = tl.zeros((PACK, BLOCK // 2), tl.float32)
    u_above, v_above = half, half
    u_first, v_first = _row_pair(u_plane, v_plane, start, column, 0, height, width, pitch, LAST)
    u_last, v_last = _row_pair(u_plane, v_plane, start, column, 5, height, width, pitch, LAST)
    for even in range(start, stop, 2):
        for odd in tl.static_range(2):
            at = even + odd
            u_even, u_odd = tl.split(u_first)
            v_even, v_odd = tl.split(v_first)
            u, v = (u_even, u_odd), (v_even, v_odd)
            for k in tl.static_range(1, 5):
                u_pair, v_pair = _row_pair(u_plane, v_plane, at, column, k, height, width, pitch, LAST)
                u_even, u_odd = tl.split(u_pair)
                v_even, v_odd = tl.split(v_pair)
                u, v = u + (u_even, u_odd), v + (v_even, v_odd)
            u_even, u_odd = tl.split(u_last)
            v_even, v_odd = tl.split(v_last)
            u, v = u + (u_even, u_odd), v + (v_even, v_odd)
            # The next row's first and last columns, and with them its cache lines, are on their way during this one.
            u_first, v_first = _row_pair(u_plane, v_plane, at + 1, column, 0, height, width, pitch, LAST)
            u_last, v_last = _row_pair(u_plane, v_plane, at + 1, column, 5, height, width, pitch, LAST)
            if not LAST:
                u_here, v_here = u[0] + u[1], v[0] + v[1]
                if odd == 1:
                    below, beside = even // 2, left // 2 + lane
                    end = tl.where((at >= top) & (at < bottom), width // 2, 0)
                    wanted = (2 * lane >= halo) & (beside < end)
                    into = coarser + first_plane * 2 * (height // 2) * coarser_pitch + below * coarser_pitch + beside
                    tl.store(into, 0.25 * (u_above + u_here), mask=wanted)
                    tl.store(into + (height // 2) * coarser_pitch, 0.25 * (v_above + v_here), mask=wanted)
                u_above, v_above = u_here, v_here
            u_mean, u_sums = _walk(u_sums, _window(u, TAPS), TAPS)
            v_mean, v_sums = _walk(v_sums, _window(v, TAPS), TAPS)
            u_square, uu_sums = _walk(uu_sums, _window(_squares(u), TAPS), TAPS)
            v_square, vv_sums = _walk(vv_sums, _window(_squares(v), TAPS), TAPS)
            first = at - _HALO  # row of the windows that are now complete, and of the slopes
            exists = (column < columns - _HALO) & (first >= start) & (first < rows - _HALO)
            u_variance = tl.maximum(u_square - u_mean * u_mean, 0.0)
            v_variance = tl.maximum(v_square - v_mean * v_mean, 0.0)
            inverse = tl.where(exists, 1.0 / (u_variance + v_variance + 2.0 * _C2), 0.0)
            contrast = tl.where(exists, (u_variance - v_variance + 2.0 * _C2) * inverse, 0.0)
            if LAST:
                x_mean = tl.where(exists, 0.5 * (u_mean + v_mean) + x_offset, 0.0)
                y_mean = tl.where(exists, 0.5 * (u_mean - v_mean) + y_offset, 0.0)
                brightness = 1.0 / (x_mean * x_mean + y_mean * y_mean + _C1)
                luminance = (2.0 * x_mean * y_mean + _C1) * brightness
                inverse *= luminance
                term = luminance * contrast
            else:
                term = contrast
            total += tl.where(own & (first >= top), term, 0.0)
            if X or Y:
                a, b = inverse * (1.0 - contrast), -inverse * (1.0 + contrast)
                a_sum, a_sums = _walk(a_sums, a, TAPS)
                b_sum, b_sums = _walk(b_sums, b, TAPS)
                u_mean, v_mean = tl.where(exists, u_mean, 0.0), tl.where(exists, v_mean, 0.0)
                slot = ring + odd * (4 * (BLOCK + _PAD))
                tl.store(slot + _PAD + pair, a_sum)
                tl.store(slot + (BLOCK + _PAD) + _PAD + pair, b_sum)
                if X:
                    bracket = a * u_mean + b * v_mean
                    if LAST:
                        bracket -= contrast * brightness * (y_mean - luminance * x_mean)
                    x_sum, x_sums = _walk(x_sums, bracket, TAPS)
                    tl.store(slot + 2 * (BLOCK + _PAD) + _PAD + pair, x_sum)
                if Y:
                    bracket = a * u_mean - b * v_mean
                    if LAST:
                        bracket -= contrast * brightness * (x_mean - luminance * y_mean)
                    y_sum, y_sums = _walk(y_sums, bracket, TAPS)
                    tl.store(slot + 3 * (BLOCK + _PAD) + _PAD + pair, y_sum)
                tl.debug_barrier()  # the ring has two slots: what is read here is written again two barriers later
                if (first >= top) & (first < bottom):
                    u_centre, v_centre = _row_pair(u_plane, v_plane, first, column, 0, height, width, pitch, LAST)
                    mine = own & (column < columns)
                    scale = 2.0 / ((rows - _HALO).to(tl.float32) * (columns - _HALO).to(tl.float32))
                    u_part = u_centre * _ring_window(slot, pair, 0, TAPS, BLOCK)
                    v_part = v_centre * _ring_window(slot, pair, 1, TAPS, BLOCK)
                    there = plane * rows * slope_pitch + first * slope_pitch + column
                    if X:
                        slope = scale * (u_part + v_part - _ring_window(slot, pair, 2, TAPS, BLOCK))
                        tl.store(slopes_x + there, slope, mask=mine)
                    if Y:
                        slope = scale * (u_part - v_part - _ring_window(slot, pair, 3, TAPS, BLOCK))
                        tl.store(slopes_y + there, slope, mask=mine)
    tl.store(terms + first_plane * (strips * chunks) + part, tl.sum(tl.sum(total, 2), 1)[:, None])


@triton.jit
def _ring_window(slot, pair, MAP: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """The transposed window along a row: sums over the last 11 columns of a map in the ring."""
    values = ()
    for k in tl.static_range(6):
        even, odd = tl.split(tl.load(slot + (MAP * (BLOCK + _PAD) + _PAD - _HALO + 2 * k) + pair))
        values = values + (even, odd)
    return _window(values, TAPS)


@triton.jit
def _scores_kernel(
    finite,
    terms,
    moments,
    weights,
    scores,
    size,
    tiles,
    parts,
    shares,
    PARTS: tl.constexpr,
    PLAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One score of an image, and what the slopes of every scale's term in every plane are multiplied by."""
    at = (tl.program_id(0) // PLAN.components).to(tl.int64)
    for c in tl.static_range(tl.constexpr(PLAN.components)):
        if tl.program_id(0) % PLAN.components == c:
            score = 0.0
            for m in tl.static_range(len(PLAN.ms_ssim)):
                if PLAN.ms_ssim[m].component == c:
                    value = _product_of_powers(terms, weights, at, parts, shares, PLAN, m, PARTS)
                    score += value / PLAN.ms_ssim[m].of
            for p in tl.static_range(len(PLAN.pearson)):
                if PLAN.pearson[p].component == c:
                    _x, _y, xx, yy, xy = _correlation(moments, at, tiles, size, PLAN, p, BLOCK)
                    r = xy / tl.maximum(_deviations(xx, yy), PLAN.pearson[p].eps ** 0.5)
                    score += tl.minimum(r * r, 1.0) / PLAN.pearson[p].of
            tl.store(scores + at * PLAN.components + c, tl.where(tl.load(finite + at), score, float("nan")))


@triton.jit
def _product_of_powers(terms, weights, at, parts, shares, PLAN: tl.constexpr, M: tl.constexpr, PARTS: tl.constexpr):
    """A comparison's score; stores the weights of its planes' slopes. The formulas are those of ``ms_ssim.py``."""
    part = tl.arange(0, PARTS)
    planes: tl.constexpr = PLAN.ms_ssim[M].planes
    first = at * PLAN.planes + PLAN.ms_ssim[M].first
    powers, slopes = (), ()
    score, undefined = 1.0, False
    for j in tl.static_range(len(PLAN.betas)):
        total = tl.zeros((PARTS,), tl.float32)
        for k in tl.static_range(planes):
            total += tl.load(terms[j] + (first + k) * parts[j] + part, mask=part < parts[j], other=0.0)
        v = tl.sum(total, 0) * (shares[j] / planes)
        inner = 1.0
        if PLAN.normalize == "simple":
            v, inner = 0.5 * (v + 1.0), 0.5
        elif PLAN.normalize == "fold":
            inner = tl.minimum(tl.maximum(v / _FOLD, -1.0), 1.0)
            v = tl.where(tl.abs(inner) < 1.0, (inner * inner + 1.0) * (0.5 * _FOLD), tl.abs(v))
        power = tl.where(v > 0.0, tl.exp2(PLAN.betas[j] * tl.log2(tl.maximum(v, 1e-38))), 0.0)
        slope = tl.where(v > 0.0, PLAN.betas[j] * tl.exp2((PLAN.betas[j] - 1.0) * tl.log2(tl.maximum(v, _SLOPE_FLOOR))), 0.0)
        slope *= inner
        score = score * power
        undefined = undefined | (v < 0.0)
        powers, slopes = powers + (power,), slopes + (slope,)
    if PLAN.normalize == "none":
        score = tl.where(undefined, float("nan"), score)
    else:
        score = tl.minimum(score, 1.0)
    for j in tl.static_range(len(PLAN.betas)):
        weight = slopes[j] * (0.25**j / planes)
        for i in tl.static_range(len(PLAN.betas)):
            if i != j:
                weight *= powers[i]
        for k in tl.static_range(planes):
            tl.store(weights + (first + k) * len(PLAN.betas) + j, weight)
    return score


@triton.jit
def _fold_kernel(maps, folded, rows, columns, pitch, tiles, BLOCK: tl.constexpr):
    """Slopes of planes whose mirrored border is folded back."""
    height, width = rows - _HALO, columns - _HALO
    plane, _tile_number, index, row, column, inside = _tile(height, width, tiles, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for a in tl.static_range(3):
        for b in tl.static_range(3):
            y, y_is = _mirrored(row, height, _BORDER, a)
            x, x_is = _mirrored(column, width, _BORDER, b)
            here = maps + plane * rows * pitch + (y + _BORDER) * pitch + x + _BORDER
            total += tl.load(here, mask=inside & y_is & x_is, other=0.0)
    tl.store(folded + plane * height * width + index, total, mask=inside)


@triton.jit
def _combine_kernel(
    slopes, maps, weights, tiles, LAYOUTS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """Sum of the scales' slopes, weighted, through the transposes of the 2 x 2 averages."""
    plane, _tile_number, index, row, column, inside = _tile(HEIGHT, WIDTH, tiles, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for j in tl.static_range(len(LAYOUTS)):
        weight = tl.load(weights + plane * len(LAYOUTS) + j)
        here = maps[j] + plane * (LAYOUTS[j][0] * LAYOUTS[j][2]) + (row >> j) * LAYOUTS[j][2] + (column >> j)
        if HEIGHT % 2**j == 0 and WIDTH % 2**j == 0:
            total += weight * tl.load(here, mask=inside, other=0.0)
        else:
            there = inside & (row >> j < LAYOUTS[j][0]) & (column >> j < LAYOUTS[j][1])
            total += weight * tl.load(here, mask=there, other=0.0)
    tl.store(slopes + plane * (HEIGHT * WIDTH) + index, total, mask=inside)
