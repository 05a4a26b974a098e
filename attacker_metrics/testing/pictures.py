"""Pictures to check metrics with: ordinary ones, and those at which attackers stumble."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NUMBER = 7


def made_pictures(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Seven smooth pictures with edges, and as they might be sent: with noise, less contrast, inverted, out of [0, 1].

    Args:
        height: in pixels.
        width: in pixels.

    Returns:
        Noisy and clean, each ``(7, 3, height, width)`` float32, the same in every call.
    """
    generator = torch.Generator().manual_seed(20)

    def random(*shape: int) -> Tensor:
        return torch.rand(_NUMBER, *shape, generator=generator, dtype=torch.float32)

    smooth = F.interpolate(random(3, 5, 6), size=(height, width), mode="bilinear", align_corners=True)
    edges = (F.interpolate(random(1, 4, 4), size=(height, width), mode="nearest") > 0.5).float()
    clean = (0.6 * smooth + 0.3 * edges + 0.1 * random(3, height, width)).clamp(0, 1)
    noise = random(3, height, width) - 0.5
    strength = torch.tensor([0.2, 0.4, 0.1, 0.6, 0.3, 0.1, 1.0]).view(-1, 1, 1, 1)
    contrast = torch.tensor([1.0, 0.5, -1.0, 0.8, -0.5, 0.9, 1.5]).view(-1, 1, 1, 1)
    return 0.5 + contrast * (clean - 0.5) + strength * noise, clean


def odd_pictures(noisy: Tensor, clean: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs of two pictures each at which variances vanish, gradients explode or values saturate, by name.

    Args:
        noisy: ordinary sent pictures, at least two.
        clean: their originals.
    """
    noisy, clean = noisy[:2], clean[:2]
    gray, spot = torch.full_like(clean, 0.5), torch.zeros_like(clean)
    spot[:, :, 5, 7] = 1.0
    return {
        "identical": (clean.clone(), clean),
        "negative": (1 - clean, clean),
        "flat sent": (gray, clean),
        "flat original": (noisy, gray),
        "flat sent and original": (gray.clone(), gray),
        "black sent and original": (torch.zeros_like(clean), torch.zeros_like(clean)),
        "white sent and original": (torch.ones_like(clean), torch.ones_like(clean)),
        "black-and-white": (clean.round(), clean.round()),
        "one bright pixel": (spot, clean),
        "nearly flat": (gray + 1e-6 * (clean - 0.5), clean),
        "far out of [0, 1]": (20 * (clean - 0.5), clean),
    }
