from ._version import __version__ as __version__
from ._warnings import (
    AttackerMetricsWarning as AttackerMetricsWarning,
)
from .attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES as DEFAULT_GAMMA_ATTACK_VALUES,
)
from .attackers.standard import (
    DEFAULT_GAUSSIAN_BLUR_SIGMA as DEFAULT_GAUSSIAN_BLUR_SIGMA,
)
from .attackers.standard import (
    DEFAULT_WAVELET_SOFT_THRESHOLD as DEFAULT_WAVELET_SOFT_THRESHOLD,
)
from .engine.backends import (
    backend as backend,
)
from .engine.native import (
    build_native as build_native,
)
from .metrics.attacker_metric import (
    AttackerMetric as AttackerMetric,
)
from .metrics.attacker_metric import (
    NonFiniteImageError as NonFiniteImageError,
)
from .metrics.collection import (
    MultiAttackerPrivacy as MultiAttackerPrivacy,
)
from .metrics.standard import (
    BlurMSSSIM as BlurMSSSIM,
)
from .metrics.standard import (
    BlurPearson as BlurPearson,
)
from .metrics.standard import (
    GammaMSSSIM as GammaMSSSIM,
)
from .metrics.standard import (
    GammaPearson as GammaPearson,
)
from .metrics.standard import (
    GrayClampMSSSIM as GrayClampMSSSIM,
)
from .metrics.standard import (
    GrayMinMaxMSSSIM as GrayMinMaxMSSSIM,
)
from .metrics.standard import (
    GrayPearson as GrayPearson,
)
from .metrics.standard import (
    MeanMSSSIM as MeanMSSSIM,
)
from .metrics.standard import (
    MeanPearson as MeanPearson,
)
from .metrics.standard import (
    RGBClampMSSSIM as RGBClampMSSSIM,
)
from .metrics.standard import (
    RGBMinMaxMSSSIM as RGBMinMaxMSSSIM,
)
from .metrics.standard import (
    RGBPearson as RGBPearson,
)
from .metrics.standard import (
    SobelMSSSIM as SobelMSSSIM,
)
from .metrics.standard import (
    SobelPearson as SobelPearson,
)
from .metrics.standard import (
    StandardizeMSSSIM as StandardizeMSSSIM,
)
from .metrics.standard import (
    WaveletMSSSIM as WaveletMSSSIM,
)
from .metrics.standard import (
    WaveletPearson as WaveletPearson,
)
from .scoring.components import (
    MS_SSIM_COMPONENT_NAMES as MS_SSIM_COMPONENT_NAMES,
)
from .scoring.components import (
    PEARSON_COMPONENT_NAMES as PEARSON_COMPONENT_NAMES,
)
from .scoring.components import (
    Component as Component,
)
from .scoring.components import (
    standard_components as standard_components,
)
from .scoring.functional import (
    multi_attacker_privacy_loss as multi_attacker_privacy_loss,
)
from .scoring.functional import (
    multi_attacker_scores as multi_attacker_scores,
)
from .scoring.functional import (
    pearson_sq_mean as pearson_sq_mean,
)
from .scoring.functional import (
    safe_ms_ssim as safe_ms_ssim,
)
from .scoring.loss import (
    MultiAttackerPrivacyLoss as MultiAttackerPrivacyLoss,
)
from .scoring.loss import (
    PreparedClean as PreparedClean,
)
from .scoring.pair import (
    Pair as Pair,
)
from .scoring.regularized_loss import (
    PrivacyRegularizedLoss as PrivacyRegularizedLoss,
)
from .scoring.similarity import (
    DEFAULT_BETAS as DEFAULT_BETAS,
)
from .scoring.similarity import (
    MSSSIM as MSSSIM,
)
from .scoring.similarity import (
    SquaredPearson as SquaredPearson,
)

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
