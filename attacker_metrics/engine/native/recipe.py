"""How the CPU kernel is compiled: the one place that knows its sources, its flags and its variants.

It imports nothing but Python, so that the build hook of the package runs it where torch is not installed. One library
holds ``kernel.cpp`` once per variant, and ``dispatch.cpp``, which tells the variants that a processor can run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHIPPED = "attacker_metrics_kernel.so"
"""The library's name where it is part of the package, beside this file."""
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
PATIENCE = 300  # seconds for all compilers together, which take some ten, and for the check of what they made
_FOLDER = Path(__file__).parent
_COMPILERS = ("c++", "g++", "clang++")
_X86: dict[str, tuple[str, ...]] = {
    "baseline": ("-march=x86-64",),
    "avx2": ("-march=x86-64", "-mavx2", "-mfma"),
    "avx512": ("-march=x86-64", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
}  # from the lowest to the highest: see compile_library; dispatch.cpp asks the processor for just these
_ARM: dict[str, tuple[str, ...]] = {"neon": ()}
_VARIANTS = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}


def variants(machine: str = "") -> dict[str, tuple[str, ...]]:
    """The variants that a library for a machine holds, and what the compiler is told for each.

    Args:
        machine: as ``platform.machine()`` calls it; this one if empty.
    """
    return _VARIANTS.get((machine or platform.machine()).lower(), {"baseline": ()})


def fingerprint() -> str:
    """Of all that a library is made from: sources, flags, and the kind of machine, 64 hexadecimal digits."""
    digest = hashlib.sha256(repr((FLAGS, variants(), sys.platform, platform.machine())).encode())
    for source in sorted((*_FOLDER.glob("*.cpp"), *_FOLDER.glob("*.h"))):
        content = source.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"\0{source.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def compiler() -> list[str]:
    """The compiler and what ``$CXX`` gives it, as in ``ccache g++``.

    Raises:
        RuntimeError: if there is none.
    """
    wanted = os.environ.get("CXX")
    for words in [[wanted], shlex.split(wanted)] if wanted else [[name] for name in _COMPILERS]:
        found = shutil.which(words[0]) if words else None
        if found:
            return [found, *words[1:]]
    raise RuntimeError(
        f"no C++ compiler: {wanted or ', '.join(_COMPILERS)} not found. Install one, or set CXX, or do without:"
        " unset ATTACKER_METRICS_BACKEND, and the engine runs in torch."
    )


def compile_library(target: Path, machine: str = "") -> None:
    """Compile the variants, side by side, and link them; ``$LDFLAGS`` is heeded.

    Args:
        target: the library; objects are left beside it.
        machine: that it is for.

    Raises:
        RuntimeError: if there is no compiler, or it fails or takes too long; the message holds what it said.
    """
    objects = compile_objects(target.parent, machine)
    link = [*compiler(), "-shared", "-pthread", *map(str, objects), *shlex.split(os.environ.get("LDFLAGS", ""))]
    run([*link, "-o", str(target)])
    if not target.is_file():
        raise RuntimeError(f"{shlex.join(link)} ended without an error and made nothing.")


def compile_objects(folder: Path, machine: str = "") -> list[Path]:
    """Compile the variants into a folder.

    Returns:
        The object files, in the order in which they have to be linked. Inline functions of the C++ library that several
        of them hold are kept once, that of the first; so a variant never gets one that is compiled for more than it is.

    Raises:
        RuntimeError: as :func:`compile_library`.
    """
    common = [*compiler(), *FLAGS]
    lowest, *_ = variants(machine).values()
    objects = [folder / "dispatch.o"]
    commands = [[*common, *lowest, "-c", str(_FOLDER / "dispatch.cpp"), "-o", str(objects[0])]]
    for name, flags in variants(machine).items():
        objects.append(folder / f"{name}.o")
        defined = f"-DATTACKER_METRICS_VARIANT={name}"
        commands.append([*common, *flags, defined, "-c", str(_FOLDER / "kernel.cpp"), "-o", str(objects[-1])])
    run(*commands)
    return objects


def run(*commands: Sequence[str], name: str = "") -> None:
    """Run commands side by side to the end, or to that of our patience, and leave no process behind.

    Args:
        commands: each with its arguments.
        name: of them in errors; their own words if empty.

    Raises:
        RuntimeError: if one fails; the message holds what it said.
    """
    end, stop = time.monotonic() + PATIENCE, threading.Event()
    with ThreadPoolExecutor(
        len(commands)
    ) as pool:  # Ctrl-C, which does not reach other sessions, interrupts no thread of it
        try:
            for done in [pool.submit(_run, command, name or shlex.join(command), end, stop) for command in commands]:
                done.result()
        finally:
            stop.set()


def _run(command: Sequence[str], name: str, end: float, stop: threading.Event) -> None:
    process = subprocess.Popen(  # noqa: S603 - the user's compiler, and Python
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "ATTACKER_METRICS_BACKEND": "torch"},
    )
    said = None
    while said is None:
        try:
            said, _ = process.communicate(timeout=0.1)
        except subprocess.TimeoutExpired as error:  # noqa: PERF203 - of a look at the others
            if stop.is_set() or time.monotonic() > end:
                _kill(process)
                process.communicate()
                raise RuntimeError(f"{name} did not end within {PATIENCE} s.") from error
    if process.returncode:
        raise RuntimeError(f"{name} failed with exit status {process.returncode}:\n{said[-4000:]}")


def _kill(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):  # a compiler is several processes
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
