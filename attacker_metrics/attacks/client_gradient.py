"""One client's gradient as a function of its images, differentiable and vectorised over clients by ``torch.func``."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from attacker_metrics.attacks.threat_model import BatchNormMode

Gradients = dict[str, Tensor]


class ClientGradient:
    """``(images, target) -> gradients``: the gradient of the mean cross entropy with respect to the network's parameters.

    The network is copied; the copy is in evaluation mode (no dropout). Parameters that require no gradient are not shared.

    Args:
        model: takes images in [0, 1], ``(B, C, H, W)``, and returns logits ``(B, K)``.
        train: whether batch norm uses the statistics of the client's own images, as in training, not the running ones.

    Raises:
        ValueError: if the network has no parameter that requires a gradient.
    """

    def __init__(self, model: nn.Module, *, train: bool = False) -> None:
        network = copy.deepcopy(model).eval()
        layers = batch_norms(network)
        running = {name: _running(layer) for name, layer in layers.items()}
        self.running = {name: statistics for name, statistics in running.items() if statistics is not None}
        """Mean and variance ``(C,)`` of every batch norm layer that keeps them, by the layer's name."""
        if train:
            replace_all_batch_norm_modules_(network)
        self._inputs: Gradients = {}
        for name, layer in layers.items():
            layer.register_forward_pre_hook(functools.partial(self._remember, name))
        self.parameters = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the network has no parameter that requires a gradient: there is nothing to share.")
        self.network = network.requires_grad_(False)

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Gradients, dict[str, Tensor]]:
        """Gradients by parameter name, and what went into every batch norm layer, by its name.

        Args:
            images: of one client, ``(B, C, H, W)``.
            target: labels ``(B,)`` or soft labels ``(B, K)``.
        """
        with sdpa_kernel(SDPBackend.MATH):  # the others' gradients have no gradient, which attacks need
            found: tuple[Gradients, dict[str, Tensor]] = grad(self._loss, has_aux=True)(self.parameters, images, target)
        return found

    def to(self, like: Tensor) -> None:
        """Move the copy to a tensor's device and type."""
        self.network.to(like)
        self.parameters = {name: parameter.to(like) for name, parameter in self.parameters.items()}
        self.running = {name: (mean.to(like), variance.to(like)) for name, (mean, variance) in self.running.items()}

    def logits(self, images: Tensor) -> Tensor:
        """What the network says of images ``(B, C, H, W)``: ``(B, K)``."""
        found: Tensor = self.network(images)
        self._inputs = {}
        return found

    def _loss(self, parameters: Gradients, images: Tensor, target: Tensor) -> tuple[Tensor, Gradients]:
        self._inputs = {}
        logits = functional_call(self.network, parameters, (images,))
        return F.cross_entropy(logits, target), self._inputs

    def _remember(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs[name] = inputs[0]


def per_client(function: Callable[..., Any], *arguments: Tensor | Gradients) -> Any:
    """Apply a function of one client to the rows of tensors or dicts of them by ``vmap``; a single row is faster without."""
    first = arguments[0]
    if not isinstance(first, Tensor) or len(first) > 1:
        return vmap(function)(*arguments)
    found = function(*({n: t[0] for n, t in rows.items()} if isinstance(rows, dict) else rows[0] for rows in arguments))
    return {name: tensor[None] for name, tensor in found.items()} if isinstance(found, dict) else found[None]


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norm layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def batch_norm_mode(model: nn.Module, *, train: bool) -> BatchNormMode:
    """By which statistics the network normalises."""
    keep = {_running(layer) is not None for layer in batch_norms(model).values()}
    if not keep:
        return "none"
    if train or keep == {False}:
        return "batch statistics"
    return "running statistics" if keep == {True} else "running statistics, and batch statistics in layers that keep none"


def _running(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    mean, variance = layer.running_mean, layer.running_var
    return (mean, variance) if isinstance(mean, Tensor) and isinstance(variance, Tensor) else None
