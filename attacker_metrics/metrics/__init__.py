"""Scores over a whole data set: torchmetrics' ``Metric`` and ``MetricCollection``.

In: ``update(noisy, clean)``, batch after batch, on every rank. Out: ``compute()``, the same bits on all of them.
``attacker_metric`` is the base, ``standard`` the seventeen, ``collection`` all at once, ``synchronization`` one collective;
``identity`` says which metrics are the same, ``leakage_direction`` what every number means.
"""

from attacker_metrics.metrics.attacker_metric import AttackerMetric, NanStrategy, NonFiniteImageError
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.metrics.leakage_direction import METRIC_FACTS, Direction, MetricFacts, leakage_direction
from attacker_metrics.metrics.standard import (
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

__all__ = [
    "METRIC_FACTS",
    "AttackerMetric",
    "BlurMSSSIM",
    "BlurPearson",
    "Direction",
    "GammaMSSSIM",
    "GammaPearson",
    "GrayClampMSSSIM",
    "GrayMinMaxMSSSIM",
    "GrayPearson",
    "MeanMSSSIM",
    "MeanPearson",
    "MetricFacts",
    "MultiAttackerPrivacy",
    "NanStrategy",
    "NonFiniteImageError",
    "RGBClampMSSSIM",
    "RGBMinMaxMSSSIM",
    "RGBPearson",
    "SobelMSSSIM",
    "SobelPearson",
    "StandardizeMSSSIM",
    "WaveletMSSSIM",
    "WaveletPearson",
    "leakage_direction",
]
