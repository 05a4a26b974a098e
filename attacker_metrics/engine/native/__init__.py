"""The engine's optional CPU kernel: ``kernel.cpp``, compiled on request with the machine's own C++ compiler.

Without it everything works, in torch; with it the same numbers come faster. :func:`build_native` compiles it for this
processor into the user's cache, where every later process finds it, and uses it if it may be trusted and gives torch's
numbers.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from attacker_metrics._warnings import warn
from attacker_metrics.engine import self_check
from attacker_metrics.engine.native import trust
from attacker_metrics.engine.native.kernel import Kernel
from attacker_metrics.engine.native.trust import UntrustedLibraryError

SOURCE = Path(__file__).with_name("kernel.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_SHARED = ("-shared", "-fPIC", "-pthread")
_COMPILERS = ("c++", "g++", "clang++")
_PATIENCE = 300  # seconds for the compiler, which takes a few, and for the check of what it made
_UNFINISHED = "building-"
_CHECK = """
import json, sys
from pathlib import Path
sys.path[:] = json.loads(sys.argv[1])
from attacker_metrics.engine import native
native._load(Path(sys.argv[2]))
"""


def build_native() -> Path:
    """Compile the CPU kernel for this machine, once; needs a C++17 compiler (``$CXX``, c++, g++ or clang++).

    What was compiled is tried in a process of its own before it is put in place, in one step: neither a compiler that is
    interrupted nor two that run at once leave anything wrong behind. A library that is there and cannot be trusted is
    replaced.

    Returns:
        The library, in ``$ATTACKER_METRICS_CACHE`` or else ``$XDG_CACHE_HOME/attacker_metrics`` or
        ``~/.cache/attacker_metrics``, made for this user alone where it does not exist. From then on
        :func:`attacker_metrics.backend` is ``"native"`` here.

    Example:
        >>> build_native().name
        'native-....so'

    Raises:
        OSError: if the folder cannot be made or written.
        RuntimeError: if there is no compiler, it fails or takes five minutes, what it made does not give torch's numbers,
            there is no home directory, or others can write to the folder, which would let them run code as this user.
    """
    target = library()
    loaded.cache_clear()
    with contextlib.suppress(OSError, UntrustedLibraryError):
        _load(target)
        return target
    folder = target.parent
    try:
        trust.make_private(folder)
    except UntrustedLibraryError as error:
        raise RuntimeError(f"The compiled kernel is not put into {folder}: {error}.") from error
    _sweep(folder)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder) as unfinished:
        made = Path(unfinished) / target.name
        command = [*_compiler(), *FLAGS, *_SHARED, str(SOURCE), "-o", str(made)]
        _run(command, shlex.join(command))
        if not made.is_file():
            raise RuntimeError(f"{shlex.join(command)} ended without an error and made nothing.")
        trust.seal(made, _fingerprint())
        check = [sys.executable, "-W", "ignore", "-c", _CHECK, json.dumps(sys.path), str(made)]
        _run(check, f"The check of what {shlex.join(command)} made")
        made.replace(target)
    return target


@functools.cache
def try_to_build() -> None:
    """Build the kernel if that is possible, and never try again."""
    with contextlib.suppress(RuntimeError, OSError):
        build_native()


def library() -> Path:
    """Where the compiled kernel is or would be; the name changes with the source, the flags and the processor.

    Raises:
        RuntimeError: if no folder is named and there is no home directory.
    """
    return _folder() / f"native-{_fingerprint()[:16]}.so"


@functools.cache
def loaded() -> Kernel | None:
    """The compiled kernel, or None where it was not built, or is there and may not or cannot be used.

    The second is warned about, unless the kernel was asked for by name: then it is built anew, or an error says why not.
    """
    from attacker_metrics.engine.backends import VARIABLE

    try:
        place = library()
        return _load(place)
    except UntrustedLibraryError as error:
        if os.environ.get(VARIABLE) != "native":
            warn(
                f"The compiled kernel {place} is not used, torch is: {error}. Then attacker_metrics.build_native() builds"
                f" it anew; {VARIABLE}=torch does without it."
            )
    except (OSError, RuntimeError):  # it was not built; there is no home directory
        pass
    return None


def _load(place: Path) -> Kernel:
    """The kernel at a place, if it may be loaded and gives torch's numbers.

    Raises:
        FileNotFoundError: if there is none.
        UntrustedLibraryError: if it is not used.
    """
    shared = trust.load(place, _fingerprint())
    try:
        kernel = Kernel(shared)
    except AttributeError as error:
        raise UntrustedLibraryError(f"it lacks a function, {error}; delete it") from error
    found: list[str] = []
    # In a thread of its own, which has none of the caller's modes: devices, autocast, inference, tracing.
    checking = threading.Thread(target=lambda: found.append(self_check.disagreement(torch.device("cpu"), kernel)))
    checking.start()
    checking.join()
    reason = found[0] if found else "its check was interrupted"
    if reason:
        raise UntrustedLibraryError(f"its functions fail their check, {reason}; delete it")
    return kernel


def _folder() -> Path:
    named = os.environ.get("ATTACKER_METRICS_CACHE")
    if named:
        return Path(named).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # by its specification: then it counts as not set
        with contextlib.suppress(RuntimeError):
            cache = Path.home() / ".cache"
    if not cache.is_absolute():
        raise RuntimeError(
            "there is no home directory to keep the compiled kernel in: set ATTACKER_METRICS_CACHE to a folder of your own."
        )
    return cache / "attacker_metrics"


@functools.cache
def _fingerprint() -> str:
    digest = hashlib.sha256(trust.MARK)
    digest.update(" ".join((*FLAGS, *_SHARED, platform.system(), platform.machine())).encode())
    for source in sorted((SOURCE, *SOURCE.parent.glob("*.h"))):
        digest.update(source.read_bytes())
    processor = Path("/proc/cpuinfo")
    if processor.exists():  # a home directory may be shared by machines of which only some have AVX-512
        lines = processor.read_text().splitlines()
        digest.update("".join(sorted({line for line in lines if line.startswith(("flags", "Features"))})).encode())
    return digest.hexdigest()


def _compiler() -> list[str]:
    """The compiler and what ``$CXX`` gives it, as in ``ccache g++``."""
    wanted = os.environ.get("CXX")
    for words in [[wanted], shlex.split(wanted)] if wanted else [[name] for name in _COMPILERS]:
        found = shutil.which(words[0]) if words else None
        if found:
            return [found, *words[1:]]
    raise RuntimeError(
        f"no C++ compiler: {wanted or ', '.join(_COMPILERS)} not found. Install one, or set CXX, or do without:"
        " unset ATTACKER_METRICS_BACKEND, and the engine runs in torch."
    )


def _run(command: list[str], name: str) -> None:
    """Run to the end, or to that of our patience, and leave no process behind.

    Args:
        command: and its arguments.
        name: of it in errors.

    Raises:
        RuntimeError: if it fails; the message holds what it said.
    """
    with subprocess.Popen(  # noqa: S603 - the user's compiler, and Python
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "ATTACKER_METRICS_BACKEND": "torch"},
    ) as process:
        try:
            said, _ = process.communicate(timeout=_PATIENCE)
        except BaseException as error:  # also Ctrl-C, which does not reach another session
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"{name} did not end within {_PATIENCE} s.") from error
            raise
    if process.returncode:
        raise RuntimeError(f"{name} failed with exit status {process.returncode}:\n{said[-4000:]}")


def _kill(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):  # a compiler is several processes
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _sweep(folder: Path) -> None:
    """Delete what builds that were killed have left."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.lstat().st_mtime > 4 * _PATIENCE and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
