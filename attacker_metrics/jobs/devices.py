"""The name of a device -> the device of this process."""

from __future__ import annotations

import torch

from attacker_metrics.jobs.ending import UsageError, bad_usage


def device_of(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; ``auto`` and ``cuda`` give each process of a host a GPU of its own if there are enough.

    Raises:
        UsageError: if it is not here, naming those that are.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name.split(":")[0]):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise UsageError(f"--device {name}: not available here; available: auto, {there}.")
    if name == "cuda":
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    with bad_usage(RuntimeError):
        return torch.device(name)
