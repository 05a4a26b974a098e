"""Modules of release 0.1 under their old names: imports and pickles from then find what moved in 0.2.

The policy: what moves stays importable under its old name for two minor releases, silently in the first, with a
``DeprecationWarning`` in the second. The old name is the same module, not a copy.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGE = __name__.partition(".")[0]


def _all_into(folder: str, names: str, before: str = "") -> Iterable[tuple[str, str]]:
    return ((before + name, f"{folder}.{name}") for name in names.split())


_MOVED = {
    "module_attackers": "attackers.modules",
    **dict(_all_into("attackers", "filters moments slopes")),
    "backends.eager": "engine.eager.scores",
    **dict(_all_into("engine", "native self_check triton_kernels", "backends.")),
    **dict(_all_into("engine", "backends program")),
    **dict(_all_into("engine.eager", "ms_ssim pearson")),
    **dict(_all_into("scoring", "batch_means components functional loss pair regularized_loss similarity suites")),
    **dict(
        _all_into(
            "metrics",
            "attacker_metric collection five_facts guarded_metric identity leakage_direction stored_names synchronization",
        )
    ),
    "mean_over_images": "quality.mean_over_images",
    **dict(_all_into("reading", "learned strongest")),
    **dict(_all_into("files", "images locations pictures tiff", "evaluation.")),
    **dict(_all_into("pairs", "conventions folders loading manifest manifest_rows split", "evaluation.")),
    "evaluation.reading": "files.decoding",
    "evaluation.pairs": "pairs.sources",
    "evaluation.obfuscations": "pairs.demonstration",
    **dict(_all_into("jobs", "parts processes", "evaluation.")),
    **dict(_all_into("report", "null_picture views", "evaluation.")),
    "evaluation.report": "report.outputs",
    "evaluation.cli": "commands.cli",
    "evaluation.commands.interruption": "jobs.interruption",
    "evaluation.commands.terminal": "report.terminal",
    "evaluation.commands": "commands",
    "comparison.cli": "commands.compare",
    "settings": "_settings",
    "transforms": "_transforms",
}
"""Old name -> new name, both below the package; what is inside a package moved with it."""


class _OldNames:
    """A finder of old names that loads what is now elsewhere; it answers for the package's own old names alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        new = _new_name(fullname)
        return None if new is None else ModuleSpec(fullname, _Loader(new))  # type: ignore[arg-type]


class _Loader:
    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> None:
        """Nothing to make: the module is there, or is imported under its new name."""

    def exec_module(self, module: ModuleType) -> None:
        new = importlib.import_module(self._new)
        inside = module.__name__.partition(".")[2] + "."
        if not hasattr(new, "__path__") and any(old.startswith(inside) for old in _MOVED):
            new.__path__ = []  # it was a package: old names inside of it are looked for
        sys.modules[module.__name__] = new


def install() -> None:
    """Let old names be found, ahead of the files in packages that have both an old and a new name."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames())


def _new_name(fullname: str) -> str | None:
    package, _, old = fullname.partition(".")
    if package != _PACKAGE:
        return None
    inside = ""
    while old:
        if old in _MOVED:
            return f"{_PACKAGE}.{_MOVED[old]}{inside}"
        old, _, last = old.rpartition(".")
        inside = f".{last}{inside}"
    return None
