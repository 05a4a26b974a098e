"""All scores of a pair of batches in one pass, and their gradients in another.

In: two batches ``(B, 3, H, W)`` and a ``program``, components as numbers. Out: ``(B, number of components)`` by registered
``operators``, computed by the one of the ``backends`` that suits the device: ``eager`` (torch), ``native`` (C++) or
``triton_kernels``; ``self_check`` compares them before the first use.
"""

from attacker_metrics.engine.backends import backend
from attacker_metrics.engine.native import build_native
from attacker_metrics.engine.operators import evaluate
from attacker_metrics.engine.program import Program

__all__ = [
    "Program",
    "backend",
    "build_native",
    "evaluate",
]
