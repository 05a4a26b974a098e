"""Reconstructions and the exact views that were attacked -> every metric's score per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.quality.metrics import LPIPS, quality_scores
from attacker_metrics.scoring.functional import multi_attacker_scores


@torch.no_grad()
def score(
    reconstructions: Tensor, views: Tensor, *, betas: Sequence[float], lpips: bool = False, semsim: Path | None = None
) -> dict[str, list[float]]:
    """The seventeen scores of :class:`~attacker_metrics.MultiAttackerPrivacy`, MSE, PSNR, SSIM, and what is asked for.

    Args:
        reconstructions: ``(B, 3, S, S)``.
        views: what was attacked, in [0, 1], same shape.
        betas: MS-SSIM's exponents.
        lpips: add LPIPS.
        semsim: a SemSim checkpoint: add SemSim, at the size it was trained at.

    Returns:
        Metric -> ``B`` scores.

    Raises:
        ModuleNotFoundError: if an extra is missing, naming it.
        FileNotFoundError: without LPIPS' or SemSim's weights.
    """
    columns = multi_attacker_scores(reconstructions, views, betas=betas)
    columns |= quality_scores(reconstructions, views, lpips_network=LPIPS().network if lpips else None)
    if semsim is not None:
        from attacker_metrics.semsim import load_encoder
        from attacker_metrics.semsim import semsim as distance

        encoder = load_encoder(semsim)
        size = encoder.preprocessing.size
        preds, target = reconstructions.clamp(0, 1), views
        if size is not None and views.shape[-1] != size:
            preds, target = (_resized(images, size) for images in (preds, target))
        columns["semsim"] = distance(preds, target, encoder)
    return {name: values.double().tolist() for name, values in columns.items()}


def _resized(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
