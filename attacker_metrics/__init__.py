"""How much of a hidden picture can still be read out of what was sent: attackers, similarities, metrics, a loss.

What ``__init__.pyi`` lists is imported when it is first used: help needs no torch, the loss no torchmetrics.
"""

import lazy_loader

from attacker_metrics import _moved
from attacker_metrics._version import __version__ as __version__

_moved.install()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
