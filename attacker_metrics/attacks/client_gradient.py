"""One client's gradient as a function of its images, differentiable and vectorised over clients by ``torch.func``."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
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
        model: takes images in [0, 1], ``(B, C, H, W)``, and returns logits ``(B, K)``, see :func:`logits_of`.
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
        try:
            found = logits_of(self.network(images))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                "batch norm cannot take the client's own statistics: a layer sees one value per channel of"
                f" {tuple(images.shape)}. Use the running statistics (train=False; in a study batch_norm: eval), larger"
                " images, or several per client."
            ) from error
        self._inputs = {}
        return found

    def _loss(self, parameters: Gradients, images: Tensor, target: Tensor) -> tuple[Tensor, Gradients]:
        self._inputs = {}
        logits = logits_of(functional_call(self.network, parameters, (images,)))
        return F.cross_entropy(logits, target), self._inputs

    def _remember(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs[name] = inputs[0]


def logits_of(output: Any) -> Tensor:
    """The logits ``(B, K)`` in what a classifier returns.

    Args:
        output: a tensor; an object or a mapping with ``logits``, as Hugging Face's models and some of torchvision's return;
            or a tuple, list or mapping with one tensor ``(B, K)``.

    Raises:
        ValueError: if there are none, several that may be meant, or they have another shape than ``(B, K)``, K >= 2.
    """
    found = output
    if isinstance(output, Mapping):
        found = output["logits"] if "logits" in output else _only(dict(output))
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", None)
        if found is None and isinstance(output, (tuple, list)):
            found = _only(dict(enumerate(output)))
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the model returns {_told(output)}, not logits (B, K); wrap it in a module that returns them alone."
        )
    if found.ndim != 2 or found.shape[1] < 2:
        raise ValueError(
            f"the model's logits have shape {tuple(found.shape)}; they must be (B, K), one for each of at least 2 classes."
        )
    return found


def _only(parts: Mapping[Any, Any]) -> Tensor | None:
    """The one tensor ``(B, K)`` among several things; None if there is none, or more than one."""
    found = [part for part in parts.values() if isinstance(part, Tensor) and part.ndim == 2]
    return found[0] if len(found) == 1 else None


def _told(output: Any) -> str:
    parts = output.items() if isinstance(output, Mapping) else enumerate(output) if isinstance(output, (tuple, list)) else ()
    told = [f"{name}: {tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__}" for name, p in parts]
    return type(output).__name__ + (f" of {', '.join(told)}" if told else "")


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
