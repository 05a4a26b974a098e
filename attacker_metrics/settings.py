"""Settings as plain numbers: every constructor of the library checks what it was given here.

What comes out is a Python ``float`` or ``int``, whichever spelling came in (``2``, ``2.0``, ``np.float64(2)``, a 0-d
tensor), so that equal settings are equal, hash alike and print alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from torch import Tensor


def number(name: str, given: Any, wanted: str, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """A finite number as a ``float``.

    Args:
        name: of the setting, for messages.
        given: what was given.
        wanted: what it must be, for messages, such as ``"a positive number"``.
        above: a bound that it must exceed.
        least: a bound that it may reach.

    Raises:
        TypeError: if it is no number: a bool, text, None, a list, an array.
        ValueError: if it is out of range, or NaN, or a tensor that requires a gradient, which would get none.

    Example:
        >>> import numpy as np
        >>> number("blur_sigma", np.float64(2), "a positive number", above=0)
        2.0
    """
    value = _plain(name, given, wanted)
    if not (math.isfinite(value) and value > above and value >= least):
        raise ValueError(f"{name} must be {wanted}, got {given!r}.")
    return value


def numbers(name: str, given: Any, wanted: str, example: tuple[float, ...], **bounds: float) -> tuple[float, ...]:
    """One or more finite numbers as a tuple of ``float``; arguments as :func:`number`.

    Args:
        name: of the setting, for messages.
        given: a sequence, an array or a tensor of one dimension.
        wanted: what each must be.
        example: what a right setting looks like, for messages.
        bounds: of :func:`number`.

    Raises:
        TypeError: if it is no sequence, such as a single number or text.
        ValueError: as :func:`number`, or if there is none.

    Example:
        >>> numbers("betas", [0.5, 0.5], "a positive number", (1.0,), above=0)
        (0.5, 0.5)
    """
    scalar = isinstance(given, (str, bytes)) or getattr(given, "ndim", 1) == 0 or not isinstance(given, Iterable)
    if scalar:
        raise TypeError(f"{name} must be a sequence of numbers such as {example}, got {given!r}.")
    values = given.detach().tolist() if isinstance(given, Tensor) and not _learnable(name, given) else list(given)
    if not values:
        raise ValueError(f"{name} is empty: pass one or more numbers, e.g. {example}.")
    return tuple(number(f"every value of {name}", value, wanted, **bounds) for value in values)


def whole(name: str, given: Any, least: int, most: float = math.inf) -> int:
    """A whole number from ``least`` to ``most`` as an ``int``.

    Raises:
        TypeError: if it is no whole number.
        ValueError: if it is out of range.

    Example:
        >>> whole("quality", 50, 1, 100)
        50
    """
    limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"{name} must be a whole number, {limits}, got {given!r}.")
    if not least <= given <= most:
        raise ValueError(f"{name} must be {limits}, got {given!r}.")
    return int(given)


def _plain(name: str, given: Any, wanted: str) -> float:
    if isinstance(given, Tensor) and given.ndim == 0 and not _learnable(name, given):
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"{name} must be {wanted}, got {given!r} of type {type(given).__name__}.")
    return float(given)


def _learnable(name: str, given: Tensor) -> bool:
    if given.requires_grad:
        raise ValueError(
            f"{name} is a constant, but a tensor that requires a gradient was given, which it would never get. Pass numbers,"
            " e.g. value.item(); to learn a weighting, weigh the function's scores yourself."
        )
    return False
