"""Training of SemSim's encoder: triplet margin loss on unit embeddings, by a Lightning trainer."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from attacker_metrics.faithfulness.annotations import Annotations
from attacker_metrics.files.tensors import TensorFileError, load_tensors
from attacker_metrics.files.writing import check_outputs, earlier_release, write_whole
from attacker_metrics.semsim.checkpoint import FORMAT, save_encoder
from attacker_metrics.semsim.encoder import Encoder, Preprocessing, small_image_resnet
from attacker_metrics.semsim.triplets import Original, Triplets, originals_of

CHECKPOINT, REPORT = "semsim.safetensors", "training.json"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Where the defaults are from: the triplet loss is the paper's. Its supplement names ResNet-50; the default here is the
    smaller ResNet-18. Learning rate and batch size are not in the paper, they are those of the authors' code. The share for
    validation is this library's choice. A run that is to be compared with the paper's states its settings.

    Args:
        architecture: ``"resnet18"`` or ``"resnet50"``.
        size: images are resized to ``size x size`` pixels.
        margin: of the triplet loss, p = 2.
        learning_rate: of SGD with Nesterov momentum 0.9 and weight decay 5e-4; divided by ten after 3/8, 5/8 and 7/8 of the
            epochs.
        epochs: passes over the originals, one triplet each.
        batch_size: triplets per step and device.
        validation: share of the originals that is kept from training to choose the best epoch by; 0 for none.
        patience: stop after so many epochs without a better validation loss; None never does.
        hold_out: data set that is neither trained nor validated on, only tested.
        seed: of weights, order, draws and the choice of the validation originals.
    """

    architecture: str = "resnet18"
    size: int = 32
    margin: float = 1.0
    learning_rate: float = 0.05
    epochs: int = 100
    batch_size: int = 64
    validation: float = 0.1
    patience: int | None = None
    hold_out: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.margin <= 0 or self.learning_rate <= 0:
            raise ValueError(f"margin {self.margin} and learning_rate {self.learning_rate} must be above 0.")
        if self.size < 16 or self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"size is {self.size} (at least 16), epochs {self.epochs} (at least 1), batch_size {self.batch_size} (at"
                " least 1)."
            )
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}; it is a share from 0 to below 1.")
        if self.patience is not None and self.validation == 0:
            raise ValueError("patience needs validation above 0: something to judge epochs by.")


@dataclass(frozen=True, eq=False)
class Split:
    """Which originals serve for what; ``skipped`` ones lack reconstructions of one kind."""

    train: list[Original]
    validation: list[Original]
    test: list[Original]
    skipped: list[Original]


def split(annotations: Annotations, recipe: Recipe) -> Split:
    """Divide the originals, whole originals at a time.

    Raises:
        ValueError: if the data set to hold out does not exist, or nothing is left to train on.
    """
    originals = originals_of(annotations)
    datasets = sorted({original.dataset for original in originals})
    if recipe.hold_out is not None and recipe.hold_out not in datasets:
        raise ValueError(f"--hold-out {recipe.hold_out}: there is no such data set; there are {', '.join(datasets)}.")
    usable = [original for original in originals if original.makes_triplets]
    test = [original for original in usable if original.dataset == recipe.hold_out]
    rest = [original for original in usable if original.dataset != recipe.hold_out]
    order = np.random.default_rng(recipe.seed).permutation(len(rest))
    count = round(recipe.validation * len(rest))
    if recipe.validation > 0 and len(rest) > 1:
        count = max(count, 1)
    chosen = set(order[:count].tolist())
    train = [original for index, original in enumerate(rest) if index not in chosen]
    if not train:
        raise ValueError(
            f"no original to train on has both a recognisable and an unrecognisable reconstruction, of {len(originals)}."
        )
    validation = [rest[index] for index in sorted(chosen)]
    return Split(train, validation, test, [original for original in originals if not original.makes_triplets])


