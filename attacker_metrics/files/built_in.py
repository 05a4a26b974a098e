"""The photographs that ship with the package."""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor

from attacker_metrics.files.images import decode_image


def names() -> list[str]:
    """What the photographs show, sorted; their files are ``NAME.jpg``."""
    folder = resources.files(__package__) / "photographs"
    return sorted(entry.name.removesuffix(".jpg") for entry in folder.iterdir() if entry.name.endswith(".jpg"))


def content(name: str) -> bytes:
    """A photograph's file."""
    return (resources.files(__package__) / "photographs" / f"{name}.jpg").read_bytes()


@torch.inference_mode()
def photograph(name: str) -> Tensor:
    """A photograph ``(3, H, W)``, float32 in [0, 1]."""
    return decode_image(content(name), f"{name}.jpg").pixels
