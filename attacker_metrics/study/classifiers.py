"""The classifiers that leak: built, loaded, judged."""

from __future__ import annotations

import difflib
import io
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from attacker_metrics._extras import missing_extra
from attacker_metrics.attacks.client_gradient import ClientGradient, logits_of
from attacker_metrics.attacks.networks import Normalize
from attacker_metrics.files.tensors import TensorFileError, load_tensors
from attacker_metrics.study.config import NETWORKS, Model
from attacker_metrics.study.data import TrainingImages

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(model: Model, classes: int, size: int, seed: int = 0) -> nn.Module:
    """The untrained classifier of images ``(B, 3, S, S)`` in [0, 1]; weights are drawn by the seed.

    Raises:
        ValueError: if the network cannot be built so.
        ModuleNotFoundError: if it needs torchvision, naming the extra.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if model.network is not None:
                return NETWORKS[model.network](classes=classes, size=size, **model.options).float()
            models = check_torchvision(model)
            network = models.get_model(model.torchvision, weights=None, num_classes=classes, **model.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"model {model.name} cannot be built: {error}") from error
        return nn.Sequential(Normalize(*_IMAGENET), network).float()


def check_torchvision(model: Model) -> Any:
    """``torchvision.models``, which has the model.

    Raises:
        ModuleNotFoundError: without torchvision, naming the extra.
        ValueError: if it does not have the model.
    """
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise missing_extra(f"model {model.name} needs torchvision", "study", error) from error
    names = models.list_models(module=models)
    if model.torchvision not in names:
        close = difflib.get_close_matches(str(model.torchvision), names, n=3)
        raise ValueError(f"torchvision has no classifier {model.torchvision!r}; near are {', '.join(close) or 'none'}.")
    return models


def check_batch_statistics(model: Model, classes: int, size: int) -> None:
    """That gradients of single images can be taken with the batch's statistics in every batch norm layer.

    Raises:
        ValueError: if a layer sees a single value per channel, which has no statistics.
    """
    try:
        ClientGradient(build(model, classes, size), train=True).logits(torch.zeros(1, 3, size, size))
    except ValueError as error:
        raise ValueError(f"batch_norm: train does not suit model {model.name} at {size} pixels: {error}") from error


def load(model: Model, content: bytes, classes: int, size: int, *, own: bool = False) -> nn.Module:
    """The classifier with the weights of a file, ready for use: a state_dict, or a checkpoint of Lightning that holds one.

    The file is of safetensors, or of ``torch.save``: with torch below 2.6 only if it is the study's own.
    The state_dict of one of torchvision's models alone will do; images are then normalised by ImageNet's statistics.

    Raises:
        ValueError: if the file holds no state_dict of this network, or several.
    """
    network = build(model, classes, size)
    try:
        network.load_state_dict(_of_network(model, load_tensors(content, own=own), network))
    except (TensorFileError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the weights of model {model.name} are no state_dict of it for {classes} classes of {size} pixels:"
            f" {' '.join(str(error).split())[:300]}"
        ) from error
    return network.eval()


def _of_network(model: Model, state: Any, network: nn.Module) -> Any:
    """The network's state_dict in a file's content; names may begin with the attribute of a module that held it."""
    found = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(found, dict):
        return found
    own = network.state_dict()
    for begin in ("", "1.") if model.torchvision is not None else ("",):  # 0 is the normalisation
        names = [name.removeprefix(begin) for name in own if name.startswith(begin)]
        ends = [name.removesuffix(names[0]) for name in map(str, found) if name.endswith(names[0])]
        prefixes = [prefix for prefix in ends if all(prefix + name in found for name in names)]
        if len(prefixes) > 1:
            raise ValueError(
                f"the weights of model {model.name} are of several networks, whose names begin with"
                f" {' and '.join(map(repr, prefixes))}; save the state_dict of one."
            )
        for prefix in prefixes:
            inner = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
            outer = {name: value for name, value in own.items() if not name.startswith(begin)}
            return outer | {begin + name: value for name, value in inner.items()}
    return found


def weights_of(network: nn.Module) -> bytes:
    """The state_dict as the content of a file; the same weights give the same bytes."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, buffer)
    return buffer.getvalue()


@torch.no_grad()
def accuracy(network: nn.Module, images: TrainingImages, device: torch.device | None = None) -> float | None:
    """The share of images whose class the classifier names; None for no images."""
    if len(images) == 0:
        return None
    network = network.to(device or "cpu").eval()
    right = 0
    for batch, labels in DataLoader(images, 256):
        logits = logits_of(network(batch.to(device or "cpu")))
        right += int((logits.argmax(dim=1).cpu() == labels).sum())
    network.to("cpu")
    return right / len(images)
