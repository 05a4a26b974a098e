"""Pairs of batches -> scores per image, means, and losses to train against.

In: noisy and clean images ``(B, 3, H, W)``. Out: one number per image and component, differentiable. ``components`` is the
table of which views are compared, ``similarity`` how; ``pair`` makes every view once; ``functional`` and ``loss`` are the
public faces; ``suites`` are frozen choices of components.
"""

from attacker_metrics.scoring.components import (
    MS_SSIM_COMPONENT_NAMES,
    PEARSON_COMPONENT_NAMES,
    SPEC_VERSION,
    Component,
    component_names,
    standard_components,
)
from attacker_metrics.scoring.functional import (
    multi_attacker_privacy_loss,
    multi_attacker_scores,
    pearson_sq_mean,
    safe_ms_ssim,
)
from attacker_metrics.scoring.loss import MultiAttackerPrivacyLoss, PreparedClean
from attacker_metrics.scoring.pair import Pair
from attacker_metrics.scoring.regularized_loss import PrivacyRegularizedLoss
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Similarity, SquaredPearson, betas_for
from attacker_metrics.scoring.suites import STANDARD_V1, SUITES, Suite, added_components

__all__ = [
    "DEFAULT_BETAS",
    "MSSSIM",
    "MS_SSIM_COMPONENT_NAMES",
    "PEARSON_COMPONENT_NAMES",
    "SPEC_VERSION",
    "STANDARD_V1",
    "SUITES",
    "Component",
    "MultiAttackerPrivacyLoss",
    "Pair",
    "PreparedClean",
    "PrivacyRegularizedLoss",
    "Similarity",
    "SquaredPearson",
    "Suite",
    "added_components",
    "betas_for",
    "component_names",
    "multi_attacker_privacy_loss",
    "multi_attacker_scores",
    "pearson_sq_mean",
    "safe_ms_ssim",
    "standard_components",
]
