"""The metric classes: one per component, and two means.

Every class takes ``update(preds, target)`` with noisy images first and clean originals second, both ``(B, 3, H, W)`` and
floating; the originals lie in [0, 1]. ``compute()`` is the mean score of all images seen, a float32 scalar in [0, 1], higher
= leaks more. State, errors and ``nan_strategy`` are those of :class:`attacker_metrics.AttackerMetric`; formulas and sources
stand in :mod:`attacker_metrics.attackers` and :mod:`attacker_metrics.scoring.similarity`; which attacker acts on which side
is the table in :mod:`attacker_metrics.scoring.components`. Arguments of the classes, each where it applies:

- ``gamma_values``: exponents of the gamma attacker, one or more, each > 0;
- ``blur_sigma``: standard deviation of the blur attacker in pixels, > 0; both sides must exceed ``ceil(3 * blur_sigma)``;
- ``wavelet_threshold``: soft threshold of the wavelet attacker, >= 0;
- ``betas``: MS-SSIM's exponents, one per scale; the smaller side must be at least ``11 * 2 ** (len(betas) - 1)`` pixels:
  11, 22, 44, 88, 176 for one to five;
- ``nan_strategy``: ``"warn"``, ``"ignore"`` or ``"error"`` about pairs with NaN or infinite pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from attacker_metrics.attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
)
from attacker_metrics.metrics.attacker_metric import AttackerMetric, NanStrategy
from attacker_metrics.scoring.components import MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES, standard_components
from attacker_metrics.scoring.similarity import DEFAULT_BETAS


class _PlainMSSSIM(AttackerMetric):
    """An MS-SSIM component whose attacker has no setting."""

    _component: ClassVar[str]

    def __init__(self, betas: Sequence[float] = DEFAULT_BETAS, nan_strategy: NanStrategy = "warn", **kwargs: Any) -> None:
        super().__init__(standard_components(betas=betas)[self._component], nan_strategy=nan_strategy, **kwargs)


class _PlainPearson(AttackerMetric):
    """A squared-Pearson component whose attacker has no setting."""

    _component: ClassVar[str]

    def __init__(self, nan_strategy: NanStrategy = "warn", **kwargs: Any) -> None:
        super().__init__(standard_components()[self._component], nan_strategy=nan_strategy, **kwargs)


class RGBClampMSSSIM(_PlainMSSSIM):
    """MS-SSIM of the colour picture as a viewer shows it, ``clamp(noisy)`` against ``clean``.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = RGBClampMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "rgb_clamp"


class RGBMinMaxMSSSIM(_PlainMSSSIM):
    """MS-SSIM after stretching the raw colour picture to [0, 1], ``minmax(noisy)`` against ``clean``.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = RGBMinMaxMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "rgb_minmax"


class GrayClampMSSSIM(_PlainMSSSIM):
    """MS-SSIM of the clamped luma.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = GrayClampMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "gray_clamp"


class GrayMinMaxMSSSIM(_PlainMSSSIM):
    """MS-SSIM after stretching the raw luma to [0, 1], against the clean luma.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> clean[:, :, 0, :2] = torch.tensor([0.0, 1.0])  # spans [0, 1], so that the stretch changes nothing
        >>> metric = GrayMinMaxMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "gray_minmax"


class SobelMSSSIM(_PlainMSSSIM):
    """MS-SSIM of the min-max-stretched edge maps of the raw luma; blind to inversion.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = SobelMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "sobel_gray"


class BlurMSSSIM(AttackerMetric):
    """MS-SSIM of the blurred clamped luma: what stays when fine-grained noise averages out.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = BlurMSSSIM(blur_sigma=1.0, betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(blur_sigma=blur_sigma, betas=betas)
        super().__init__(table["blur_gray"], nan_strategy=nan_strategy, **kwargs)


class StandardizeMSSSIM(_PlainMSSSIM):
    """MS-SSIM of the sigmoids of the z-scored raw luma; blind to brightness and contrast.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = StandardizeMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "standardize_gray"


class GammaMSSSIM(AttackerMetric):
    """Mean over ``gamma_values`` of the MS-SSIM of the clamped luma under that tone curve, on both sides.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = GammaMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(gamma_values=gamma_values, betas=betas)
        super().__init__(table["gamma_gray"], nan_strategy=nan_strategy, **kwargs)


class WaveletMSSSIM(AttackerMetric):
    """MS-SSIM of the clamped luma after Haar wavelet denoising.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = WaveletMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(wavelet_threshold=wavelet_threshold, betas=betas)
        super().__init__(table["wavelet_gray"], nan_strategy=nan_strategy, **kwargs)


class MeanMSSSIM(AttackerMetric):
    """Mean of the nine MS-SSIM components, equal weights; ``collapsed`` counts images where at least one of them is 0.

    Identical pictures score below 1 unless they span [0, 1], because of the two min-max components.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 22, 22)
        >>> metric = MeanMSSSIM(betas=(0.5, 0.5))
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
        blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
        wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(
            gamma_values=gamma_values,
            blur_sigma=blur_sigma,
            wavelet_threshold=wavelet_threshold,
            betas=betas,
        )
        components = (table[name] for name in MS_SSIM_COMPONENT_NAMES)
        super().__init__(*components, name="ms_ssim", nan_strategy=nan_strategy, **kwargs)


class RGBPearson(_PlainPearson):
    """Squared Pearson of the clamped colour values, all channels in one correlation.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = RGBPearson()
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "pearson_rgb"


class GrayPearson(_PlainPearson):
    """Squared Pearson of the clamped luma.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = GrayPearson()
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "pearson_gray"


class SobelPearson(_PlainPearson):
    """Squared Pearson of the edge maps of the raw luma.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = SobelPearson()
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    _component = "pearson_sobel"


class BlurPearson(AttackerMetric):
    """Squared Pearson of the blurred clamped luma.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = BlurPearson(blur_sigma=1.0)
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(blur_sigma=blur_sigma)
        super().__init__(table["pearson_blur"], nan_strategy=nan_strategy, **kwargs)


class GammaPearson(AttackerMetric):
    """Mean over ``gamma_values`` of the squared Pearson of the clamped luma under that tone curve.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = GammaPearson()
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(gamma_values=gamma_values)
        super().__init__(table["pearson_gamma"], nan_strategy=nan_strategy, **kwargs)


class WaveletPearson(AttackerMetric):
    """Squared Pearson of the clamped luma after Haar wavelet denoising.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = WaveletPearson()
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(wavelet_threshold=wavelet_threshold)
        super().__init__(table["pearson_wavelet"], nan_strategy=nan_strategy, **kwargs)


class MeanPearson(AttackerMetric):
    """Mean of the six squared-Pearson components, equal weights.

    Example:
        >>> import torch
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> metric = MeanPearson()
        >>> metric.update(clean, clean)
        >>> print(f"{metric.compute():.2f}")
        1.00
    """

    def __init__(
        self,
        gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
        blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
        wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
        nan_strategy: NanStrategy = "warn",
        **kwargs: Any,
    ) -> None:
        table = standard_components(
            gamma_values=gamma_values,
            blur_sigma=blur_sigma,
            wavelet_threshold=wavelet_threshold,
        )
        components = (table[name] for name in PEARSON_COMPONENT_NAMES)
        super().__init__(*components, name="pearson", nan_strategy=nan_strategy, **kwargs)
