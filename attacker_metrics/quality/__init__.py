"""Picture quality of reconstructions: torchmetrics' MSE, PSNR, SSIM, LPIPS and FID, with the leakage they stand for.

Which of them means more leakage when it is higher, their ranges and inputs are the table
:data:`attacker_metrics.metrics.METRIC_FACTS`. Every class takes ``update(preds, target)``: reconstructions first,
originals in [0, 1] second, both ``(B, 3, H, W)`` floating. Reconstructions are clamped to [0, 1], as a viewer shows them.
"""

from attacker_metrics.quality.mean_over_images import MeanOverImages, check_reconstructions
from attacker_metrics.quality.metrics import (
    FID,
    LPIPS,
    MSE,
    PSNR,
    QUALITY_METRICS,
    SSIM,
    ReconstructionQuality,
    quality_scores,
)

__all__ = [
    "FID",
    "LPIPS",
    "MSE",
    "PSNR",
    "QUALITY_METRICS",
    "SSIM",
    "MeanOverImages",
    "ReconstructionQuality",
    "check_reconstructions",
    "quality_scores",
]
