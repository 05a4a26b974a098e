"""An attacker that learns a fixed filter of the picture's full size: one small matrix per coefficient of a transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacker_metrics.reading.learned.bases import BASES, Basis
from attacker_metrics.reading.learned.curves import apply_curve, fit_curve
from attacker_metrics.reading.learned.sample import SampledAttacker

_CHUNK, _JUDGED = 16, 32
"""Pairs that are worked on at once, and held-out pairs by which a choice is judged."""
_RIDGES = (1e-5, 1e-2, 0.1)
PLAIN = (_RIDGES[1], True)
_WORTH, _SIMPLER = 0.01, 1e-3
"""What share of the variance has to be explained at all, and by how much to beat a choice that is named before it."""
_TURNS = 4
_CURVES = ("", "after", "before")
_CURVE = ", a curve "


class SpectrumAttacker(SampledAttacker):
    """The linear map of every coefficient of a transform, across colours, that restores the clean pictures best (Wiener).

    It undoes whatever a fixed key does to coefficients one by one: turned Fourier phases, a filter of any size, circular
    shifts of the picture or of each row; signs and gains of cosine or Hadamard coefficients of the picture or its blocks; a
    colour matrix of every pixel; and noise on top of it, as far as sharpening does not amplify it. Transform (of
    :data:`~attacker_metrics.reading.learned.bases.BASES`), ridge, and whether a tone curve was applied before or after it,
    are those that restore one half of the pairs best when learned from the other; all pairs are then fitted on. If nothing
    explains a hundredth of what pictures differ by, the view is the mean clean picture.

    Pictures have one size. At most 256 pairs are kept, those whose hashed names come first; an unfinished fit holds them,
    pixels and all. A low score proves nothing where pairs were few, or the key is another one for each picture.

    Raises:
        ValueError: for pictures of several sizes, in ``fit_compute`` for fewer than 8 pairs, in the attack for another size.

    Example:
        >>> import torch
        >>> clean = torch.rand(60, 3, 8, 8)
        >>> turn = torch.fft.rfft2(torch.randn(3, 8, 8))
        >>> noisy = torch.fft.irfft2(torch.fft.rfft2(clean) * turn / turn.abs())
        >>> attacker = SpectrumAttacker()
        >>> attacker.fit_update(noisy[:50], clean[:50])
        >>> attacker.fit_compute()
        >>> attacker.found
        'Fourier'
        >>> bool((attacker(noisy[50:]) - clean[50:]).abs().max() < 1e-2)
        True
    """

    weights: Tensor
    level: Tensor
    target: Tensor
    curve: Tensor
    _stored: ClassVar[tuple[str, ...]] = ("target", "level", "weights", "curve")

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None
        """The transform, and where a tone curve is applied; None if nothing was found."""

    def get_extra_state(self) -> dict[str, Any]:
        """Also what was found."""
        return {**super().get_extra_state(), "found": self.found}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        super().set_extra_state(state)
        self.found = state["found"]

    def _learn(self, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        found = _best(noisy, clean)
        if found is None:
            return {"target": clean.mean(dim=0)}
        name, where, fit = found
        self.found = f"{name}{_CURVE}{where}" if where else name
        return {
            "target": fit.target,
            "level": fit.level,
            "weights": torch.view_as_real(fit.weights),
            "curve": fit.curve,
        }

    def _restored(self, x: Tensor) -> Tensor:
        if self.found is None:
            return self.target.to(x) + 0 * x
        name, _, where = self.found.partition(_CURVE)
        fit = Filter(torch.view_as_complex(self.weights), self.level, self.target, self.curve)
        return fit.restored(x, BASES[name], where)


@dataclass(frozen=True)
class Filter:
    """A fitted map of the coefficients of a transform.

    Args:
        weights: complex ``(K, 3, 3)``, clean by noisy channels.
        level: the mean noisy picture ``(3, H, W)``, after a curve that is applied before.
        target: the mean clean picture.
        curve: of :func:`fit_curve`; empty if there is none.
    """

    weights: Tensor
    level: Tensor
    target: Tensor
    curve: Tensor

    def restored(self, x: Tensor, basis: Basis, where: str) -> Tensor:
        """The view of noisy pictures."""
        if where == "before":
            x = apply_curve(x, self.curve)
        view = mapped(x - self.level, self.weights, basis) + self.target
        return apply_curve(view, self.curve) if where == "after" else view


def mapped(x: Tensor, weights: Tensor, basis: Basis) -> Tensor:
    """Pictures with the colours of every coefficient mixed by ``weights`` ``(K, 3, 3)``."""
    coefficients = basis.coefficients(x)
    if not coefficients.is_complex():
        weights = weights.real
    return basis.picture(torch.einsum("kcd,ndk->nck", weights.to(coefficients), coefficients), *x.shape[2:])


class Sums:
    """Second moments of coefficients, of pairs that were centred by a common picture."""

    def __init__(self, x: Tensor, y: Tensor, basis: Basis) -> None:
        self.basis, self.count = basis, len(x)
        self.level, self.target = x.mean(dim=0), y.mean(dim=0)
        xx = xy = yy = x.new_zeros(1, 3, 3)
        for start in range(0, len(x), _CHUNK):
            a = basis.coefficients(x[start : start + _CHUNK] - self.level).permute(2, 1, 0)
            b = basis.coefficients(y[start : start + _CHUNK] - self.target).permute(2, 1, 0)
            xx, xy, yy = xx + a @ a.mH, xy + b @ a.mH, yy + b @ b.mH
        self.xx, self.xy, self.yy = xx, xy, yy

    def fit(self, ridge: float, mixed: bool, curve: Tensor | None = None) -> Filter:
        """The map by a ridge, a share of the mean power; with ``mixed`` false every channel from itself only."""
        weights = _least_squares(self.xx, self.xy, ridge, mixed)
        return Filter(weights, self.level, self.target, self.level.new_zeros(0) if curve is None else curve)

    def forward(self) -> Tensor:
        """The weights that make noisy pictures of clean ones."""
        return _least_squares(self.yy, self.xy.mH, *PLAIN)


def _least_squares(xx: Tensor, xy: Tensor, ridge: float, mixed: bool) -> Tensor:
    """Weights ``(K, 3, 3)``, complex; with ``mixed`` false every channel from itself only."""
    power = xx.diagonal(dim1=1, dim2=2).real
    floor = power.mean(dim=1, keepdim=True).clamp(min=1e-30) * ridge
    if not mixed:
        weights = (xy.diagonal(dim1=1, dim2=2) / (power + floor)).diag_embed()
    else:
        eye = torch.eye(3, dtype=xx.dtype, device=xx.device)
        scale = (power + floor).rsqrt()  # a faint channel beside strong ones keeps its digits
        matrix = (xx + floor[..., None] * eye) * scale[:, :, None] * scale[:, None]
        weights = torch.linalg.solve(matrix, (xy * scale[:, None]).mH).mH * scale[:, None]
    return weights.to(torch.complex64)


def _best(x: Tensor, y: Tensor) -> tuple[str, str, Filter] | None:
    """Transform, place of the curve and fit to all pairs; the choice is that which restores held-out halves best."""
    halves = slice(0, None, 2), slice(1, None, 2)
    folds = [
        (x[half], y[half], x[held][:_JUDGED], y[held][:_JUDGED]) for half, held in zip(halves, halves[::-1], strict=True)
    ]
    variance = sum(float((b.mean(dim=0) - d).square().sum(dtype=torch.float64)) for _, b, _, d in folds)

    def left(fits: Sequence[Filter], basis: Basis, where: str = "") -> float:
        error = 0.0
        for fit, (_, _, c, d) in zip(fits, folds, strict=True):
            error += float((fit.restored(c, basis, where).clamp(0, 1) - d).square().sum(dtype=torch.float64))
        return error / max(variance, 1e-12)

    name, least = "", 1 - _WORTH
    sums: list[Sums] = []
    for candidate, basis in BASES.items():
        tried = [Sums(a, b, basis) for a, b, _, _ in folds]
        if (now := left([one.fit(*PLAIN) for one in tried], basis)) < least - _SIMPLER:
            name, least, sums = candidate, now, tried
    if not name:
        return None
    basis, setting, where = BASES[name], PLAIN, ""
    for other in [(ridge, mixed) for mixed in (True, False) for ridge in _RIDGES]:
        if (now := left([one.fit(*other) for one in sums], basis)) < least - _SIMPLER * least:
            least, setting = now, other
    for curve in _CURVES[1:]:
        fits = [_with_curve(a, b, basis, setting, curve, one) for one, (a, b, _, _) in zip(sums, folds, strict=True)]
        if (now := left(fits, basis, curve)) < least - _SIMPLER:
            least, where = now, curve
    sums_of_all = Sums(x, y, basis)
    fit = _with_curve(x, y, basis, setting, where, sums_of_all) if where else sums_of_all.fit(*setting)
    return name, where, fit


def _with_curve(x: Tensor, y: Tensor, basis: Basis, setting: tuple[float, bool], where: str, sums: Sums) -> Filter:
    # Least squares find the map up to a factor through whatever curve comes with it. What it makes of one side says what the
    # curve takes the other side to, and the map is fitted to that; in turns, as in alternating conditional expectations.
    if where == "after":
        fit = sums.fit(*setting)
        for _ in range(_TURNS):
            fit = Sums(x, apply_curve(y, fit_curve(y, fit.restored(x, basis, ""))), basis).fit(*setting)
        return replace(fit, curve=fit_curve(fit.restored(x, basis, ""), y))
    for _ in range(_TURNS):
        curve = fit_curve(x, mapped(y - sums.target, sums.forward(), basis) + sums.level)
        sums = Sums(apply_curve(x, curve), y, basis)
    return sums.fit(*setting, curve=curve)
