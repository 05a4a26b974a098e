"""The engine's optional CPU kernel: ``kernel.cpp``, compiled on request with the machine's own C++ compiler.

Without it everything works, in torch; with it the same numbers come faster. :func:`build_native` compiles it for this
processor into the user's cache, where every later process finds it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacker_metrics.attackers import Attacker
from attacker_metrics.backends.eager import as_computed, keep_freed_memory
from attacker_metrics.filters import Wiener
from attacker_metrics.program import Program

SOURCE = Path(__file__).with_name("kernel.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_SHARED = ("-shared", "-fPIC", "-pthread")
_SHARE = 65_536  # pixels that are worth a thread of their own
_AT_ONCE = 2**17  # pixels of a view that torch makes: few enough for the cache, enough to outweigh its preparations
_COMPILERS = ("c++", "g++", "clang++")


def build_native() -> Path:
    """Compile the CPU kernel for this machine, once; needs a C++17 compiler (``$CXX``, c++, g++ or clang++).

    Returns:
        The library, in ``$ATTACKER_METRICS_CACHE`` or else ``$XDG_CACHE_HOME/attacker_metrics`` or
        ``~/.cache/attacker_metrics``. From then on :func:`attacker_metrics.backend` is ``"native"`` here.

    Example:
        >>> build_native().name
        'native-....so'

    Raises:
        OSError: if the folder cannot be written.
        RuntimeError: if there is no compiler, or it fails; the message holds what it said.
    """
    target = library()
    loaded.cache_clear()
    if loaded() is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            command = [_compiler(), *FLAGS, *_SHARED, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's compiler
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed with exit status {done.returncode}:\n{done.stderr}")
            made.replace(target)
        loaded.cache_clear()
    return target


@functools.cache
def try_to_build() -> None:
    """Build the kernel if that is possible, and never try again."""
    with contextlib.suppress(RuntimeError, OSError):
        build_native()


def library() -> Path:
    """Where the compiled kernel is or would be; the name changes with the source, the flags and the processor."""
    folder = os.environ.get("ATTACKER_METRICS_CACHE")
    base = Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attacker_metrics"
    return base / f"native-{_fingerprint()}.so"


@functools.cache
def _fingerprint() -> str:
    digest = hashlib.sha256(" ".join((*FLAGS, platform.system(), platform.machine())).encode())
    for source in sorted((SOURCE, *SOURCE.parent.glob("*.h"))):
        digest.update(source.read_bytes())
    processor = Path("/proc/cpuinfo")
    if processor.exists():  # a home directory may be shared by machines of which only some have AVX-512
        lines = processor.read_text().splitlines()
        digest.update("".join(sorted({line for line in lines if line.startswith(("flags", "Features"))})).encode())
    return digest.hexdigest()[:16]


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, [wanted] if wanted else _COMPILERS)), None)
    if found is None:
        raise RuntimeError(
            f"no C++ compiler: {wanted or ', '.join(_COMPILERS)} not found. Install one, or set CXX, or do without:"
            " unset ATTACKER_METRICS_BACKEND, and the engine runs in torch."
        )
    return found


@functools.cache
def loaded() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it was not built or cannot be loaded."""
    try:
        kernel = ctypes.CDLL(str(library()))
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    images = (pointer, pointer, pointer, number, number, number, number, ctypes.c_int)
    kernel.attacker_metrics_forward.argtypes = (pointer, pointer, *images, *(pointer,) * 4)
    kernel.attacker_metrics_backward.argtypes = (pointer, pointer, *images, *(pointer,) * 5)
    return kernel


def forward(noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, scores: Tensor, slopes: list[Tensor]) -> None:
    """Fill the scores and, where not empty, the slopes; see :mod:`attacker_metrics.backends`."""
    given = _views_in_torch(noisy, clean, finite, program)
    places = [given[number].data_ptr() if number in given else None for number in range(len(program.made) + 2)]
    pointers = (ctypes.c_void_p * len(places))(*places)
    _call("attacker_metrics_forward", noisy, clean, finite, program, [scores, *slopes], pointers)
    scores.masked_fill_(~finite[:, None], math.nan)


def backward(
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes: list[Tensor],
    program: Program,
    totals: list[Tensor],
) -> None:
    """Fill the gradients that are not empty; see :mod:`attacker_metrics.backends`."""
    _call(
        "attacker_metrics_backward",
        noisy,
        clean,
        finite,
        program,
        [*(given.contiguous() for given in (gradient, *slopes)), *totals],
    )


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
    function: str, noisy: Tensor, clean: Tensor, finite: Tensor, program: Program, rest: list[Tensor], *given: Any
) -> None:
    kernel = loaded()
    assert kernel is not None
    integers, numbers = program.to_numbers()
    lists = (ctypes.c_int64 * len(integers))(*integers), (ctypes.c_double * len(numbers))(*numbers)
    inputs = [noisy.to(torch.float32).contiguous(), clean.to(torch.float32).contiguous(), finite.contiguous()]
    pointers = [tensor.data_ptr() for tensor in inputs]
    others = [tensor.data_ptr() if tensor.numel() else None for tensor in rest]
    batch, _, height, width = noisy.shape
    threads = min(torch.get_num_threads(), math.ceil(batch * height * width / _SHARE))
    if getattr(kernel, function)(*lists, *pointers, *noisy.shape, threads, *given, *others):
        raise MemoryError(f"not enough memory for the views of images of {height} x {width} pixels.")
