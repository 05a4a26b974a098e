"""How much of a hidden picture can still be read out of what was sent: attackers, similarities, metrics, a loss.

What ``__init__.pyi`` lists, and the folders, are imported when they are first used: help needs no torch, the loss no
torchmetrics.
"""

import importlib
from importlib.util import find_spec
from typing import Any

import lazy_loader

from attacker_metrics import _moved
from attacker_metrics._version import __version__ as __version__

_moved.install()
_exported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _exported(name)
    except AttributeError:
        if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
            raise
    return importlib.import_module(f"{__name__}.{name}")
