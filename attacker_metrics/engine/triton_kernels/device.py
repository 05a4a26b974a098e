"""What several kernels share: reading pixels, making views, edges, wavelet and statistics of one image."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False, disable-error-code="assignment,var-annotated,import-untyped"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from attacker_metrics.engine.triton_kernels.plan import _LARGEST, _LUMA, Image


@triton.jit
def _tile(height, width, tiles, BLOCK: tl.constexpr):
    """Image, tile and pixels of this program: index, row, column, and which exist."""
    program = tl.program_id(0)
    index = program % tiles * BLOCK + tl.arange(0, BLOCK)
    inside = index < height * width
    index = tl.minimum(index, height * width - 1)
    return (program // tiles).to(tl.int64), program % tiles, index, index // width, index % width, inside


@triton.jit
def _image(images, image, height, width, PLAN: tl.constexpr):
    size = height * width
    return Image(
        images[0] + image * PLAN.channels * size, images[1] + image * PLAN.channels * size,
        images[3] + image * PLAN.extras * size, images[4] + image * len(PLAN.sources) * 4,
        tl.load(images[2] + image), height, width, size,
    )  # fmt: skip


@triton.jit
def _pixel(image, index, SIDE: tl.constexpr, CHANNEL: tl.constexpr):
    """Channel of an image as it is computed with: cast, cut far out, and black where not finite."""
    if SIDE == 0:
        x = tl.load(image.noisy + CHANNEL * image.size + index)
    else:
        x = tl.load(image.clean + CHANNEL * image.size + index)
    x = tl.minimum(tl.maximum(x.to(tl.float32), -_LARGEST), _LARGEST)
    return tl.where(image.finite, x, 0.0)


@triton.jit
def _base(image, index, SIDE: tl.constexpr, CHANNEL: tl.constexpr, CUT: tl.constexpr, MADE: tl.constexpr):
    """A channel or the luma (which is read if it was made before), perhaps cut to [0, 1]."""
    if CHANNEL != _LUMA:
        x = _pixel(image, index, SIDE, CHANNEL)
    elif MADE:
        x = tl.load(image.extra + SIDE * image.size + index)
    else:
        x = 0.299 * _pixel(image, index, SIDE, 0) + 0.587 * _pixel(image, index, SIDE, 1)
        x += 0.114 * _pixel(image, index, SIDE, 2)
    if CUT:
        x = tl.minimum(tl.maximum(x, 0.0), 1.0)
    return x


@triton.jit
def _derivatives(image, row, column, PLAN: tl.constexpr, S: tl.constexpr, MADE: tl.constexpr):
    """Sobel's derivatives along a row and along a column, border pixels repeated."""
    above, here, below = (tl.maximum(row - 1, 0) * image.width, row * image.width,
                          tl.minimum(row + 1, image.height - 1) * image.width)  # fmt: skip
    left, right = tl.maximum(column - 1, 0), tl.minimum(column + 1, image.width - 1)
    side: tl.constexpr = PLAN.sources[S].side
    channel: tl.constexpr = PLAN.sources[S].channel
    cut: tl.constexpr = PLAN.sources[S].cut
    a = _base(image, above + left, side, channel, cut, MADE)
    b = _base(image, above + column, side, channel, cut, MADE)
    c = _base(image, above + right, side, channel, cut, MADE)
    d = _base(image, here + left, side, channel, cut, MADE)
    e = _base(image, here + right, side, channel, cut, MADE)
    f = _base(image, below + left, side, channel, cut, MADE)
    g = _base(image, below + column, side, channel, cut, MADE)
    h = _base(image, below + right, side, channel, cut, MADE)
    return 0.125 * ((c - a) + 2.0 * (e - d) + (h - f)), 0.125 * ((f - a) + 2.0 * (g - b) + (h - c))


