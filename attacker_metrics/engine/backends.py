"""What the engine runs on: implementations of one interface, chosen by device, dtype and the user's wish.

Each has two functions that fill tensors made by the caller, in the dtype of the computation::

    forward(noisy, clean, finite, program, scores, slopes)
    backward(gradient, noisy, clean, finite, slopes, program, totals)

``scores`` and their ``gradient`` are ``(B, components)``. ``slopes`` and ``totals`` are two tensors each, of the noisy and
of the clean side, empty where not wanted: the slope of every MS-SSIM comparison in every plane that it compares
``(B, planes, H, W)``, in the order of the program, and the gradients of the images ``(B, C, H, W)``. Pairs that are not
``finite`` score NaN, with zero gradient whatever that of their scores is.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from attacker_metrics._names import BACKEND_VARIABLE
from attacker_metrics.engine import native, self_check
from attacker_metrics.engine.eager import scores as eager
from attacker_metrics.engine.program import Program


class Backend(str):
    """What runs: a word equal to ``"torch"``, ``"native"`` or ``"triton"``, that prints with its variant.

    Attributes:
        isa: the variant of the compiled kernel, as ``"avx2"``, else empty.

    Example:
        >>> backend(dtype=torch.float64) == "torch", backend(dtype=torch.float64).isa
        (True, '')
    """

    isa: str = ""

    @classmethod
    def native(cls, isa: str) -> Backend:
        """The compiled kernel in a variant."""
        backend = cls("native")
        backend.isa = isa
        return backend

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.isa})" if self.isa else super().__str__()

    def __repr__(self) -> str:
        return repr(str(self))


class Implementation(Protocol):
    """The interface."""

    def forward(
        self, noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, scores: Tensor, slopes: list[Tensor]
    ) -> None:
        """Fill the scores and, where not empty, the slopes."""

    def backward(
        self,
        gradient: Tensor,
        noisy: Tensor,
        clean: Tensor,
        finite: Tensor,
        slopes: list[Tensor],
        program: Program,
        totals: list[Tensor],
    ) -> None:
        """Fill the gradients that are not empty."""


def backend(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Backend:
    """The implementation by which images of a device and dtype are evaluated.

    ``"native"`` is the compiled CPU kernel, for everything but float64, chosen wherever there is one: it came with the
    package, or :func:`attacker_metrics.build_native` compiled it, or the first call under ``torch.compile``, which needs a
    compiler anyway. Every process checks it once, for its sources and its numbers, and outside the package for who could
    have written it; if it fails, torch runs, with a warning. The answer prints with the variant that suits the processor,
    as ``native (avx2)``, and has it as ``isa``; the environment variable ``ATTACKER_METRICS_ISA``, read when the kernel is
    loaded, names another. ``"torch"`` runs everywhere and needs nothing else. ``"triton"`` is fused kernels for CUDA
    devices, for everything but float64, chosen only where asked for: no device has measured them yet.

    The environment variable ``ATTACKER_METRICS_BACKEND``, read at every call, overrules the choice where it applies:
    ``torch`` keeps to torch, ``native`` builds the kernel if need be, ``triton`` takes the Triton kernels on CUDA devices,
    after one check per device that they give torch's numbers on a small batch. Programs that they do not cover run in torch.

    Args:
        device: of the images.
        dtype: of the images; the wider one if they differ.

    Raises:
        ValueError: if the variable holds another word, or ``ATTACKER_METRICS_ISA`` no variant that this processor can run.
        RuntimeError: if the variable asks for the kernel and it cannot be built or trusted, or for Triton and it is not
            installed or gives other numbers than torch.

    Example:
        >>> import torch
        >>> backend(dtype=torch.float64)
        'torch'
    """
    wanted = os.environ.get(BACKEND_VARIABLE, "")
    if wanted not in ("", "torch", "native", "triton"):
        raise ValueError(f"{BACKEND_VARIABLE} must be 'torch', 'native' or 'triton' or unset, got {wanted!r}.")
    kind = torch.device(device).type
    if kind == "cuda" and wanted == "triton" and dtype != torch.float64:
        if find_spec("triton") is None:
            raise RuntimeError(
                f"{BACKEND_VARIABLE} is 'triton', which is not installed: pip install triton, or unset the variable."
            )
        wrong = self_check.of_triton(torch.device(device)) if torch.cuda.is_available() else ""
        if wrong:
            raise RuntimeError(
                f"{BACKEND_VARIABLE} is 'triton', which fails its check on this device, {wrong}: unset the variable."
            )
        return Backend("triton")
    if wanted == "torch" or kind != "cpu" or dtype == torch.float64:
        return Backend("torch")
    if wanted == "native" and native.loaded() is None:
        built = native.build_native()
        if native.loaded() is None:
            raise RuntimeError(f"the compiled kernel {built} cannot be loaded: delete it and build it again.")
    kernel = native.loaded()
    return Backend.native(kernel.isa) if kernel else Backend("torch")


def implementation(images: Tensor, dtype: torch.dtype, program: Program, *, compiled: bool = False) -> Implementation:
    """What the chosen backend runs on.

    Args:
        images: one side of the pairs.
        dtype: of the computation.
        program: what to evaluate.
        compiled: whether a compiler traced the call: then the machine has one, and the kernel is built with it.
    """
    if compiled and images.device.type == "cpu" and dtype != torch.float64 and not os.environ.get(BACKEND_VARIABLE):
        native.try_to_build()
    chosen = backend(images.device, dtype)
    if chosen == "triton":
        from attacker_metrics.engine import triton_kernels

        return triton_kernels if triton_kernels.supports(program, images.shape[1]) else eager
    return (native.loaded() if chosen == "native" else None) or eager
