"""The loaded library as an implementation of the engine."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attacker_metrics.attackers.filters import Wiener
from attacker_metrics.attackers.standard import Attacker
from attacker_metrics.engine.eager.scores import as_computed, keep_freed_memory
from attacker_metrics.engine.program import Program

ISA = "ATTACKER_METRICS_ISA"
_SHARE = 65_536  # pixels that are worth a thread of their own
_AT_ONCE = 2**17  # pixels of a view that torch makes: few enough for the cache, enough to outweigh its preparations


class Kernel:
    """The two functions of ``kernel.cpp``, in the best variant that the processor can run.

    The environment variable ``ATTACKER_METRICS_ISA``, read once, when the library is loaded, names another.

    Args:
        library: that holds them.

    Attributes:
        isas: the variants that the processor can run, the best first.
        isa: the name of the one that runs: ``avx512``, ``avx2`` or ``baseline``; ``neon`` on 64-bit ARM.

    Raises:
        AttributeError: if it does not.
        ValueError: if the variable names a variant that there is not, or that the processor cannot run.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        library.attacker_metrics_isas.restype = ctypes.c_char_p
        self.isas: tuple[str, ...] = tuple(library.attacker_metrics_isas().decode().split())
        self.isa = os.environ.get(ISA) or self.isas[0]
        if self.isa not in self.isas:
            able = ", ".join(map(repr, self.isas))
            raise ValueError(f"{ISA} must be unset or what this processor can run, {able}, got {self.isa!r}.")
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        images = (pointer, pointer, pointer, number, number, number, number, ctypes.c_int)
        self._forward = library[f"attacker_metrics_forward_{self.isa}"]
        self._backward = library[f"attacker_metrics_backward_{self.isa}"]
        self._forward.argtypes = (pointer, pointer, *images, *(pointer,) * 4)
        self._backward.argtypes = (pointer, pointer, *images, *(pointer,) * 5)

    def forward(
        self, noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, scores: Tensor, slopes: list[Tensor]
    ) -> None:
        """Fill the scores and, where not empty, the slopes; see :mod:`attacker_metrics.engine.backends`."""
        given = _views_in_torch(noisy, clean, finite, program)
        places = [given[number].data_ptr() if number in given else None for number in range(len(program.made) + 2)]
        pointers = (ctypes.c_void_p * len(places))(*places)
        _call(self._forward, noisy, clean, finite, program, [scores, *slopes], pointers)
        scores.masked_fill_(~finite[:, None], math.nan)

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
        """Fill the gradients that are not empty; see :mod:`attacker_metrics.engine.backends`."""
        saved = [given.contiguous() for given in (gradient, *slopes)]
        _call(self._backward, noisy, clean, finite, program, [*saved, *totals])


def _views_in_torch(noisy: Tensor, clean: Tensor, finite: Tensor, program: Program) -> dict[int, Tensor]:
    """The views, by number, that the kernel leaves to torch, whose Fourier transforms are faster than any of ours."""
    views = {}
    for number, (attacker, _) in enumerate(program.made, start=2):
        if isinstance(attacker, Wiener):
            chain, root = program.chain(number)
            images = clean if root else noisy
            keep_freed_memory()
            few = max(1, _AT_ONCE // images[0, 0].numel())
            parts = zip(torch.split(images, few), torch.split(finite, few), strict=True)
            views[number] = torch.cat([_follow(chain, as_computed(*part, torch.float32)) for part in parts])
    return views


def _follow(chain: Sequence[Attacker], view: Tensor) -> Tensor:
    for attacker in chain:
        view = attacker(view)
    return view.contiguous()


def _call(
    function: Any, noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, rest: list[Tensor], *given: Any
) -> None:
    integers, numbers = program.to_numbers()
    lists = (ctypes.c_int64 * len(integers))(*integers), (ctypes.c_double * len(numbers))(*numbers)
    inputs = [noisy.to(torch.float32).contiguous(), clean.to(torch.float32).contiguous(), finite.contiguous()]
    pointers = [tensor.data_ptr() for tensor in inputs]
    others = [tensor.data_ptr() if tensor.numel() else None for tensor in rest]
    batch, _, height, width = noisy.shape
    threads = min(torch.get_num_threads(), math.ceil(batch * height * width / _SHARE))
    if function(*lists, *pointers, *noisy.shape, threads, *given, *others):
        raise MemoryError(f"not enough memory for the views of images of {height} x {width} pixels.")
