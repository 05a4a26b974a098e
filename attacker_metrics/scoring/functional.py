"""The public functions: pairs of batches in, scores out, differentiable with respect to either."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacker_metrics._warnings import at_most_one_warning, warn_unless
from attacker_metrics.attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
)
from attacker_metrics.scoring.batch_means import batch_means
from attacker_metrics.scoring.components import Component, component_names, families, standard_components
from attacker_metrics.scoring.pair import Pair
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Normalize, SquaredPearson, check_floating


def multi_attacker_privacy_loss(
    noisy_01: Tensor,
    clean_01: Tensor,
    *,
    gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
    blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
    wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
    compute_ms_ssim: bool = True,
    compute_pearson: bool = True,
    betas: Sequence[float] = DEFAULT_BETAS,
) -> dict[str, Tensor]:
    """How much of the clean images each attacker still reads out of the noisy ones; minimise it to train a cloak.

    Args:
        noisy_01: noisy images ``(B, 3, H, W)``, floating, denormalised to the scale of the clean ones; may leave [0, 1].
        clean_01: clean images in [0, 1], same shape and device.
        gamma_values: exponents of the gamma attacker, one or more, each > 0.
        blur_sigma: standard deviation of the blur attacker in pixels, > 0.
        wavelet_threshold: soft threshold of the wavelet attacker, >= 0.
        compute_ms_ssim: whether to evaluate the nine MS-SSIM components and their mean.
        compute_pearson: whether to evaluate the six squared-Pearson components and their mean.
        betas: MS-SSIM's exponents, one per scale; the smaller side must be at least ``11 * 2 ** (len(betas) - 1)``
            pixels: 11, 22, 44, 88, 176 for one to five.

    Returns:
        Scalars in [0, 1], batch means in the promoted dtype of the inputs, lower = more private: the nine MS-SSIM
        components, the six squared Pearsons, ``ms_ssim`` and ``pearson`` (equal-weight means), in this order. A family
        that is switched off leaves no key. If any pixel is NaN or infinite, every value is 0 with zero gradients and one
        :class:`~attacker_metrics.AttackerMetricsWarning` is issued (for images on a GPU with a later call, because the
        device is not waited for); :func:`multi_attacker_scores` tells which image.

    Raises:
        TypeError: for tensors that are not float16, bfloat16, float32 or float64.
        ValueError: for other shapes, an empty batch, images too small, settings out of range, both families off.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 176, 176)
        >>> noisy = (1 - clean).requires_grad_()  # inverted: no secret to any attacker who knows r^2
        >>> loss = multi_attacker_privacy_loss(noisy, clean)
        >>> print(f"{loss['rgb_clamp']:.2f} {loss['sobel_gray']:.2f} {loss['pearson_rgb']:.2f}")
        0.00 1.00 1.00
        >>> (loss["ms_ssim"] + loss["pearson"]).backward()
    """
    pair, scores, names = _evaluate(
        noisy_01, clean_01, gamma_values, blur_sigma, wavelet_threshold, compute_ms_ssim, compute_pearson, betas
    )
    return means_or_zeros(pair, scores, names, pair.dtype)


def multi_attacker_scores(
    noisy_01: Tensor,
    clean_01: Tensor,
    *,
    gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
    blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
    wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
    compute_ms_ssim: bool = True,
    compute_pearson: bool = True,
    betas: Sequence[float] = DEFAULT_BETAS,
) -> dict[str, Tensor]:
    """The values of :func:`multi_attacker_privacy_loss` for every image of the batch instead of their mean.

    Args:
        noisy_01: noisy images ``(B, 3, H, W)``; may leave [0, 1].
        clean_01: clean images in [0, 1], same shape and device.
        gamma_values: as in the loss.
        blur_sigma: as in the loss.
        wavelet_threshold: as in the loss.
        compute_ms_ssim: as in the loss.
        compute_pearson: as in the loss.
        betas: as in the loss.

    Returns:
        The loss's keys in its order, each ``(B,)`` in [0, 1], higher = leaks more, differentiable. A pair with a pixel
        that is NaN or infinite scores NaN with zero gradient; the other images keep their scores.

    Raises:
        TypeError: as the loss.
        ValueError: as the loss.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 176, 176)
        >>> multi_attacker_scores(clean, clean, compute_pearson=False)["blur_gray"].round(decimals=4)
        tensor([1., 1.])
    """
    pair, scores, names = _evaluate(
        noisy_01, clean_01, gamma_values, blur_sigma, wavelet_threshold, compute_ms_ssim, compute_pearson, betas
    )
    if pair.device.type == "cpu":
        pair.warn_of_convention()
    of_families = [scores[:, members].mean(dim=1, keepdim=True) for members in families(names).values()]
    columns = torch.cat([scores, *of_families], dim=1).to(pair.dtype)
    return {name: columns[:, k] for k, name in enumerate((*names, *families(names)))}


def pearson_sq_mean(pred: Tensor, target: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Squared Pearson correlation of every item of a batch with its target, averaged over the batch.

    Args:
        pred: ``(B, ...)``, any shape and range.
        target: the same shape and device.
        eps: floor of the product of the two variances, > 0; see :class:`~attacker_metrics.SquaredPearson`.

    Returns:
        A scalar in [0, 1] in the promoted dtype, higher = leaks more; NaN if an input holds a NaN.

    Raises:
        TypeError: for tensors that are not floating.
        ValueError: if the shapes or devices differ, the batch is empty, there is no dimension besides the batch, or
            ``eps`` is not positive.

    Example:
        >>> import torch
        >>> x = torch.rand(4, 10)
        >>> print(f"{pearson_sq_mean(3 - 2 * x, x):.4f}")
        1.0000
    """
    similarity = SquaredPearson(eps)
    check_floating(pred, target)
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have the same shape, got {tuple(pred.shape)} and {tuple(target.shape)}.")
    if pred.device != target.device:
        raise ValueError(f"pred and target must be on the same device, got {pred.device} and {target.device}.")
    if pred.ndim < 2 or pred.numel() == 0:
        raise ValueError(f"pred must have shape (B, ...) with B >= 1 and values to correlate, got {tuple(pred.shape)}.")
    dtype = torch.promote_types(pred.dtype, target.dtype)
    return similarity(pred, target).mean().to(dtype)