class TripletTraining(LightningModule):
    """An encoder under training: loss, optimiser and schedule."""

    def __init__(self, recipe: Recipe, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(dataclasses.asdict(recipe))
        self.recipe = recipe
        preprocessing = Preprocessing(recipe.size, _IMAGENET_MEAN, _IMAGENET_STD)
        architecture = recipe.architecture if backbone is None else "custom"
        self.encoder = Encoder(backbone or small_image_resnet(architecture), preprocessing, architecture)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of a batch of triplets."""
        return self._step("train", batch)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log loss and accuracy on validation originals."""
        self._step("validation", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy on the data set that was held out."""
        del batch_idx  # Lightning asks for it
        self._step("test", batch)

    def configure_optimizers(self) -> Any:
        """SGD with Nesterov momentum, and the steps of its rate."""
        recipe = self.recipe
        optimizer = torch.optim.SGD(
            self.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        # A milestone of 0 would divide the rate before the first step of a very short run.
        milestones = [epoch for eighths in (3, 5, 7) if (epoch := recipe.epochs * eighths // 8) > 0]
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)]

    def _step(self, stage: str, batch: Batch) -> Tensor:
        anchor, positive, negative = self.encoder(torch.cat(batch)).chunk(3)
        loss = F.triplet_margin_loss(anchor, positive, negative, margin=self.recipe.margin, p=2)
        near, far = (torch.linalg.vector_norm(anchor - other, dim=1) for other in (positive, negative))
        facts = {f"{stage}/loss": loss, f"{stage}/accuracy": (near < far).float().mean()}
        self.log_dict(facts, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(anchor))
        return loss


def train(
    annotations: Annotations,
    images: Path,
    output: Path,
    recipe: Recipe | None = None,
    *,
    backbone: nn.Module | None = None,
    resume: bool = False,
    workers: int = 0,
    progress: bool = False,
    **trainer: Any,
) -> dict[str, Any]:
    """Train an encoder and write it, with a report of the run, into a folder.

    ``semsim.safetensors`` is the encoder of the epoch with the lowest validation loss (the last one without validation),
    ``training.json`` the report; ``tensorboard/`` holds curves, ``checkpoints/`` what resuming needs.

    Args:
        annotations: whose ``original`` and ``reconstruction`` are paths below ``images``.
        images: the folder.
        output: the folder to write to.
        recipe: settings.
        backbone: a module ``(B, 3, S, S) -> (B, D)`` of your own to train instead of the recipe's ResNet.
        resume: go on from ``checkpoints/last.ckpt`` in ``output``, with the same recipe.
        workers: processes that read images.
        progress: show a progress bar.
        trainer: further arguments of ``lightning.pytorch.Trainer``, such as ``devices`` or ``accelerator``.

    Returns:
        The report.

    Raises:
        ValueError: if nothing can be trained on, a run to resume had another recipe or is damaged, the trainer cannot use
            its arguments, or the weights became NaN or infinite.
        FileNotFoundError: if an image, or the run to resume, does not exist.
    """
    recipe = recipe or Recipe()
    parts = split(annotations, recipe)
    last = output / "checkpoints" / "last.ckpt"
    if resume:
        _check_same_recipe(last, recipe)
    missing = [
        path
        for original in (*parts.train, *parts.validation, *parts.test)
        for path in (original.path, *original.recognizable, *original.unrecognizable)
        if not (images / path).is_file()
    ]
    if missing:
        raise FileNotFoundError(f"{len(missing)} images of the table are not in {images}, e.g. {missing[0]}.")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(recipe.seed, workers=True, verbose=False)
    module = TripletTraining(recipe, backbone)

    def loader(originals: list[Original], *, augment: bool = False) -> DataLoader[Any]:
        data = Triplets(originals, images, recipe.size, augment=augment)
        return DataLoader(data, recipe.batch_size, shuffle=augment, num_workers=workers, persistent_workers=workers > 0)

    judged = "validation/loss" if parts.validation else None
    keep: dict[str, Any] = {"dirpath": last.parent, "enable_version_counter": False}
    # save_last would renew the last checkpoint only together with the best one.
    callbacks: list[Callback] = [ModelCheckpoint(filename="last", **keep)]
    if judged:
        callbacks.append(ModelCheckpoint(filename="best", monitor=judged, **keep))
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("validation/loss", patience=recipe.patience))
    try:
        runner = Trainer(
            max_epochs=recipe.epochs,
            callbacks=callbacks,
            logger=TensorBoardLogger(output, name="", version="tensorboard"),
            log_every_n_steps=1,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **trainer,
        )
    except MisconfigurationException as error:  # an accelerator that is not here, a number of devices that cannot be
        raise ValueError(f"Lightning cannot train with {trainer}: {error}") from error
    with warnings.catch_warnings():
        # Lightning's advice about numbers of workers and of batches is not for the user of a command line.
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        validating = loader(parts.validation) if parts.validation else None
        runner.fit(
            module,
            loader(parts.train, augment=True),
            validating,
            ckpt_path=last if resume else None,
            weights_only=True if resume else None,
        )
        best = last.with_name("best.ckpt") if judged else last
        module.load_state_dict(load_tensors(best, own=True)["state_dict"])
        if not all(value.isfinite().all() for value in module.state_dict().values()):
            raise ValueError(
                f"the weights became NaN or infinite, no encoder is written; learning_rate is {recipe.learning_rate}, try a"
                " lower one."
            )
        tested = runner.test(module, loader(parts.test), verbose=False)[0] if parts.test else {}
        validated = runner.validate(module, loader(parts.validation), verbose=False)[0] if parts.validation else {}
    report = {
        "recipe": dataclasses.asdict(recipe),
        "originals": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        "skipped": [original.name for original in parts.skipped],
        "epochs": runner.current_epoch,
        "results": {name: float(value) for name, value in {**validated, **tested}.items()},
    }
    if runner.is_global_zero:
        save_encoder(module.encoder, output / CHECKPOINT, report)
        write_whole(output / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    return report


def check_writable(
    output: Path, inputs: Sequence[Path], *, overwrite: bool, many: Callable[[], Iterable[Path]] = tuple
) -> None:
    """Refuse an output folder in which a training's files are somebody else's, or read.

    Raises:
        OSError: naming the file.
    """
    is_training = earlier_release(output / REPORT, "recipe", "originals", "results")
    files = [output / CHECKPOINT, output / REPORT, *(output / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))]
    check_outputs(files, inputs=inputs, overwrite=overwrite, many=many, ours=lambda path: is_training or _is_ours(path))


def _is_ours(path: Path) -> bool:
    """Whether a training that has not ended wrote the file: safetensors say so, a checkpoint holds a recipe."""
    if path.suffix != ".ckpt":
        return FORMAT.encode() in path.read_bytes()[:4096]
    try:
        found = load_tensors(path, own=True)["hyper_parameters"]
        return bool(found.keys() == {field.name for field in dataclasses.fields(Recipe)})
    except (TensorFileError, KeyError, TypeError, AttributeError):
        return False


def _check_same_recipe(last: Path, recipe: Recipe) -> None:
    if not last.is_file():
        raise FileNotFoundError(f"{last}: there is nothing to resume.")
    try:
        before = dict(load_tensors(last, own=True)["hyper_parameters"])
    except (TensorFileError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{last} cannot be resumed from, it is damaged or no checkpoint; train without --resume."
        ) from error
    changed = {
        name: (before.get(name), value) for name, value in dataclasses.asdict(recipe).items() if before.get(name) != value
    }
    if changed:
        told = ", ".join(f"{name} was {old!r}, not {new!r}" for name, (old, new) in changed.items())
        raise ValueError(f"the run to resume had another recipe: {told}.")
