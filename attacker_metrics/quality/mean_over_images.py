"""Per-image scores of a network -> metric state: :class:`MeanOverImages`, the base of LPIPS and SemSim."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attacker_metrics.metrics.guarded_metric import GuardedMetric
from attacker_metrics.metrics.leakage_direction import Direction
from attacker_metrics.scoring.pair import check_images


def check_reconstructions(preds: Tensor, target: Tensor) -> None:
    """Raise about images that no score can be made of.

    Args:
        preds: reconstructions ``(B, 3, H, W)``, floating; may leave [0, 1]. A batch may be empty.
        target: originals in [0, 1], same shape and device.

    Raises:
        ValueError: for shapes, originals outside [0, 1] by more than 1e-3, or NaN or infinite pixels.
        TypeError: for images that are not floating.
    """
    check_images(preds, target, allow_empty=True)
    if len(preds) == 0:
        return
    low, high = target.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also with NaN
        raise ValueError(
            f"originals span {float(low):.4g} to {float(high):.4g}, they must lie in [0, 1]; denormalise them, e.g."
            " clean * std + mean, or divide 0..255 values by 255."
        )
    broken = int((~preds.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        raise ValueError(f"{broken} of {len(preds)} reconstructions hold NaN or infinite pixels; leave those images out.")


class MeanOverImages(GuardedMetric):
    """Mean over all images of a score that a network gives each pair.

    State: a float64 sum and an int64 count, whatever the number of images, summed across processes. Subclasses define
    :meth:`scores`; two metrics share states in a ``MetricCollection`` only if class, settings and weights agree.

    Args:
        network: whose weights take part in the score; it moves with the metric and stays in evaluation mode.
        settings: further facts that change the score.
        kwargs: torchmetrics' own keywords.
    """

    is_differentiable = True
    full_state_update = False
    __jit_unused_properties__: ClassVar[list[str]] = [*GuardedMetric.__jit_unused_properties__, "count"]
    leakage_direction: Direction

    def __init__(self, network: nn.Module, *settings: object, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network.eval().requires_grad_(False)
        # torchmetrics merges metrics whose states have the same names and, after one batch, the same values.
        suffix = _digest(network, type(self).__qualname__, *settings)
        self._sum, self._count = f"sum_{suffix}", f"count_{suffix}"
        self.add_state(self._sum, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state(self._count, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def count(self) -> Tensor:
        """Number of images in the mean, int64 scalar."""
        value: Tensor = getattr(self, self._count)
        return value

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        """The score of every image, ``(B,)``; the state is not touched."""
        raise NotImplementedError

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: reconstructions first, originals in [0, 1] second, both ``(B, 3, H, W)``; an empty one is a no-op."""
        check_reconstructions(preds, target)
        if len(preds) > 0:
            setattr(self, self._sum, getattr(self, self._sum) + self.scores(preds, target).sum(dtype=torch.float64))
            setattr(self, self._count, self.count + len(preds))

    def compute(self) -> Tensor:
        """Mean score of all images seen, float32 scalar; NaN if there was none."""
        total: Tensor = getattr(self, self._sum)
        return (total / self.count).to(torch.float32)

    def train(self, mode: bool = True) -> MeanOverImages:  # noqa: ARG002 - a metric's network has no training mode
        """Keep the network in evaluation mode: batch statistics would make a score depend on its batch."""
        return super().train(False)


def _digest(network: nn.Module, *facts: object) -> str:
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(repr(network).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        if not value.is_meta:  # made under torch.device("meta"), it has no content
            value = value.detach().cpu().contiguous()
            digest.update(value.view(torch.uint8 if value.ndim else value.dtype).numpy().tobytes())
    return digest.hexdigest()[:16]
