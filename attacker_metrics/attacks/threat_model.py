"""What an attacker knows, and what exactly was attacked: written into every result."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

BatchNormMode = Literal[
    "none",
    "running statistics",
    "batch statistics",
    "running statistics, and batch statistics in layers that keep none",
]
LabelKnowledge = Literal["known", "inferred", "optimised"]


@dataclass(frozen=True)
class ThreatModel:
    """The terms of an attack. It holds digests, never pixels; :meth:`to_dict` is JSON.

    Args:
        gradient: which gradient was attacked, in words.
        batch_norm: by which statistics the client's network normalised: the attacker always knows the mode.
        epoch: of the checkpoint, or None if nobody said.
        checkpoint: SHA-256 of the parameters and buffers that the gradient was taken at.
        defenses: what was done to the gradient before it was shared, in order.
        views: SHA-256 of the exact pixels that went into the network, one per client: to be compared with :func:`digest` of
            the picture that a reconstruction is scored against.
        view_shape: of each of these, ``(B, C, H, W)``.
        labels: what the attacker knows of the labels; None before an attack.
        knows_checkpoint: whether the attacker holds that very checkpoint; None before an attack.
        knows_defenses: whether the attack takes the defences into account; None before an attack.
        attack: name of the attack; None before an attack.
        settings: of the attack.
    """

    gradient: str
    batch_norm: BatchNormMode
    epoch: int | None
    checkpoint: str
    defenses: tuple[str, ...]
    views: tuple[str, ...]
    view_shape: tuple[int, ...]
    labels: LabelKnowledge | None = None
    knows_checkpoint: bool | None = None
    knows_defenses: bool | None = None
    attack: str | None = None
    settings: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def digest(*tensors: Tensor) -> str:
    """SHA-256 of shapes, types and contents.

    Example:
        >>> digest(torch.zeros(2))[:12]
        '76c792ddafe0'
    """
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        # By bytes: NumPy has no bfloat16.
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def checkpoint_digest(model: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers, in the order of their names."""
    state = model.state_dict()
    return digest(*(state[name].float() for name in sorted(state)))
