"""The exact inverse where a network begins with a fully connected layer: a check that the machinery is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacker_metrics.attacks.networks import Normalize
from attacker_metrics.attacks.sharing import SharedGradients


def first_layer_closed_form(model: nn.Module, shared: SharedGradients) -> Tensor:
    """Images from the gradient of a first fully connected layer with biases: ``x = dL/dW_i / dL/db_i``.

    Of all outputs i the one with the largest ``|dL/db_i|`` is taken. Exact up to rounding if one image made the gradient.

    Args:
        model: before its first ``nn.Linear`` come only ``Normalize``, ``nn.Flatten`` and ``nn.Identity``.
        shared: one image per client.

    Returns:
        Images as they come out, ``(N, C, H, W)``, or ``(N, 1, C, H, W)`` where clients had groups. NaN where every bias
        gradient is 0.

    Raises:
        ValueError: if the network begins otherwise, or clients shared the gradient of several images.

    Example:
        >>> network = nn.Sequential(Normalize(), nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 4))
        >>> from attacker_metrics.attacks import share_gradients
        >>> images = torch.rand(2, 3, 4, 4)
        >>> found = first_layer_closed_form(network, share_gradients(network, images, torch.tensor([3, 1])))
        >>> bool((found - images).abs().max() < 1e-4)
        True

    Source: Phong et al., "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", IEEE TIFS 2018.
    """
    if shared.group != 1:
        raise ValueError(f"clients shared the gradient of {shared.group} images; the closed form needs one.")
    name, normalize = _beginning(model)
    weight, bias = shared.gradients.get(f"{name}.weight"), shared.gradients.get(f"{name}.bias")
    if weight is None or bias is None:
        raise ValueError(f"the closed form needs the gradients of weights and biases of {name!r}; both must be shared.")
    pixels = torch.Size(shared.image_shape).numel()
    if weight.shape[2] != pixels:
        raise ValueError(
            f"the closed form needs a first layer of all {pixels} pixels; {name!r} takes {weight.shape[2]} values."
        )
    strongest = bias.abs().argmax(dim=1)
    clients = torch.arange(len(shared), device=strongest.device)
    images = (weight[clients, strongest] / bias[clients, strongest, None]).reshape(-1, *shared.image_shape)
    if normalize is not None:
        mean, std = normalize.mean.to(images), normalize.std.to(images)
        images = images * std + mean
    return images[:, None] if shared.grouped else images


def _beginning(model: nn.Module) -> tuple[str, Normalize | None]:
    normalize = None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            return name, normalize
        if isinstance(module, Normalize):
            normalize = module
        elif not isinstance(module, nn.Flatten | nn.Identity) and not any(module.children()):
            break
    raise ValueError("the closed form needs a network that begins with a fully connected layer (after Normalize, Flatten).")
