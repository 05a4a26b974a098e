"""How much of a hidden picture can still be read out of what was sent: attackers, similarities, metrics, a loss."""

from attacker_metrics._warnings import AttackerMetricsWarning
from attacker_metrics.attacker_metric import AttackerMetric, NonFiniteImageError
from attacker_metrics.attackers import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
)
from attacker_metrics.backends import backend
from attacker_metrics.backends.native import build_native
from attacker_metrics.collection import MultiAttackerPrivacy
from attacker_metrics.components import MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES, Component, standard_components
from attacker_metrics.functional import (
    multi_attacker_privacy_loss,
    multi_attacker_scores,
    pearson_sq_mean,
    safe_ms_ssim,
)
from attacker_metrics.loss import MultiAttackerPrivacyLoss, PreparedClean
from attacker_metrics.metrics import (
    BlurMSSSIM,
    BlurPearson,
    GammaMSSSIM,
    GammaPearson,
    GrayClampMSSSIM,
    GrayMinMaxMSSSIM,
    GrayPearson,
    MeanMSSSIM,
    MeanPearson,
    RGBClampMSSSIM,
    RGBMinMaxMSSSIM,
    RGBPearson,
    SobelMSSSIM,
    SobelPearson,
    StandardizeMSSSIM,
    WaveletMSSSIM,
    WaveletPearson,
)
from attacker_metrics.pair import Pair
from attacker_metrics.regularized_loss import PrivacyRegularizedLoss
from attacker_metrics.similarity import DEFAULT_BETAS, MSSSIM, SquaredPearson

__version__ = "0.1.0"
__all__ = [
    "DEFAULT_BETAS",
    "DEFAULT_GAMMA_ATTACK_VALUES",
    "DEFAULT_GAUSSIAN_BLUR_SIGMA",
    "DEFAULT_WAVELET_SOFT_THRESHOLD",
    "MSSSIM",
    "MS_SSIM_COMPONENT_NAMES",
    "PEARSON_COMPONENT_NAMES",
    "AttackerMetric",
    "AttackerMetricsWarning",
    "BlurMSSSIM",
    "BlurPearson",
    "Component",
    "GammaMSSSIM",
    "GammaPearson",
    "GrayClampMSSSIM",
    "GrayMinMaxMSSSIM",
    "GrayPearson",
    "MeanMSSSIM",
    "MeanPearson",
    "MultiAttackerPrivacy",
    "MultiAttackerPrivacyLoss",
    "NonFiniteImageError",
    "Pair",
    "PreparedClean",
    "PrivacyRegularizedLoss",
    "RGBClampMSSSIM",
    "RGBMinMaxMSSSIM",
    "RGBPearson",
    "SobelMSSSIM",
    "SobelPearson",
    "SquaredPearson",
    "StandardizeMSSSIM",
    "WaveletMSSSIM",
    "WaveletPearson",
    "backend",
    "build_native",
    "multi_attacker_privacy_loss",
    "multi_attacker_scores",
    "pearson_sq_mean",
    "safe_ms_ssim",
    "standard_components",
]