@triton.jit
def _strength(gx, gy):
    """``sqrt(gx^2 + gy^2 + 1e-6)`` of numbers whose squares may overflow."""
    largest = tl.maximum(tl.maximum(tl.abs(gx), tl.abs(gy)), 1e-3)
    gx, gy, floor = gx / largest, gy / largest, 1e-3 / largest
    return largest * tl.sqrt(gx * gx + gy * gy + floor * floor)


@triton.jit
def _mirror(i, n):
    i = tl.abs(i)
    return tl.where(i >= n, 2 * (n - 1) - i, i)


@triton.jit
def _mirrored(i, n, radius, K: tl.constexpr):
    """Where place i shows up in a line extended by mirroring ``radius`` places: i itself, in front, behind; and whether."""
    if K == 0:
        place, exists = i, i >= 0
    elif K == 1:
        place, exists = -i, (i >= 1) & (i <= radius)
    else:
        place, exists = 2 * (n - 1) - i, (i <= n - 2) & (i >= n - 1 - radius)
    return place, exists


@triton.jit
def _tap(k, PLAN: tl.constexpr, V: tl.constexpr):
    distance = k * (1.0 / PLAN.views[V].setting)
    return tl.exp(-0.5 * distance * distance) * PLAN.views[V].norm


@triton.jit
def _quad(image, row, column, PLAN: tl.constexpr, V: tl.constexpr, SIDE: tl.constexpr, CHANNEL: tl.constexpr):
    """Haar's average and details, across, down and diagonal, of the 2 x 2 pixels that a pixel belongs to."""
    above, left = row // 2 * 2, column // 2 * 2
    below, right = tl.minimum(above + 1, image.height - 1), tl.minimum(left + 1, image.width - 1)
    a = _base(image, above * image.width + left, SIDE, CHANNEL, PLAN.views[V].cut, True)
    b = _base(image, above * image.width + right, SIDE, CHANNEL, PLAN.views[V].cut, True)
    c = _base(image, below * image.width + left, SIDE, CHANNEL, PLAN.views[V].cut, True)
    d = _base(image, below * image.width + right, SIDE, CHANNEL, PLAN.views[V].cut, True)
    return _haar(a, b, c, d)


@triton.jit
def _haar(a, b, c, d):
    return (
        0.5 * ((a + b) + (c + d)), 0.5 * ((a - b) + (c - d)), 0.5 * ((a + b) - (c + d)), 0.5 * ((a - b) - (c - d)),
    )  # fmt: skip


@triton.jit
def _shrink(x, threshold):
    return tl.where(x > threshold, x - threshold, tl.where(x < -threshold, x + threshold, 0.0))


@triton.jit
def _before(image, row, column, PLAN: tl.constexpr, V: tl.constexpr, PLANE: tl.constexpr):
    """A plane of a view in front of the pointwise part of its attacker."""
    side: tl.constexpr = PLAN.views[V].side
    channel: tl.constexpr = PLAN.sources[PLAN.views[V].source + PLANE].channel
    index = row * image.width + column
    if PLAN.views[V].attacker == "sobel" or PLAN.views[V].attacker == "edges":
        x = tl.load(image.extra + PLAN.sources[PLAN.views[V].source + PLANE].extra * image.size + index)
    elif PLAN.views[V].attacker == "blur":
        x = tl.zeros(row.shape, tl.float32)
        rows = image.extra + (PLAN.views[V].extra + PLANE) * image.size + column
        for k in range(-PLAN.views[V].radius, PLAN.views[V].radius + 1):
            x += _tap(k, PLAN, V) * tl.load(rows + _mirror(row + k, image.height) * image.width)
    elif PLAN.views[V].attacker == "wavelet":
        average, across, down, diagonal = _quad(image, row, column, PLAN, V, side, channel)
        right, below = 1.0 - 2.0 * (column % 2), 1.0 - 2.0 * (row % 2)
        across, down = _shrink(across, PLAN.views[V].setting), _shrink(down, PLAN.views[V].setting)
        diagonal = _shrink(diagonal, PLAN.views[V].setting)
        x = 0.5 * (average + right * across + below * down + right * below * diagonal)
    else:
        x = _base(image, index, side, channel, PLAN.views[V].cut, True)
    return x


