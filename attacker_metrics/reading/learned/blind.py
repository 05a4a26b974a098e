"""Attackers that have the sent pictures alone, as components: no pair, no key, nothing of the original."""

from __future__ import annotations

from collections.abc import Sequence

from attacker_metrics.attackers import luma
from attacker_metrics.reading.learned.denoising import Denoise
from attacker_metrics.reading.learned.jigsaw import Assemble
from attacker_metrics.scoring.components import Component
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, SquaredPearson


def blind_components(*, betas: Sequence[float] = DEFAULT_BETAS) -> dict[str, Component]:
    """Denoising by the noise that the picture itself shows, and assembling shuffled blocks by their borders.

    Args:
        betas: MS-SSIM's exponents, one per scale.

    Returns:
        MS-SSIM and squared Pearson of luma by name: for :class:`~attacker_metrics.AttackerMetric`, beside a suite.

    Raises:
        ValueError: if a beta is not positive.

    Example:
        >>> list(blind_components())
        ['denoise_gray', 'assemble_gray', 'pearson_denoise', 'pearson_assemble']
    """
    ms_ssim, pearson = MSSSIM(tuple(betas)), SquaredPearson()
    rows = (
        Component("denoise_gray", ms_ssim, (luma, Denoise()), (luma,), undoes="noise"),
        Component("assemble_gray", ms_ssim, (Assemble(), luma), (luma,), undoes="shuffled blocks"),
        Component("pearson_denoise", pearson, (luma, Denoise()), (luma,), undoes="noise"),
        Component("pearson_assemble", pearson, (Assemble(), luma), (luma,), undoes="shuffled blocks"),
    )
    return {row.name: row for row in rows}
