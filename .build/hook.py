"""Compile the CPU kernel into a wheel, or beside its sources for an editable installation, where a compiler exists.

``ATTACKER_METRICS_NATIVE=0`` skips it, ``1`` makes its failure that of the build. A wheel that carries it is for one
platform and any Python; one without is for all. The library is no extension module and knows nothing of Python or torch: a
hook of the build backend that is there anyway says all that it takes.
"""

from __future__ import annotations

import os
import platform
import struct
import sysconfig
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "attacker_metrics/engine/native"
VARIABLE = "ATTACKER_METRICS_NATIVE"


class NativeKernel(BuildHookInterface):
    """The hook of the wheel target, which editable installations are built by, too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; whatever goes wrong is told, and leaves a package without the kernel."""
        folder = Path(self.root) / FOLDER
        recipe, trust = _load(folder / "recipe.py"), _load(folder / "trust.py")
        beside = folder / recipe.SHIPPED
        editable = version == "editable"
        if editable:
            beside.unlink(missing_ok=True)
        wish = os.environ.get(VARIABLE, "")
        if wish == "0":
            return
        self._temporary = tempfile.TemporaryDirectory(dir=folder if editable else None, prefix=".building-")
        made = Path(self._temporary.name) / recipe.SHIPPED
        try:
            if struct.calcsize("P") != 8:
                raise RuntimeError("this Python is not a 64-bit one")
            recipe.compile_library(made)
            trust.seal(made, recipe.fingerprint())
            if editable:
                made.replace(beside)
            else:
                build_data["force_include"][str(made)] = f"{FOLDER}/{recipe.SHIPPED}"
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{_platform()}"
        except (OSError, RuntimeError) as error:
            if wish == "1":
                raise
            self.app.display_warning(f"The CPU kernel is not compiled, the engine will run in torch: {error}")

    def finalize(self, *_: object) -> None:
        """Clear up, also what a failed build has left."""
        if hasattr(self, "_temporary"):
            self._temporary.cleanup()


def _load(file: Path) -> ModuleType:
    """A module of the package by itself: the package needs torch, which is not there while it is built."""
    spec = spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform() -> str:
    """As in wheels' names; of a universal Python the half that the compiler works for."""
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return name.replace("universal2", platform.machine())