@triton.jit
def _range(image, PLAN: tl.constexpr, V: tl.constexpr):
    """Minimum and maximum of what a view's minmax stretches."""
    first = image.statistics + PLAN.views[V].source * 4
    low, high = tl.load(first + 2), tl.load(first + 3)
    for k in tl.static_range(1, tl.constexpr(PLAN.views[V].planes)):
        low, high = tl.minimum(low, tl.load(first + 4 * k + 2)), tl.maximum(high, tl.load(first + 4 * k + 3))
    return low, high


@triton.jit
def _moments(image, PLAN: tl.constexpr, V: tl.constexpr):
    """Mean and variance of what a view standardizes."""
    first = image.statistics + PLAN.views[V].source * 4
    mean = tl.load(first)
    for k in tl.static_range(1, tl.constexpr(PLAN.views[V].planes)):
        mean += tl.load(first + 4 * k)
    mean /= PLAN.views[V].planes
    variance = mean * 0.0
    for k in tl.static_range(tl.constexpr(PLAN.views[V].planes)):
        apart = tl.load(first + 4 * k) - mean
        variance += (tl.load(first + 4 * k + 1) + apart * apart) / PLAN.views[V].planes
    return mean, variance


@triton.jit
def _power(x, EXPONENT: tl.constexpr):
    if EXPONENT == 0.5:
        y = tl.sqrt(x)
    elif EXPONENT == 1.0:
        y = x
    elif EXPONENT == 2.0:
        y = x * x
    else:
        y = tl.exp2(EXPONENT * tl.log2(x))
    return y


@triton.jit
def _tone(image, x, PLAN: tl.constexpr, V: tl.constexpr):
    """The pointwise part of a view's attacker."""
    if PLAN.views[V].attacker == "minmax" or PLAN.views[V].attacker == "edges":
        low, high = _range(image, PLAN, V)
        x = (x - low) / tl.maximum(high - low, 1e-8)
    elif PLAN.views[V].attacker == "standardize":
        mean, variance = _moments(image, PLAN, V)
        x = tl.sigmoid((x - mean) / tl.sqrt(tl.maximum(variance, 1e-12)))
    elif PLAN.views[V].attacker == "gamma":
        x = _power(tl.minimum(tl.maximum(x, 1e-6), 1.0), PLAN.views[V].setting)
    return x


@triton.jit
def _value(image, row, column, PLAN: tl.constexpr, V: tl.constexpr, PLANE: tl.constexpr):
    """A plane of a view."""
    return _tone(image, _before(image, row, column, PLAN, V, PLANE), PLAN, V)


@triton.jit
def _offset(image, PLAN: tl.constexpr, V: tl.constexpr, PLANE: tl.constexpr):
    """What a plane of a view is centred by: the mean in front of the pointwise part, through that part."""
    return _tone(image, tl.load(image.statistics + (PLAN.views[V].source + PLANE) * 4), PLAN, V)


@triton.jit
def _steps(height, width, tiles, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Image and tile of a program that works on a tile in steps, number of steps, and of pixels."""
    program = tl.program_id(0)
    count = tl.minimum(BLOCK * STEPS, height * width - program % tiles * (BLOCK * STEPS))
    return (program // tiles).to(tl.int64), program % tiles, (count + BLOCK - 1) // BLOCK, count


@triton.jit
def _step(height, width, first, BLOCK: tl.constexpr):
    """Pixels of one step: index, row, column, and which exist; the last one is repeated beyond the end."""
    index = first + tl.arange(0, BLOCK)
    inside = index < height * width
    index = tl.minimum(index, height * width - 1)
    return index, index // width, index % width, inside
