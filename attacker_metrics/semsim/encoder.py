"""Image -> unit embedding: :class:`Encoder`, a backbone with its preprocessing, and ResNets for small images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacker_metrics._extras import missing_extra

ARCHITECTURES = ("resnet18", "resnet50")


@dataclass(frozen=True)
class Preprocessing:
    """What happens to images in [0, 1] before the backbone sees them.

    Args:
        size: images are resized to ``size x size`` pixels (bilinear, antialiased); None keeps theirs.
        mean: subtracted, per channel.
        std: divided by, per channel.

    Raises:
        ValueError: for a size below 1, or a standard deviation of 0 or less.
    """

    size: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size is {self.size}; it is at least 1 pixel, or None.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} need three values each, those of std above 0.")


class Encoder(nn.Module):
    """Backbone and preprocessing: images in [0, 1] -> embeddings of length 1.

    Training and scoring both use this module, so that both measure distances of unit embeddings.

    Args:
        backbone: ``(B, 3, H, W) -> (B, D)``, or ``(B, D, ...)``, which is averaged over the rest.
        preprocessing: what the backbone expects.
        architecture: ``"resnet18"``, ``"resnet50"``, or ``"custom"`` for any other module.

    Example:
        >>> encoder = Encoder(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), Preprocessing(size=16))
        >>> embedding = encoder(torch.rand(2, 3, 40, 50))
        >>> embedding.shape, embedding.norm(dim=1).detach().round(decimals=4)
        (torch.Size([2, 8]), tensor([1., 1.]))
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, preprocessing: Preprocessing | None = None, architecture: str = "custom"
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.preprocessing = preprocessing or Preprocessing()
        self.architecture = architecture
        self.register_buffer(
            "mean", torch.tensor(self.preprocessing.mean, dtype=torch.float32).view(3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(self.preprocessing.std, dtype=torch.float32).view(3, 1, 1), persistent=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` of images ``(B, 3, H, W)``, clamped to [0, 1], in the precision of the backbone."""
        weight = next((value for value in self.backbone.parameters() if value.is_floating_point()), images)
        # Half precision has no resizing on a CPU, and too few digits for it.
        images = images.to(torch.promote_types(weight.dtype, torch.float32))
        images, size = images.clamp(0, 1), self.preprocessing.size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        images = (images - self.mean.to(images)) / self.std.to(images)
        features: Tensor = self.backbone(images.to(weight.dtype))
        if features.ndim > 2:
            features = features.flatten(2).mean(dim=2)
        return F.normalize(features, dim=1)

    def extra_repr(self) -> str:
        """Architecture and preprocessing, as part of ``repr``."""
        return f"architecture={self.architecture!r}, preprocessing={self.preprocessing}"


def small_image_resnet(architecture: str = "resnet18") -> nn.Module:
    """A ResNet for images of 32 to 64 pixels without its classifier: 3 x 3 stem without stride, no max-pooling; float32.

    Args:
        architecture: ``"resnet18"`` (512 features) or ``"resnet50"`` (2048).

    Raises:
        ModuleNotFoundError: without torchvision, whose blocks it is made of, naming the extra.
        ValueError: for another architecture.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2015), with the stem customary for CIFAR.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"there is no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}.")
    try:
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    except ModuleNotFoundError as error:
        raise missing_extra("SemSim's ResNets need torchvision", "semsim", error) from error
    network = ResNet(BasicBlock, [2, 2, 2, 2]) if architecture == "resnet18" else ResNet(Bottleneck, [3, 4, 6, 3])
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool, network.fc = nn.Identity(), nn.Identity()
    return network.float()  # type: ignore[no-any-return]
