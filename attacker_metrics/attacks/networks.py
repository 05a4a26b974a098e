"""Networks that gradient inversion was published on, and the normalisation that belongs into every attacked network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """First layer of a network that takes images in [0, 1]: ``(x - mean) / std`` per channel.

    Args:
        mean: one number per channel.
        std: one number per channel, above 0.

    Raises:
        ValueError: if a std is not positive, or there are more of one than of the other.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.25, 0.25, 0.25)) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(f"mean and std need one number per channel, std above 0; got {mean!r} and {std!r}.")
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)  # half precision would move the colours
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=dtype).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> normalised images, same shape."""
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """Normalised images ``(B, C, H, W)`` -> images in [0, 1], same shape."""
        return x * self.std.to(x.dtype) + self.mean.to(x.dtype)


class SigmoidLeNet(nn.Sequential):
    """The network DLG was published on: three 5 x 5 convolutions with sigmoids, one linear layer.

    Weights and biases are uniform in [-0.5, 0.5], as published: wide enough for sigmoids to carry a gradient.

    Args:
        classes: how many.
        size: images are ``size x size`` pixels, a multiple of 4.
        normalize: the first layer; by default none, as published.

    Raises:
        ValueError: if the size is no positive multiple of 4.

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019.
    """

    def __init__(self, classes: int = 10, size: int = 32, normalize: nn.Module | None = None) -> None:
        if size < 4 or size % 4:
            raise ValueError(f"size is {size}; this network takes multiples of 4 pixels.")
        super().__init__(
            normalize or nn.Identity(),
            nn.Conv2d(3, 12, 5, padding=2, stride=2),
            nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, padding=2, stride=2),
            nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, padding=2),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(12 * (size // 4) ** 2, classes),
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)


class ConvNet(nn.Sequential):
    """The network InvGrad was published on: 3 x 3 convolutions with batch norm and ReLU, two poolings, one linear layer.

    Nine convolutions, as the public code lists them (it gives two the same name, and so builds eight); dropout is left out.
    The published network pools by the maximum. Untrained and 16 channels wide it kept photographs from InvGrad that
    ``pooling="average"``, all else equal, gave away (two pictures, one seed); at the published width it gives them away.

    Args:
        classes: how many.
        width: channels of the first convolution; the published ConvNet64 has 64.
        size: images are ``size x size`` pixels, at least 9.
        normalize: the first layer; by default ``Normalize()``.
        pooling: ``"max"``, as published, or ``"average"``.

    Raises:
        ValueError: if the images are too small for two poolings by 3, for no channels, or for another pooling.

    Source: Geiping et al., "Inverting Gradients - How easy is it to break privacy in federated learning?", NeurIPS 2020.
    """

    def __init__(
        self,
        classes: int = 10,
        width: int = 64,
        size: int = 32,
        normalize: nn.Module | None = None,
        pooling: Literal["max", "average"] = "max",
    ) -> None:
        if size < 9:
            raise ValueError(f"size is {size}; this network takes images of 9 x 9 pixels at least.")
        if width < 1:
            raise ValueError(f"width is {width}; it must be at least 1.")
        if pooling not in ("max", "average"):
            raise ValueError(f"pooling is {pooling!r}; it is 'max' or 'average'.")
        stages = (1, 2, 2, 4, 4, 4), (4, 4, 4)
        layers: list[nn.Module] = [normalize or Normalize()]
        channels = 3
        for stage in stages:
            for factor in stage:
                layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
                channels = factor * width
            layers.append(nn.MaxPool2d(3) if pooling == "max" else nn.AvgPool2d(3))
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels * (size // 9) ** 2, classes))
