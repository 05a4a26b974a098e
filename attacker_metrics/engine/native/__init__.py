"""The engine's CPU kernel: ``kernel.cpp``, compiled when the package is installed or built, or else on request.

Without it everything works, in torch; with it the same numbers come faster. The library that came with the package is
used wherever it belongs to these sources and gives torch's numbers. Where the package came without one,
:func:`build_native` compiles it into the user's cache, where every later process finds it, and uses it if it may be trusted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from attacker_metrics._names import BACKEND_VARIABLE
from attacker_metrics._warnings import warn
from attacker_metrics.engine import self_check
from attacker_metrics.engine.native import recipe, trust
from attacker_metrics.engine.native.kernel import Kernel
from attacker_metrics.engine.native.trust import UntrustedLibraryError

SHIPPED = Path(__file__).with_name(recipe.SHIPPED)
_UNFINISHED = "building-"
_CHECK = """
import json, sys
from pathlib import Path
sys.path[:] = json.loads(sys.argv[1])
from attacker_metrics.engine import native
native._load(Path(sys.argv[2]))
"""


def build_native() -> Path:
    """Compile the CPU kernel, once, if the package came without it; needs a C++17 compiler (``$CXX``, c++, g++ or clang++).

    What was compiled is tried in a process of its own before it is put in place, in one step: neither a compiler that is
    interrupted nor two that run at once leave anything wrong behind. A library that is there and cannot be used is
    replaced; the package's own is left as it is.

    Returns:
        The library: the package's own if that can be used, else in ``$ATTACKER_METRICS_CACHE`` or else
        ``$XDG_CACHE_HOME/attacker_metrics`` or ``~/.cache/attacker_metrics``, made for this user alone where it does not
        exist. From then on :func:`attacker_metrics.backend` is ``"native"`` here.

    Example:
        >>> build_native().suffix
        '.so'

    Raises:
        OSError: if the folder cannot be made or written.
        RuntimeError: if there is no compiler, it fails or takes five minutes, what it made does not give torch's numbers,
            there is no home directory, or others can write to the folder, which would let them run code as this user.
    """
    loaded.cache_clear()
    for place in _places():
        with contextlib.suppress(OSError, UntrustedLibraryError):
            _load(place)
            return place
    target = library()
    folder = target.parent
    try:
        trust.make_private(folder)
    except UntrustedLibraryError as error:
        raise RuntimeError(f"The compiled kernel is not put into {folder}: {error}.") from error
    _sweep(folder)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder) as unfinished:
        made = Path(unfinished) / target.name
        recipe.compile_library(made)
        trust.seal(made, _fingerprint())
        check = [sys.executable, "-W", "ignore", "-c", _CHECK, json.dumps(sys.path), str(made)]
        recipe.run(check, name="The check of what the compiler made")
        made.replace(target)
    return target


@functools.cache
def try_to_build() -> None:
    """Build the kernel if that is possible, and never try again."""
    with contextlib.suppress(RuntimeError, OSError):
        build_native()


def library() -> Path:
    """Where the user's own compiled kernel is or would be; the name changes with the sources and the flags.

    Raises:
        RuntimeError: if no folder is named and there is no home directory.
    """
    return _folder() / f"native-{_fingerprint()[:16]}.so"


@functools.cache
def loaded() -> Kernel | None:
    """The compiled kernel, or None where there is none, or one that may not or cannot be used.

    The second is warned about, unless the kernel was asked for by name: then it is built anew, or an error says why not.

    Raises:
        ValueError: if ``ATTACKER_METRICS_ISA`` names a variant that this processor cannot run.
    """
    refused: list[str] = []
    for place in _places():
        try:
            return _load(place)
        except UntrustedLibraryError as error:  # noqa: PERF203 - twice
            refused.append(f"The compiled kernel {place} is not used, torch is: {error}")
        except OSError:
            pass
    if refused and os.environ.get(BACKEND_VARIABLE) != "native":
        warn(f"{refused[0]}. Then attacker_metrics.build_native() builds it anew; {BACKEND_VARIABLE}=torch does without it.")
    return None


def _places() -> Iterator[Path]:
    """Where a library may be: in the package, and in the user's cache if that has a place."""
    yield SHIPPED
    with contextlib.suppress(RuntimeError):
        yield library()


def _load(place: Path) -> Kernel:
    """The kernel at a place, if it may be loaded and gives torch's numbers.

    Raises:
        FileNotFoundError: if there is none.
        UntrustedLibraryError: if it is not used.
        ValueError: if it has no variant as ``ATTACKER_METRICS_ISA`` says.
    """
    shipped = place == SHIPPED
    shared = trust.load(place, _fingerprint(), private=not shipped)
    remedy = "install the package again" if shipped else "delete it"
    try:
        kernel = Kernel(shared)
    except AttributeError as error:
        raise UntrustedLibraryError(f"it lacks a function, {error}; {remedy}") from error
    found: list[str] = []
    # In a thread of its own, which has none of the caller's modes: devices, autocast, inference, tracing.
    checking = threading.Thread(target=lambda: found.append(self_check.disagreement(torch.device("cpu"), kernel)))
    checking.start()
    checking.join()
    reason = found[0] if found else "its check was interrupted"
    if reason:
        raise UntrustedLibraryError(f"its functions fail their check, {reason}; {remedy}")
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
    return recipe.fingerprint()


def _sweep(folder: Path) -> None:
    """Delete what builds that were killed have left."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.lstat().st_mtime > 4 * recipe.PATIENCE and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
