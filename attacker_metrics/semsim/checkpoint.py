"""Encoder <-> file: safetensors, no pickle, with architecture and preprocessing inside."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attacker_metrics._extras import missing_extra
from attacker_metrics.files.tensors import save_tensors
from attacker_metrics.files.writing import write_whole
from attacker_metrics.semsim.encoder import ARCHITECTURES, Encoder, Preprocessing, small_image_resnet

FORMAT = "attacker-metrics semsim 1"


class CheckpointError(ValueError):
    """A file that cannot be used as a SemSim checkpoint; the message says why."""


def save_encoder(encoder: Encoder, path: str | os.PathLike[str], training: dict[str, Any] | None = None) -> None:
    """Write an encoder, whole or not at all.

    Args:
        encoder: what to write.
        path: the file, ``.safetensors`` by custom.
        training: facts about its training for whoever reads the file, anything that JSON can hold.

    Raises:
        ModuleNotFoundError: without safetensors, naming the extra.
        OSError: if the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "architecture": encoder.architecture,
        "preprocessing": json.dumps(dataclasses.asdict(encoder.preprocessing)),
        "training": json.dumps(training or {}),
    }
    try:
        content = save_tensors(encoder.backbone.state_dict(), metadata)
    except ModuleNotFoundError as error:
        raise missing_extra("SemSim's checkpoints need safetensors", "semsim", error) from error
    write_whole(Path(path), content)


def load_encoder(path: str | os.PathLike[str], backbone: nn.Module | None = None) -> Encoder:
    """Read an encoder, ready for scoring.

    Args:
        path: a file of :func:`save_encoder`.
        backbone: a module of the shape that was saved; needed for architecture ``"custom"``, otherwise left out.

    Raises:
        CheckpointError: if the file is no such checkpoint, does not fit the module, or a custom one lacks its module.
        ModuleNotFoundError: without safetensors or torchvision, naming the extra.
        OSError: if the file cannot be read.
    """
    metadata, weights = _read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a SemSim checkpoint of this library: its format is {metadata.get('format')!r}."
        )
    try:
        architecture, facts = metadata["architecture"], json.loads(metadata["preprocessing"])
        preprocessing = Preprocessing(facts["size"], tuple(facts["mean"]), tuple(facts["std"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not say what architecture and preprocessing its encoder has; save it again by save_encoder."
        ) from error
    if backbone is None:
        if architecture not in ARCHITECTURES:
            raise CheckpointError(f"{path} holds a module of your own; pass one of its shape as backbone.")
        backbone = small_image_resnet(architecture)
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the backbone: {' '.join(str(error).split())[:500]}") from error
    return Encoder(backbone, preprocessing, architecture).eval()


def read_training(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts about training that a checkpoint holds.

    Raises:
        CheckpointError: if the file is no such checkpoint.
        ModuleNotFoundError: without safetensors, naming the extra.
        OSError: if the file cannot be read.
    """
    metadata, _ = _read(path)
    try:
        facts: dict[str, Any] = dict(json.loads(metadata.get("training", "{}")))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"what {path} says about its training cannot be read.") from error
    return facts


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Texts and tensors by name."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise missing_extra("SemSim's checkpoints need safetensors", "semsim", error) from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return dict(file.metadata() or {}), weights
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file: {' '.join(str(error).split())}. Encoders are saved by semsim train, or by"
            " save_encoder."
        ) from error
