"""The best linear filter, in closed form: normal equations summed over the fit split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from attacker_metrics.metrics.synchronization import unwarned_of_no_update
from attacker_metrics.reading.learned.attacker import LearnedAttacker, _hash

_LEVEL = 0.5  # is subtracted from every pixel, which keeps digits when the sums are centred
_RIDGE, _RIDGE_FLOOR = 1e-10, 1e-16
_FOLDS, _ENOUGH, _MOST_LEFT = 4, 10, 2.0
_POSITIONS = 2**16  # that are worked on at once


class NormalEquations(Metric):
    r"""Least squares :math:`y \approx W^T x + b` over any number of samples: one matrix of sums, exact, mergeable.

    State: the second moments of ``(x, 1, y)``, one float64 matrix (per fold), summed across processes by one collective.

    The solution is that of the centred equations with a ridge of 1e-10 times the variance of each x (at least 1e-16), which
    matters only where they are singular, such as for noisy pictures without colour. A faint x beside strong ones keeps its
    own, small ridge.

    Args:
        inputs: length of x.
        outputs: length of y.
        folds: into how many parts samples are told apart, to judge a fit by held-out error.
        kwargs: torchmetrics' own keywords.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 100)
        >>> equations = NormalEquations(2, 1)
        >>> equations.update(x, 3 * x[:1] - x[1:] + 0.5)
        >>> equations.compute().round(decimals=3)  # two weights and the offset
        tensor([[ 3.0000],
                [-1.0000],
                [ 0.5000]], dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    __jit_ignored_attributes__: ClassVar[list[str]] = ["device", "moments"]  # whose annotation is text
    moments: Tensor

    def __init__(self, inputs: int, outputs: int, folds: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs, self.outputs = inputs, outputs
        size = inputs + 1 + outputs
        self.add_state("moments", torch.zeros(folds, size, size, dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, x: Tensor, y: Tensor, fold: int = 0) -> None:
        """Add samples of a fold: x ``(inputs, N)`` and y ``(outputs, N)``."""
        samples = torch.cat((x.double(), x.new_ones(1, x.shape[1], dtype=torch.float64), y.double()))
        self.moments = self.moments.index_add(
            0, torch.tensor([fold], device=self.moments.device), (samples @ samples.T)[None].to(self.moments.device)
        )

    def compute(self) -> Tensor:
        """Weights and, in the last row, offsets: ``(inputs + 1, outputs)``, float64.

        Raises:
            ValueError: if there are no more samples than weights. Also if there are less than ten per weight, and weights
                fitted to all folds but one restore that one with twice the squared error of its mean, or worse.
        """
        weights = self._solved(self.moments.sum(dim=0))
        count = int(self.moments[:, self.inputs, self.inputs].sum())
        if len(self.moments) > 1 and count < _ENOUGH * self.inputs:
            left = self._left()
            if not left <= _MOST_LEFT:
                raise ValueError(
                    f"{count} samples are too few for {self.inputs} weights: those learned from"
                    f" {1 - 1 / len(self.moments):.0%} of them leave {left:.3g} times the variance of the others (at most"
                    f" {_MOST_LEFT:g}); fit on more images, or take a smaller kernel."
                )
        return weights

    def _left(self) -> float:
        """The squared error of held-out folds, over that of guessing the mean; infinite where the others are too few."""
        total, error, variance = self.moments.sum(dim=0), 0.0, 0.0
        for fold in self.moments:
            others = total - fold
            if others[self.inputs, self.inputs] <= self.inputs:
                return math.inf
            for weights, is_map in ((self._solved(others), True), (self._guess(others), False)):
                residual = torch.cat((-weights, torch.eye(self.outputs, dtype=weights.dtype, device=weights.device)))
                squares = float((residual * (fold @ residual)).sum())
                error, variance = (error + squares, variance) if is_map else (error, variance + squares)
        return error / max(variance, _RIDGE_FLOOR)

    def _guess(self, moments: Tensor) -> Tensor:
        """No weights, and the mean of y."""
        weights = moments.new_zeros(self.inputs + 1, self.outputs)
        weights[-1] = moments[self.inputs, self.inputs + 1 :] / moments[self.inputs, self.inputs]
        return weights

    def _solved(self, moments: Tensor) -> Tensor:
        count = moments[self.inputs, self.inputs]
        if count <= self.inputs:
            raise ValueError(
                f"{int(count)} samples are too few for {self.inputs} weights: fit on more images, or take a smaller kernel."
            )
        scaled = moments / count
        means = scaled[self.inputs]
        centred = scaled - means[:, None] * means
        xx, xy = centred[: self.inputs, : self.inputs], centred[: self.inputs, self.inputs + 1 :]
        ridge = (_RIDGE * xx.diagonal()).clamp(min=_RIDGE_FLOOR)
        scale = (xx.diagonal() + ridge).clamp(min=_RIDGE_FLOOR).sqrt()[:, None]
        weights = torch.linalg.solve((xx + ridge.diag()) / (scale * scale.T), xy / scale) / scale
        offsets = means[self.inputs + 1 :] - means[: self.inputs] @ weights
        return torch.cat((weights, offsets[None]))

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Follow ``fn`` to its device, but keep float64."""
        return super()._apply(lambda value: value.to(fn(value.new_zeros(())).device), *args, **kwargs)


class LinearAttacker(LearnedAttacker):
    """The linear map that restores the clean picture best, in the sense of least squares, from all channels around a pixel.

    With ``stride`` 1 it is a filter: every clean pixel is a weighted sum of the ``3 * kernel_size ** 2`` noisy values around
    it, plus an offset (border mirrored). It undoes any fixed filter, known or secret, as far as a filter of this size can.
    With ``stride = kernel_size`` it is one map of whole blocks onto blocks, which undoes whatever a fixed linear obfuscation
    does within blocks, such as a permutation of their pixels; blocks start at the upper left corner.

    The fit is exact and has no hyper-parameters: :class:`NormalEquations`. It costs about the same per image as scoring
    does. Least squares follow extreme values: where an obfuscation plants such pixels, a low score proves nothing.

    Args:
        kernel_size: side of the window in pixels, >= stride; their difference is even.
        stride: side of the block that a window restores, >= 1.

    Raises:
        ValueError: for other sizes, or images that are smaller than a block or the mirrored border.

    Example:
        >>> import torch
        >>> clean = torch.rand(4, 3, 32, 32)
        >>> noisy = 0.3 - 0.01 * clean.flip(1)  # faint, negative, and its channels permuted
        >>> attacker = LinearAttacker(kernel_size=3)
        >>> attacker.fit_update(noisy[:2], clean[:2], ids=["a", "b"])
        >>> attacker.fit_compute()
        >>> bool((attacker(noisy[2:]) - clean[2:]).abs().max() < 1e-3)
        True
    """

    __jit_ignored_attributes__: ClassVar[list[str]] = ["weights"]  # whose annotation is text
    weights: Tensor

    def __init__(self, kernel_size: int = 5, stride: int = 1) -> None:
        super().__init__()
        if not 1 <= stride <= kernel_size or (kernel_size - stride) % 2:
            raise ValueError(
                f"kernel_size must be at least stride, both at least 1, and their difference even,"
                f" got kernel_size={kernel_size!r} and stride={stride!r}."
            )
        self.kernel_size, self.stride = kernel_size, stride
        inputs, outputs = 3 * kernel_size**2, 3 * stride**2
        self.equations = NormalEquations(inputs, outputs, folds=_FOLDS)
        self.register_buffer("weights", torch.zeros(inputs + 1, outputs, dtype=torch.float64))

    def __repr__(self) -> str:
        return f"LinearAttacker(kernel_size={self.kernel_size}, stride={self.stride})"

    def _observe(self, noisy: Tensor, clean: Tensor, keys: Sequence[str]) -> None:
        stride = self.stride
        rows, columns = noisy.shape[2] // stride, noisy.shape[3] // stride
        if rows == 0 or columns == 0:
            raise ValueError(f"images of {tuple(noisy.shape[2:])} pixels hold no block of {stride} x {stride}.")
        cropped = slice(0, rows * stride), slice(0, columns * stride)
        x, y = (
            self._padded(noisy[..., cropped[0], cropped[1]].double() - _LEVEL),
            clean[..., cropped[0], cropped[1]].double() - _LEVEL,
        )
        step = max(1, _POSITIONS // columns)
        for image in range(len(noisy)):
            for top in range(0, rows, step):
                bottom = min(top + step, rows)
                window = x[image, None, :, top * stride : bottom * stride + self.kernel_size - stride]
                patches = F.unfold(window, self.kernel_size, stride=stride)[0]
                blocks = F.unfold(y[image, None, :, top * stride : bottom * stride], stride, stride=stride)[0]
                quarters = patches.tensor_split(_FOLDS, dim=1), blocks.tensor_split(_FOLDS, dim=1)
                for quarter, samples in enumerate(zip(*quarters, strict=True)):
                    self.equations.update(*samples, (_hash(keys[image]) + quarter) % _FOLDS)

    def _observed(self) -> dict[str, Any]:
        return {"moments": self.equations.moments.cpu()}

    def _take_over(self, observed: Mapping[str, Any]) -> None:
        moments = observed["moments"].to(self.equations.moments.device)
        if moments.ndim == 2:  # of an earlier release
            moments = F.pad(moments[None], (0, 0, 0, 0, 0, _FOLDS - 1))
        self.equations.moments = self.equations.moments + moments

    def _forget(self) -> None:
        self.equations.reset()

    def _solve(self) -> None:
        with unwarned_of_no_update([self.equations]):  # a process may have had no share of the fit split
            self.weights = self.equations.compute().to(self.weights.device)

    def _view(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        weights = self.weights.to(x.device)
        kernels = weights[:-1].T.reshape(-1, 3, self.kernel_size, self.kernel_size)
        # Faint pictures have huge weights: what these make of the image's level is added apart, where it has digits enough.
        level = x.detach().mean(dim=(2, 3))
        of_level = (level.double() - _LEVEL) @ kernels.sum(dim=(2, 3)).T + weights[-1] + _LEVEL
        extended = F.pad(x - level[:, :, None, None], (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        blocks = F.conv2d(self._padded(extended), kernels.to(x), stride=self.stride) + of_level[:, :, None, None].to(x)
        return F.pixel_shuffle(blocks, self.stride)[..., :height, :width]

    def _padded(self, x: Tensor) -> Tensor:
        border = (self.kernel_size - self.stride) // 2
        if min(x.shape[2:]) <= border:
            raise ValueError(
                f"images of {x.shape[2]} x {x.shape[3]} pixels are too small for a window of {self.kernel_size}: a border of"
                f" {border} is mirrored; take a smaller kernel_size."
            )
        return F.pad(x, (border,) * 4, mode="reflect") if border else x

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Follow ``fn`` to its device, but keep float64: the weights of faint pictures are beyond float16."""
        device = fn(self.weights.new_zeros(())).device
        moved: torch.nn.Module = super()._apply(lambda value: value.to(device), *args, **kwargs)  # type: ignore[no-untyped-call]
        return moved
