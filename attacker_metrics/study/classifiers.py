"""The classifiers that leak: built, then trained by Lightning with a client's defence, or loaded."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from attacker_metrics.attacks.networks import Normalize
from attacker_metrics.study.config import NETWORKS, Model, Training
from attacker_metrics.study.data import TrainingImages

Gradients = dict[str, Tensor]
Augment = Callable[[Tensor], Tensor]
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
                return NETWORKS[model.network](classes=classes, size=size, **model.options)
            try:
                from torchvision import models
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f"model {model.name} needs torchvision: pip install 'attacker-metrics[study]'.", name=error.name
                ) from error
            network = models.get_model(model.torchvision, weights=None, num_classes=classes, **model.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"model {model.name} cannot be built: {error}") from error
        return nn.Sequential(Normalize(*_IMAGENET), network)


def load(model: Model, content: bytes, classes: int, size: int) -> nn.Module:
    """The classifier with the weights of a file, ready for use.

    Raises:
        ValueError: if the file holds no state_dict of this network.
    """
    network = build(model, classes, size)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except (RuntimeError, UnpicklingError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the weights of model {model.name} are no state_dict of it for {classes} classes of {size} pixels:"
            f" {' '.join(str(error).split())[:300]}"
        ) from error
    return network.eval()


def weights_of(network: nn.Module) -> bytes:
    """The state_dict as the content of a file; the same weights give the same bytes."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, buffer)
    return buffer.getvalue()


def train(
    network: nn.Module,
    images: TrainingImages,
    recipe: Training,
    *,
    seed: int,
    augment: Augment | None = None,
    share: Sequence[Callable[..., Gradients]] = (),
    device: torch.device | None = None,
) -> float | None:
    """Train in place; the same seed gives the same weights, on one thread of one kind of machine.

    Args:
        network: the classifier.
        images: to train on.
        recipe: how.
        seed: of the order of the images, augmentation and random defences.
        augment: image -> image.
        share: defences, applied to the gradient of every step.
        device: where; by default the CPU.

    Returns:
        The last epoch's mean loss; None for none.

    Raises:
        ValueError: if the weights became NaN or infinite.
    """
    if recipe.epochs == 0:
        network.eval()
        return None
    device = device or torch.device("cpu")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        # Lightning's advice about numbers of workers and of batches is not for the user of a command line.
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        module = _Classification(network, recipe, share, seed)
        order = torch.Generator().manual_seed(seed)
        data: Dataset[Any] = _Augmented(images, augment)
        trainer = Trainer(
            max_epochs=recipe.epochs,
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1 if device.index is None else [device.index],
            plugins=[LightningEnvironment()],  # each process trains classifiers of its own, also below torchrun
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(data, recipe.batch_size, shuffle=True, generator=order))
    network.to("cpu").eval()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError(f"the weights became NaN or infinite; training.learning_rate is {recipe.learning_rate}, lower it.")
    return float(trainer.callback_metrics["loss"])


@torch.no_grad()
def accuracy(network: nn.Module, images: TrainingImages, device: torch.device | None = None) -> float | None:
    """The share of images whose class the classifier names; None for no images."""
    if len(images) == 0:
        return None
    network = network.to(device or "cpu").eval()
    right = 0
    for batch, labels in DataLoader(images, 256):
        right += int((network(batch.to(device or "cpu")).argmax(dim=1).cpu() == labels).sum())
    network.to("cpu")
    return right / len(images)


def augmentation(name: str | None, size: int) -> Augment | None:
    """A random change of an image ``(3, S, S)`` in [0, 1]; None for none. Random numbers are torch's own.

    Raises:
        ModuleNotFoundError: without torchvision, naming the extra.
    """
    if name is None:
        return None
    from attacker_metrics.defenses import AugmentationPolicy

    return AugmentationPolicy(name)


class _Augmented(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: TrainingImages, augment: Augment | None) -> None:
        self._images, self._augment = images, augment

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._images[index]
        return (image if self._augment is None else self._augment(image)), label


class _Classification(LightningModule):
    def __init__(self, network: nn.Module, recipe: Training, share: Sequence[Callable[..., Gradients]], seed: int) -> None:
        super().__init__()
        self.network, self._recipe, self._share = network, recipe, share
        self._generator = torch.Generator().manual_seed(seed)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_before_optimizer_step(self, _: Any) -> None:
        parameters = {name: value for name, value in self.network.named_parameters() if value.grad is not None}
        gradients = {name: value.grad[None] for name, value in parameters.items() if value.grad is not None}
        for defence in self._share:
            gradients = defence(gradients, self._generator)
        for name, value in parameters.items():
            value.grad = gradients[name][0]

    def configure_optimizers(self) -> Any:
        recipe = self._recipe
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)]
