r"""MS-SSIM of many planes at once: each moment filtered once, a closed-form slope, memory bounded by strips.

Every plane pair (x, y) is treated alike, whichever component it belongs to. With :math:`W` the Gaussian filter over windows
inside the plane and :math:`W^T` its transpose,

.. math::
    \mu_x = W x, \quad p = 2 (W(xy) - \mu_x\mu_y) + C_2, \quad s = W(x^2 + y^2) - \mu_x^2 - \mu_y^2 + C_2, \quad c = p / s

so that four maps are filtered: :math:`x, y, x^2 + y^2, xy`. A scale's contrast term is :math:`t = \overline{c}`, the mean
over its n windows. From :math:`\partial c/\partial\,\mathrm{cov} = 2/s` and
:math:`\partial c/\partial \sigma_x^2 = -c/s` follows its slope

.. math::
    \frac{\partial t}{\partial x} = \frac{2}{n} \Big( y \cdot W^T\frac{1}{s} - x \cdot W^T\frac{c}{s}
    - W^T \frac{\mu_y - c\,\mu_x}{s} \Big)

The coarsest scale mirrors its borders and multiplies c by the luminance :math:`l = (2\mu_x\mu_y + C_1) / m`,
:math:`m = \mu_x^2 + \mu_y^2 + C_1`: every :math:`1/s` above becomes :math:`l/s`, and
:math:`W^T[c\,(\mu_y - l\,\mu_x) / m]` joins the bracket. The slope in y follows by exchanging x and y. A score is the
product of the powers of its terms; its slope, the terms' slopes weighted and brought to full size, is formed beside it.

Planes are channels of one image in ``channels_last`` order, for which depth-wise convolutions are fast on a CPU. They are
centred first: the variances do not change, and :math:`W(x^2) - \mu_x^2` does not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.attackers.moments import STRIP
from attacker_metrics.engine.program import FOLD

TAPS = 11
TILE = 256  # windows across a tile: a whole row of a wide image would leave rows too few for their margins
_SIGMA, _C1, _C2 = 1.5, 0.01**2, 0.03**2  # the constants for a data range of 1
_SLOPE_FLOOR = 1e-6


def ms_ssim(
    sides: list[Tensor], channels: Sequence[int], betas: Sequence[float], normalize: str | None, wanted: tuple[bool, bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """MS-SSIM of views whose planes lie side by side, and its slopes.

    Args:
        sides: planes x of the noisy views and y of the clean ones, each ``(1, images * sum(channels), H, W)``, image by
            image, in ``channels_last`` order; both are used up and the list emptied, so that their memory can be freed.
        channels: how many successive planes make up each view of an image.
        betas: the exponents, one per scale.
        normalize: ``"relu"``, ``"simple"``, ``"fold"`` or None.
        wanted: whether the slopes in x and in y are needed.

    Returns:
        Scores ``(images, len(channels))``, and the slopes of every score in its own planes, shaped as x, or None.
    """
    y, x = sides.pop(), sides.pop()
    offsets = [side.mean(dim=(2, 3), keepdim=True) for side in (x, y)]
    x, y = x.sub_(offsets[0]), y.sub_(offsets[1])
    terms, slopes = [], []  # of every scale
    for scale in range(len(betas)):
        last = scale == len(betas) - 1
        halves = None if last else (F.avg_pool2d(x, 2), F.avg_pool2d(y, 2))
        term, slopes_of_term = _term(x, y, offsets if last else None, wanted)
        terms.append(term.view(-1, sum(channels)))
        slopes.append(slopes_of_term)
        if halves:
            x, y = halves
    per_view = torch.stack([t.mean(dim=2) for t in torch.split(torch.stack(terms), list(channels), dim=2)], dim=2)
    scores, weights = _product_of_powers(per_view, betas, normalize)  # the terms: (scales, images, views)
    spread = [weights[:, :, k : k + 1].expand(-1, -1, count) / count for k, count in enumerate(channels)]
    plane_weights = torch.cat(spread, dim=2).flatten(1)  # (scales, images * planes)
    weighted = [
        _to_full_size([of_term.pop(side) for of_term in slopes], plane_weights) if wanted[side] else None for side in (0, 1)
    ]
    return scores, weighted


def _product_of_powers(terms: Tensor, betas: Sequence[float], normalize: str | None) -> tuple[Tensor, Tensor]:
    """``prod_j v_j ** beta_j`` over the first dimension, and its slope in every term.

    Under ``"relu"`` a term that is not positive makes the product 0, with slope 0 in that term. The slope of a power is
    taken at ``max(v, 1e-6)``. Under ``"fold"`` v is ``|term|``, rounded to a parabola below 0.01: positive, with a slope.
    """
    v, inner = terms, torch.ones_like(terms)  # v, and its slope in the term
    if normalize == "simple":
        v, inner = (terms + 1) / 2, inner / 2
    elif normalize == "fold":
        inner = terms.clamp(-FOLD, FOLD) / FOLD
        v = torch.where(inner.abs() < 1, (inner * inner + 1) * (FOLD / 2), terms.abs())
    powers = torch.stack([term**beta for term, beta in zip(v.clamp(min=0.0), betas, strict=True)])
    floored = zip(v.clamp(min=_SLOPE_FLOOR), betas, strict=True)
    slopes = torch.where(v > 0, torch.stack([beta * term ** (beta - 1) for term, beta in floored]), 0.0) * inner
    others = [torch.cat((powers[:j], powers[j + 1 :])).prod(dim=0) for j in range(len(betas))]
    score = powers.prod(dim=0).clamp(max=1.0)  # rounding
    if not normalize:  # a negative number has no real power
        score = torch.where((v < 0).any(dim=0), torch.nan, powers.prod(dim=0))
    return score, slopes * torch.stack(others)


def _term(x: Tensor, y: Tensor, offsets: list[Tensor] | None, wanted: tuple[bool, bool]) -> tuple[Tensor, dict[int, Tensor]]:
    """One scale of centred planes ``(1, P, H, W)``: the mean ``(P,)`` and its slopes, 0: in x, 1: in y, where wanted.

    The mean contrast; or, given the planes' offsets, the mean SSIM with mirrored borders.
    """
    border = (TAPS // 2,) * 4
    padded: tuple[Tensor, ...] = (x, y)
    if offsets is not None:
        padded = tuple(F.pad(v, border, mode="reflect").contiguous(memory_format=torch.channels_last) for v in padded)
    planes, height, width = x.shape[1], padded[0].shape[2] - TAPS + 1, padded[0].shape[3] - TAPS + 1
    total = x.new_zeros(planes)
    slopes = {side: torch.zeros_like(padded[side]) for side in (0, 1) if wanted[side]}
    for rows, columns in _tiles(height, width, planes) if x.device.type == "cpu" else [(slice(None), slice(None))]:
        part = [v[:, :, rows, columns] for v in padded]
        maps = _maps(4, part[0])
        maps[0], maps[1] = part[0][0], part[1][0]
        torch.mul(part[0], part[0], out=maps[2:3]).addcmul_(part[1], part[1])
        torch.mul(part[0], part[1], out=maps[3:4])
        *mu, s, c = torch.split(_smooth(maps), 1)
        c.addcmul_(mu[0], mu[1], value=-1).mul_(2).add_(_C2)
        s.addcmul_(mu[0], mu[0], value=-1).addcmul_(mu[1], mu[1], value=-1).clamp_(min=0.0).add_(_C2)
        c.div_(s)
        if offsets is None:
            total += c.sum(dim=(0, 2, 3))
        else:
            full = [mean + offset for mean, offset in zip(mu, offsets, strict=True)]
            m = (full[0] * full[0]).addcmul_(full[1], full[1]).add_(_C1)
            luminance = (full[0] * full[1]).mul_(2).add_(_C1).div_(m)
            total += (luminance * c).sum(dim=(0, 2, 3))
        if not slopes:
            continue
        adjoint = _maps(2 + len(slopes), c)
        weight, weight_c, *brackets = torch.split(adjoint, 1)
        torch.reciprocal(s, out=weight)
        if offsets is not None:
            weight.mul_(luminance)
        torch.mul(weight, c, out=weight_c)
        for bracket, side in zip(brackets, slopes, strict=True):
            torch.mul(weight, mu[1 - side], out=bracket).addcmul_(weight_c, mu[side], value=-1)
            if offsets is not None:
                bracket.sub_((full[1 - side] - luminance * full[side]).mul_(c).div_(m))
        weight, weight_c, *brackets = torch.split(_smooth(adjoint, transpose=True), 1)
        for bracket, side in zip(brackets, slopes, strict=True):
            bracket.neg_().addcmul_(part[1 - side], weight).addcmul_(part[side], weight_c, value=-1)
            slopes[side][:, :, rows, columns].add_(bracket, alpha=2 / (height * width))
    if offsets is not None:
        slopes = {side: torch.ops.aten.reflection_pad2d_backward(slope, x, border) for side, slope in slopes.items()}
    return total / (height * width), slopes


def _tiles(height: int, width: int, planes: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the pixels under so many windows, a tile of windows at a time; neighbours share their margins."""
    across = math.ceil(width / TILE)
    down = math.ceil(height / max(TAPS, STRIP // (planes * math.ceil(width / across))))
    for i in range(down):
        rows = slice(i * height // down, (i + 1) * height // down + TAPS - 1)
        for j in range(across):
            yield rows, slice(j * width // across, (j + 1) * width // across + TAPS - 1)


def _maps(count: int, like: Tensor) -> Tensor:
    """Uninitialised maps ``(count, P, H, W)``, each a contiguous block with its planes innermost."""
    size = (count, *like.shape[1:])
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _smooth(maps: Tensor, *, transpose: bool = False) -> Tensor:
    """Gaussian means over windows inside the maps ``(N, P, H, W)``, or the transpose of that filter."""
    if maps.shape[1] == 1:  # a GPU's kernels for one channel may round to TF32, those for several do not
        return _smooth(maps.transpose(0, 1), transpose=transpose).transpose(0, 1)
    planes, pad = maps.shape[1], TAPS - 1 if transpose else 0
    exact = maps.dtype if maps.device.type == "mps" else torch.float64  # taps that add up to 1: flat areas have no variance
    steps = torch.arange(-(TAPS // 2), TAPS // 2 + 1, dtype=exact, device=maps.device)  # no copy that a GPU waits for
    window = torch.softmax(-0.5 * (steps / _SIGMA).square(), dim=0).to(maps.dtype)
    down = window.view(1, 1, -1, 1).expand(planes, 1, -1, 1).contiguous()
    maps = F.conv2d(maps, down, padding=(pad, 0), groups=planes)
    return F.conv2d(maps, down.transpose(2, 3).contiguous(), padding=(0, pad), groups=planes)


def _to_full_size(maps: list[Tensor], weights: Tensor) -> Tensor:
    """Sum the scales' slopes, each weighted ``(M, P)``, through the transposes of the 2 x 2 averages."""
    total = None
    for scale in reversed(range(len(maps))):
        here = maps[scale].mul_(weights[scale].view(1, -1, 1, 1))
        if total is not None:
            height, width = 2 * total.shape[2], 2 * total.shape[3]
            for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
                here[:, :, top:height:2, left:width:2].add_(total, alpha=0.25)
        total = here
    assert total is not None
    return total
