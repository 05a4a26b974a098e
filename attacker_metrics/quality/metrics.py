"""Picture quality of reconstructions: torchmetrics' MSE, PSNR, SSIM, LPIPS and FID, with the leakage they stand for.

Which of them means more leakage when it is higher, their ranges and inputs are the table
:data:`attacker_metrics.metrics.METRIC_FACTS`. Every class takes ``update(preds, target)``: reconstructions first,
originals in [0, 1] second, both ``(B, 3, H, W)`` floating. Reconstructions are clamped to [0, 1], as a viewer shows them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.regression import MeanSquaredError

from attacker_metrics._extras import missing_extra
from attacker_metrics._warnings import warn
from attacker_metrics.metrics.leakage_direction import METRIC_FACTS, Direction, leakage_direction
from attacker_metrics.quality.mean_over_images import MeanOverImages, check_reconstructions

QUALITY_METRICS = ("mse", "psnr", "ssim", "lpips", "fid")


class MSE(MeanSquaredError):  # noqa: N818 - an error of pictures
    """torchmetrics' mean squared error over all pixels, in [0, 1]. Lower = leaks more.

    Example:
        >>> original = torch.full((1, 3, 16, 16), 0.5)
        >>> metric = MSE()
        >>> metric.update(original + 0.1, original)
        >>> round(float(metric.compute()), 4)
        0.01
    """

    leakage_direction: Direction = METRIC_FACTS["mse"].leakage_direction

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        check_reconstructions(preds, target)
        if len(preds) > 0:
            super().update(preds.clamp(0, 1).contiguous(), target.contiguous())


class PSNR(PeakSignalNoiseRatio):
    """torchmetrics' peak signal-to-noise ratio in dB of the squared error pooled over all images. Higher = leaks more.

    One identical image does not make it infinite; it is if all are. :func:`quality_scores` has the value per image.

    Example:
        >>> original = torch.full((1, 3, 16, 16), 0.5)
        >>> metric = PSNR()
        >>> metric.update(original + 0.1, original)
        >>> round(float(metric.compute()), 2)
        20.0
    """

    leakage_direction: Direction = METRIC_FACTS["psnr"].leakage_direction

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(data_range=1.0, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        check_reconstructions(preds, target)
        if len(preds) > 0:
            super().update(preds.clamp(0, 1), target)


class SSIM(StructuralSimilarityIndexMeasure):
    """torchmetrics' structural similarity, mean over images, in [-1, 1]. Higher = leaks more.

    Every pixel counts, borders are mirrored; scikit-image leaves five rows and columns at each border out.

    Example:
        >>> original = torch.rand(1, 3, 16, 16)
        >>> metric = SSIM()
        >>> metric.update(original, original)
        >>> round(float(metric.compute()), 4)
        1.0
    """

    leakage_direction: Direction = METRIC_FACTS["ssim"].leakage_direction

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(data_range=1.0, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        check_reconstructions(preds, target)
        if len(preds) > 0:
            _check_window(preds)
            super().update(preds.clamp(0, 1), target)


class LPIPS(MeanOverImages):
    """Learned perceptual image patch similarity, mean over images, from 0. Lower = leaks more.

    Args:
        network: ``(reconstruction, original), both in [-1, 1] -> distances`` of ``B`` elements. By default torchmetrics'
            AlexNet version, whose ImageNet weights torchvision must have in its cache already: nothing is downloaded here.
        kwargs: torchmetrics' own keywords.

    Raises:
        ModuleNotFoundError: without torchvision, naming the extra.
        FileNotFoundError: without AlexNet's weights, naming the file and where it belongs.

    Example:
        >>> class PixelDistance(torch.nn.Module):
        ...     def forward(self, a, b):
        ...         return (a - b).abs().mean(dim=(1, 2, 3))
        >>> metric = LPIPS(PixelDistance())
        >>> metric.update(torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
        >>> float(metric.compute())  # black and white are 2 apart in [-1, 1]
        2.0

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018).
    """

    higher_is_better = False
    leakage_direction: Direction = METRIC_FACTS["lpips"].leakage_direction
    plot_lower_bound = 0.0

    def __init__(self, network: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(_alexnet_lpips() if network is None else network, **kwargs)

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        """The distance of every image, ``(B,)``."""
        distances: Tensor = self.network(2 * preds.clamp(0, 1) - 1, 2 * target - 1)
        return distances.reshape(len(preds))


class FID(FrechetInceptionDistance):
    """torchmetrics' Fréchet inception distance between the set of reconstructions and that of originals. Lower = leaks more.

    A number of the whole set: it compares distributions, not pairs, and says nothing about single images; ``forward``
    returns NaN for a batch. It counts every image it sees and cannot leave any out.

    Args:
        features: a module ``(B, 3, H, W) in [0, 1] -> (B, D)``, or one of torchmetrics' Inception feature sizes 64, 192,
            768, 2048.
        weights: file of the Inception weights of torch-fidelity; needed with a feature size, as nothing is downloaded here.
        kwargs: torchmetrics' own keywords.

    Raises:
        ModuleNotFoundError: for a feature size without torch-fidelity, naming the extra.
        ValueError: for a feature size without weights.

    Example:
        >>> class Colours(torch.nn.Module):
        ...     num_features = 3
        ...     def forward(self, images):
        ...         return images.mean(dim=(2, 3))
        >>> metric = FID(Colours())
        >>> originals = torch.rand(8, 3, 16, 16)
        >>> metric.update(originals, originals)
        >>> abs(round(float(metric.compute()), 4))
        0.0

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (NeurIPS 2017).
    """

    leakage_direction: Direction = METRIC_FACTS["fid"].leakage_direction

    def __init__(
        self, features: int | nn.Module = 2048, weights: str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(features, nn.Module):
            if importlib.util.find_spec("torch_fidelity") is None:
                raise missing_extra(
                    "FID's Inception network needs torch-fidelity",
                    "quality",
                    ModuleNotFoundError(name="torch_fidelity"),
                    instead="or pass a module as features",
                )
            if weights is None or not Path(weights).is_file():
                raise ValueError(
                    f"FID's Inception network needs its weights, got {weights!r}; pass torch-fidelity's"
                    " weights-inception-2015-12-05-6726825d.pth as weights=FILE, or a module as features."
                )
        super().__init__(
            feature=features,
            normalize=True,
            feature_extractor_weights_path=None if weights is None else os.fspath(weights),
            **kwargs,
        )

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Add a batch."""
        check_reconstructions(preds, target)
        if len(preds) > 0:
            super().update(preds.clamp(0, 1), real=False)
            super().update(target, real=True)

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Add a batch; returns NaN, as a batch has no FID of its own."""
        self.update(preds, target)
        return torch.full((), torch.nan)

    def compute(self) -> Tensor:
        """The distance, float scalar >= 0 but for rounding; warns with fewer images than features."""
        count, dimensions = int(self.fake_features_num_samples), len(self.fake_features_sum)
        if count < 2:
            raise ValueError(f"FID needs at least 2 images, better thousands; it has seen {count}.")
        if count <= dimensions:
            warn(
                f"FID of {count} images with {dimensions} features: the covariances are singular and the value depends on"
                f" the number of images. Compare it only with others of exactly {count} images, or pass smaller features."
            )
        value: Tensor = super().compute()
        return value


class ReconstructionQuality(MetricCollection):
    """Quality metrics of reconstructions as one ``MetricCollection``, each with its declared direction of leakage.

    Args:
        metrics: which of ``"mse"``, ``"psnr"``, ``"ssim"``, ``"lpips"``, ``"fid"``; the first three need neither
            torchvision nor weights.
        lpips_network: see :class:`LPIPS`.
        fid_features: see :class:`FID`.
        fid_weights: see :class:`FID`.
        extra: further metrics on (reconstruction, original) that declare a ``leakage_direction``: any of this library's,
            such as ``{"blur_gray": BlurMSSSIM()}`` or a :class:`~attacker_metrics.semsim.SemSim`.
        prefix: put before every key.
        postfix: put after every key.

    Raises:
        ValueError: for unknown names, an ``extra`` whose name is taken or whose direction is undeclared.
        ModuleNotFoundError: if something that LPIPS or FID needs is missing, naming the extra.

    Example:
        >>> from attacker_metrics import BlurMSSSIM
        >>> quality = ReconstructionQuality(("mse", "psnr"), extra={"blur_gray": BlurMSSSIM(betas=(0.5, 0.5))})
        >>> original = torch.rand(2, 3, 32, 32)
        >>> quality.update(0.9 * original, original)
        >>> list(quality.compute()), quality.leakage_directions
        (['mse', 'psnr', 'blur_gray'], {'mse': 'lower', 'psnr': 'higher', 'blur_gray': 'higher'})
    """

    def __init__(
        self,
        metrics: Sequence[str] = QUALITY_METRICS,
        *,
        lpips_network: nn.Module | None = None,
        fid_features: int | nn.Module = 2048,
        fid_weights: str | os.PathLike[str] | None = None,
        extra: Mapping[str, Metric] | None = None,
        prefix: str | None = None,
        postfix: str | None = None,
    ) -> None:
        makers: dict[str, Callable[[], Metric]] = {
            "mse": MSE,
            "psnr": PSNR,
            "ssim": SSIM,
            "lpips": lambda: LPIPS(lpips_network),
            "fid": lambda: FID(fid_features, fid_weights),
        }
        super().__init__({}, prefix=prefix, postfix=postfix, compute_groups=False)
        for name in metrics:
            if name not in makers:
                raise ValueError(
                    f"no quality metric is called {name!r}; there are {', '.join(makers)}, others go into extra."
                )
            self.add_metrics({name: makers[name]()})
        for name, metric in (extra or {}).items():
            if name in self._modules:
                raise ValueError(f"extra: the name {name!r} is taken.")
            leakage_direction(metric)  # raises if it declares none
            self.add_metrics({name: metric})

    @property
    def leakage_directions(self) -> dict[str, Direction]:
        """Key -> ``"higher"`` or ``"lower"``, what means more leakage."""
        return {str(name): leakage_direction(metric) for name, metric in self.items(copy_state=False)}


def quality_scores(preds: Tensor, target: Tensor, *, lpips_network: nn.Module | None = None) -> dict[str, Tensor]:
    """MSE, PSNR, SSIM and, with a network, LPIPS of every image.

    Args:
        preds: reconstructions ``(B, 3, H, W)``, floating; clamped to [0, 1].
        target: originals in [0, 1], same shape and device.
        lpips_network: see :class:`LPIPS`.

    Returns:
        ``"mse"``, ``"psnr"`` (infinite for identical images), ``"ssim"`` and ``"lpips"`` -> ``(B,)``. Directions are those
        of :data:`attacker_metrics.metrics.METRIC_FACTS`.

    Raises:
        ValueError: as :func:`attacker_metrics.quality.check_reconstructions`, for an empty batch, and for images
            smaller than 6 x 6.

    Example:
        >>> original = torch.full((1, 3, 16, 16), 0.5)
        >>> {name: round(float(score), 2) for name, score in quality_scores(original + 0.1, original).items()}
        {'mse': 0.01, 'psnr': 20.0, 'ssim': 0.98}
    """
    check_reconstructions(preds, target)
    if len(preds) == 0:
        raise ValueError("the batch is empty.")
    _check_window(preds)
    shown = preds.clamp(0, 1)
    mse = (shown - target).square().flatten(1).mean(dim=1)
    ssim = structural_similarity_index_measure(shown, target, data_range=1.0, reduction="none")
    scores = {"mse": mse, "psnr": -10 * mse.log10(), "ssim": torch.as_tensor(ssim).reshape(len(preds))}
    if lpips_network is not None:
        scores["lpips"] = lpips_network(2 * shown - 1, 2 * target - 1).reshape(len(preds))
    return scores


def _check_window(images: Tensor) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < 6:
        raise ValueError(f"images are {height} x {width}; SSIM, whose window mirrors 5 pixels at each border, needs 6 x 6.")


def _alexnet_lpips() -> nn.Module:
    if importlib.util.find_spec("torchvision") is None:
        raise missing_extra(
            "LPIPS needs torchvision",
            "quality",
            ModuleNotFoundError(name="torchvision"),
            instead="or pass a network of your own",
        )
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    file = AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / file).is_file():
        raise FileNotFoundError(f"LPIPS needs AlexNet's weights {file} in {folder}; put them there or pass a network.")
    return LearnedPerceptualImagePatchSimilarity("alex").net
