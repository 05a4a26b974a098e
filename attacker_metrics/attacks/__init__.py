"""Attacks that reconstruct images from the gradients that clients of federated learning share."""

from attacker_metrics.attacks.closed_form import first_layer_closed_form
from attacker_metrics.attacks.inversion import GradientInversion, Reconstruction
from attacker_metrics.attacks.labels import infer_labels
from attacker_metrics.attacks.methods import ATTACKS, DLG, IDLG, GradInversion, InvertingGradients
from attacker_metrics.attacks.networks import ConvNet, Normalize, SigmoidLeNet
from attacker_metrics.attacks.sharing import SharedGradients, share_gradients
from attacker_metrics.attacks.threat_model import ThreatModel, digest

__all__ = [
    "ATTACKS",
    "DLG",
    "IDLG",
    "ConvNet",
    "GradInversion",
    "GradientInversion",
    "InvertingGradients",
    "Normalize",
    "Reconstruction",
    "SharedGradients",
    "SigmoidLeNet",
    "ThreatModel",
    "digest",
    "first_layer_closed_form",
    "infer_labels",
    "share_gradients",
]