def safe_ms_ssim(
    pred: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    normalize: Normalize = "relu",
    betas: Sequence[float] = DEFAULT_BETAS,
) -> Tensor:
    """MS-SSIM averaged over the batch, equal to torchmetrics', with gradients that are finite everywhere.

    Args:
        pred: images ``(B, C, H, W)``, any number of channels.
        target: the same shape and device.
        data_range: span of the pixel values, > 0.
        normalize: ``"relu"``, ``"simple"``, ``"fold"`` or ``None``; see :class:`~attacker_metrics.MSSSIM`. With
            ``None`` an image with a negative term has no MS-SSIM; the result is then 0 with a warning, as below.
        betas: the exponents, one per scale; the smaller side must be at least ``11 * 2 ** (len(betas) - 1)`` pixels.

    Returns:
        A scalar in [0, 1] in the dtype of ``pred``, higher = leaks more. If any pixel is NaN or infinite it is 0 with zero
        gradients, and one :class:`~attacker_metrics.AttackerMetricsWarning` is issued, on a GPU with a later call.

    Raises:
        TypeError: for tensors that are not floating.
        ValueError: for other shapes, an empty batch, images too small, or settings out of range.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 1, 176, 176)
        >>> safe_ms_ssim(x, x).round(decimals=4)
        tensor(1.)
    """
    similarity = MSSSIM(betas, data_range, normalize)  # type: ignore[arg-type]
    pair = Pair(pred, target, channels=None)
    scores = pair.score(Component("ms_ssim", similarity))
    return means_or_zeros(pair, scores[:, None], ["ms_ssim"], pred.dtype, any_scale=True)["ms_ssim"]


def _evaluate(
    noisy: Tensor,
    clean: Tensor,
    gamma_values: Sequence[float],
    blur_sigma: float,
    wavelet_threshold: float,
    compute_ms_ssim: bool,
    compute_pearson: bool,
    betas: Sequence[float],
) -> tuple[Pair, Tensor, tuple[str, ...]]:
    """The pair, its scores ``(B, components)``, and the components' names."""
    names = component_names(compute_ms_ssim=compute_ms_ssim, compute_pearson=compute_pearson)
    table = standard_components(
        gamma_values=gamma_values, blur_sigma=blur_sigma, wavelet_threshold=wavelet_threshold, betas=betas
    )
    pair = Pair(noisy, clean)
    return pair, pair.scores_side_by_side([table[name] for name in names]), names


def means_or_zeros(
    pair: Pair, scores: Tensor, names: Sequence[str], dtype: torch.dtype, *, any_scale: bool = False
) -> dict[str, Tensor]:
    """Batch means of components' scores ``(B, components)``, then of their families; all 0 unless all images are finite.

    The zeros have an intact graph with zero gradients, and come with a warning.

    Args:
        pair: what was scored.
        scores: NaN where an image is not finite.
        names: of the components.
        dtype: of the means.
        any_scale: whether the images may have any scale and normalisation of MS-SSIM's terms; then a score that has no
            real value counts as an image that is not finite.
    """
    usable = scores.detach().isfinite().all(dim=1) if any_scale else pair.finite
    if not torch.compiler.is_compiling():
        with at_most_one_warning():
            warn_unless(
                pair.finite,
                "{} of {} pairs of images hold NaN or infinite pixels: the result is 0 with zero gradients, which"
                " does not mean that nothing leaks. multi_attacker_scores tells which pairs.",
            )
            if any_scale:
                warn_unless(
                    usable | ~pair.finite,
                    "{} of {} pairs of images have a negative MS-SSIM term, which has no real power under normalize=None:"
                    " the result is 0 with zero gradients. Pass normalize='relu', 'simple' or 'fold'.",
                )
            elif pair.device.type == "cpu":
                pair.warn_of_convention()
    means = families(names)
    values = batch_means(scores, usable.all(), tuple(means.values()), dtype)
    return dict(zip((*names, *means), values, strict=True))
