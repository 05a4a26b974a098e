"""Training of classifiers by Lightning, with a client's defence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from attacker_metrics.attacks.client_gradient import logits_of
from attacker_metrics.defenses import AugmentationPolicy, Defense
from attacker_metrics.study.config import Training
from attacker_metrics.study.data import TrainingImages


def train(
    network: nn.Module,
    images: TrainingImages,
    recipe: Training,
    *,
    seed: int,
    augment: AugmentationPolicy | None = None,
    share: Sequence[Defense] = (),
    device: torch.device | None = None,
) -> float | None:
    """Train in place; the same seed gives the same weights, on one thread of one kind of machine.

    Args:
        network: the classifier.
        images: to train on.
        recipe: how.
        seed: of the order of the images, augmentation and random defences.
        augment: changes every image each time anew.
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
        data: Dataset[Any] = _Augmented(images, augment, seed)
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
        module.train()  # Lightning leaves a network that somebody has judged before in that mode
        # A last batch of one image has no statistics where batch norm sees one pixel: another image sits out every epoch.
        alone = len(images) > recipe.batch_size and len(images) % recipe.batch_size == 1
        trainer.fit(module, DataLoader(data, recipe.batch_size, shuffle=True, generator=order, drop_last=alone))
    network.to("cpu").eval()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError(f"the weights became NaN or infinite; training.learning_rate is {recipe.learning_rate}, lower it.")
    return float(trainer.callback_metrics["loss"])


class _Augmented(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: TrainingImages, augment: AugmentationPolicy | None, seed: int) -> None:
        self._images, self._augment = images, augment
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._images[index]
        return (image if self._augment is None else self._augment(image[None], self._generator)[0]), label


class _Classification(LightningModule):
    def __init__(self, network: nn.Module, recipe: Training, share: Sequence[Defense], seed: int) -> None:
        super().__init__()
        self.network, self._recipe, self._share = network, recipe, share
        self._generator = torch.Generator().manual_seed(seed)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(logits_of(self.network(images)), labels)
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
