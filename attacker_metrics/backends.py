"""Which implementation the engine runs on."""

from __future__ import annotations

import os
from typing import Literal

import torch

from attacker_metrics import native

Backend = Literal["torch", "native"]
VARIABLE = "ATTACKER_METRICS_BACKEND"


def backend(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Backend:
    """The implementation that images of a device and dtype are evaluated by.

    ``"torch"`` runs everywhere and needs nothing else. ``"native"`` is the compiled CPU kernel, for everything but float64,
    chosen wherever it was built (:func:`attacker_metrics.build_native`). The environment variable
    ``ATTACKER_METRICS_BACKEND``, read at every call, overrules the choice: ``torch`` keeps to torch, ``native`` builds the
    kernel if need be.

    Args:
        device: of the images.
        dtype: of the images; the wider one if they differ.

    Raises:
        ValueError: if the variable holds another word.
        RuntimeError: if the variable asks for the kernel and it cannot be built.

    Example:
        >>> import torch
        >>> backend(dtype=torch.float64)
        'torch'
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "torch", "native"):
        raise ValueError(f"{VARIABLE} must be 'torch' or 'native' or unset, got {wanted!r}.")
    if wanted == "torch" or torch.device(device).type != "cpu" or dtype == torch.float64:
        return "torch"
    if wanted == "native" and native.loaded() is None:
        native.build_native()
    return "native" if native.loaded() else "torch"
