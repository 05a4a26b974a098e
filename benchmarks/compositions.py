"""The fifteen components as a user would write them without this library: plain torch around a peer's MS-SSIM call.

Each composition maps ``(noisy, clean)`` to the loss's seventeen scalars. Every view is made once and shared; nothing is
checked and nothing is guarded, as in a script. Where a scale's mean contrast is not positive, all three peers cut it to 0
(torchmetrics by ``normalize="relu"``, its default).

- torchmetrics is the definition that ours follows.
- pytorch_msssim and piq leave out the windows at the border at the coarsest scale too, and take the powers channel by
  channel: other numbers, the same idea.
- piq raises an ``AssertionError`` for a value outside [0, 1], be it by rounding: its views are clamped first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

Loss = Callable[[Tensor, Tensor], dict[str, Tensor]]

GAMMAS, BLUR_SIGMA, WAVELET_THRESHOLD = (0.5, 2.0), 2.0, 0.1


def torchmetrics_ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    return multiscale_structural_similarity_index_measure(x, y, data_range=1.0)


def pytorch_msssim_ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    import pytorch_msssim

    value: Tensor = pytorch_msssim.ms_ssim(x, y, data_range=1.0)
    return value


def piq_ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    import piq

    value: Tensor = piq.multi_scale_ssim(x.clamp(0, 1), y.clamp(0, 1), data_range=1.0)
    return value


def compose(ms_ssim: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Build the loss out of a batch-mean MS-SSIM."""

    def loss(noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        clamped, raw, clean_gray = noisy.clamp(0, 1), luma(noisy), luma(clean)
        gray = raw.clamp(0, 1)
        edges = sobel(raw), sobel(clean_gray)
        blurred = blur(gray), blur(clean_gray)
        denoised = wavelet(gray), wavelet(clean_gray)
        bent = [(gamma(gray, g), gamma(clean_gray, g)) for g in GAMMAS]
        scores = {
            "rgb_clamp": ms_ssim(clamped, clean),
            "rgb_minmax": ms_ssim(minmax(noisy), clean),
            "gray_clamp": ms_ssim(gray, clean_gray),
            "gray_minmax": ms_ssim(minmax(raw), clean_gray),
            "sobel_gray": ms_ssim(minmax(edges[0]), minmax(edges[1])),
            "blur_gray": ms_ssim(*blurred),
            "standardize_gray": ms_ssim(standardize(raw), standardize(clean_gray)),
            "gamma_gray": torch.stack([ms_ssim(*pair) for pair in bent]).mean(),
            "wavelet_gray": ms_ssim(*denoised),
        }
        correlations = {
            "pearson_rgb": pearson_sq(clamped, clean),
            "pearson_gray": pearson_sq(gray, clean_gray),
            "pearson_sobel": pearson_sq(*edges),
            "pearson_blur": pearson_sq(*blurred),
            "pearson_gamma": torch.stack([pearson_sq(*pair) for pair in bent]).mean(),
            "pearson_wavelet": pearson_sq(*denoised),
        }
        means = {
            "ms_ssim": torch.stack(list(scores.values())).mean(),
            "pearson": torch.stack(list(correlations.values())).mean(),
        }
        return {**scores, **correlations, **means}

    return loss


PEERS = {"torchmetrics": torchmetrics_ms_ssim, "pytorch_msssim": pytorch_msssim_ms_ssim, "piq": piq_ms_ssim}
COMPOSITIONS: dict[str, Loss] = {name: compose(ms_ssim) for name, ms_ssim in PEERS.items() if find_spec(name)}
"""Package -> its composition, for the peers that are installed."""


def luma(x: Tensor) -> Tensor:
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def minmax(x: Tensor) -> Tensor:
    low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-8)


def sobel(x: Tensor) -> Tensor:
    kernel = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(padded, torch.stack((kernel, kernel.T)).unsqueeze(1))
    return (slopes.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()


def blur(x: Tensor) -> Tensor:
    radius = math.ceil(3 * BLUR_SIGMA)
    steps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    taps = torch.softmax(-0.5 * (steps / BLUR_SIGMA).square(), dim=0)
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))


def standardize(x: Tensor) -> Tensor:
    std, mean = torch.std_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
    return torch.sigmoid((x - mean) / std.clamp(min=1e-6))


def gamma(x: Tensor, exponent: float) -> Tensor:
    return x.clamp(1e-6, 1) ** exponent


def wavelet(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    haar = x.new_tensor(signs).view(4, 1, 2, 2) / 2
    bands = F.conv2d(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), haar, stride=2)
    bands = torch.cat((bands[:, :1], F.softshrink(bands[:, 1:], WAVELET_THRESHOLD)), dim=1)
    return F.conv_transpose2d(bands, haar, stride=2)[..., :height, :width]


def pearson_sq(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    floor = (x.square().mean(dim=1) * y.square().mean(dim=1)).clamp(min=1e-12)
    return ((x * y).mean(dim=1).square() / floor).mean()
