"""The published attacks: each a choice of cost, optimiser and priors for the one loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from attacker_metrics.attacks.costs import Cost, cosine_distance, layer_distances, squared_distance
from attacker_metrics.attacks.inversion import GradientInversion
from attacker_metrics.attacks.optimizers import LBFGS, Adam, Optimizer
from attacker_metrics.attacks.priors import Prior, batch_norm_statistics, image_norm, total_variation
from attacker_metrics.attacks.threat_model import LabelKnowledge


@dataclass(frozen=True, kw_only=True)
class DLG(GradientInversion):
    """Deep leakage from gradients: squared distance, L-BFGS, images and soft labels searched for together.

    Made for small networks with smooth activations. Some starts diverge or get stuck, as published; hence four restarts, of
    which a client uses only as many as it needs to reach the tolerance.

    Args:
        learning_rate: of L-BFGS.

    Example:
        >>> import torch
        >>> from attacker_metrics.attacks import SigmoidLeNet, share_gradients
        >>> network = SigmoidLeNet(size=8)
        >>> shared = share_gradients(network, torch.rand(1, 3, 8, 8), torch.tensor([3]))
        >>> DLG(iterations=20)(network, shared).threat_model.labels
        'optimised'

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019.
    """

    iterations: int = 6000
    restarts: int = 4
    labels: LabelKnowledge = "optimised"
    tolerance: float = 1e-7
    patience: int | None = 200
    boxed: bool = False
    start: tuple[float, float] = (0.0, 1.0)
    learning_rate: float = 1.0
    cost: Cost = field(init=False)
    optimizer: Optimizer = field(init=False)
    priors: tuple[tuple[float, Prior], ...] = field(init=False)

    def __post_init__(self) -> None:
        self._compose(squared_distance, LBFGS(self.learning_rate))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class IDLG(DLG):
    """DLG with the label read off the last layer's gradient, which makes the search easier.

    Source: Zhao, Mopuri, Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020.
    """

    labels: LabelKnowledge = "inferred"


@dataclass(frozen=True, kw_only=True)
class InvertingGradients(GradientInversion):
    """InvGrad: cosine distance and total variation, signed gradients into Adam with a stepwise rate, pixels in a box.

    Args:
        learning_rate: of Adam, in pixel values of [0, 1]. Published: 0.1 in normalised pixels, a quarter of it here.
        total_variation: weight of that prior, of pixels in [0, 1]. Published: 1e-4 of normalised pixels, four times it here.
            As only signs count, it has to suit the size of the cost, which differs by orders of magnitude between
            untrained networks: 0.02 suits ``SigmoidLeNet``, 1e-6 with a rate of 0.1 ``ConvNet()``.

    Example:
        >>> import torch
        >>> from attacker_metrics.attacks import ConvNet, share_gradients
        >>> network = ConvNet(width=2, size=9)
        >>> shared = share_gradients(network, torch.rand(2, 3, 9, 9), torch.tensor([3, 1]))
        >>> InvertingGradients(iterations=3)(network, shared).images.shape
        torch.Size([2, 3, 9, 9])

    Source: Geiping et al., "Inverting Gradients - How easy is it to break privacy in federated learning?", NeurIPS 2020.
    """

    iterations: int = 4800
    learning_rate: float = 0.025
    total_variation: float = 4e-4
    cost: Cost = field(init=False)
    optimizer: Optimizer = field(init=False)
    priors: tuple[tuple[float, Prior], ...] = field(init=False)

    def __post_init__(self) -> None:
        steps = Adam(self.learning_rate, signed=True, schedule="steps")
        self._compose(cosine_distance, steps, (self.total_variation, total_variation))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class GradInversion(GradientInversion):
    """In the style of GradInversion: distances of layers, Adam with a cosine rate, and three priors.

    The picture prior is total variation, the norm of the image, and how well features fit the running statistics of batch
    norm. The published group consistency of several seeds and its added noise are left out. The last prior is made for
    groups of images: a single one seldom has the statistics of all, and ``batch_norm=0`` may suit it better. That it helps
    was published for ResNet-50 on ImageNet; it has not been shown with this implementation.

    Args:
        learning_rate: of Adam, in pixel values of [0, 1]. Published: 0.1 in normalised pixels, a quarter of it here.
        gradient: weight of the cost.
        total_variation: weight of that prior.
        image_norm: weight of that prior.
        batch_norm: weight of that prior.

    Source: Yin et al., "See through Gradients: Image Batch Recovery via GradInversion", CVPR 2021.
    """

    iterations: int = 20_000
    labels: LabelKnowledge = "inferred"
    learning_rate: float = 0.025
    gradient: float = 1e-3
    total_variation: float = 1e-4
    image_norm: float = 1e-6
    batch_norm: float = 0.1
    cost: Cost = field(init=False)
    optimizer: Optimizer = field(init=False)
    priors: tuple[tuple[float, Prior], ...] = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.gradient < math.inf:
            raise ValueError(f"gradient is {self.gradient}; the cost's weight must be above 0, and finite.")
        # Adam does not mind the scale of the whole: the cost keeps weight 1, the priors are relative to it.
        self._compose(
            layer_distances,
            Adam(self.learning_rate, schedule="cosine"),
            (self.total_variation / self.gradient, total_variation),
            (self.image_norm / self.gradient, image_norm),
            (self.batch_norm / self.gradient, batch_norm_statistics),
        )
        super().__post_init__()


ATTACKS: dict[str, type[GradientInversion]] = {
    "dlg": DLG,
    "idlg": IDLG,
    "invgrad": InvertingGradients,
    "gradinversion": GradInversion,
}
"""Attacks by the name that configurations use."""
