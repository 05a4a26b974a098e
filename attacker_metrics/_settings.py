"""Settings as plain numbers: constructors check what they were given here.

What comes out is a Python ``float`` or ``int``, whichever spelling came in (``2``, ``2.0``, ``np.float64(2)``, a 0-d
tensor), so that equal settings are equal, hash alike and print alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral, Real
from typing import Any

from torch import Tensor


class SettingTypeError(ValueError, TypeError):
    """A setting of another type than wanted: a ``ValueError``, as all bad settings here, and Python's ``TypeError``."""


def number(
    name: str, given: Any, predicate: str, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> float:
    """A finite number as a ``float``.

    Args:
        name: of the setting, for messages.
        given: what was given.
        predicate: what it must, for messages, such as ``"be a positive number"``.
        above: a bound that it must exceed.
        least: a bound that it may reach.
        most: another.

    Raises:
        SettingTypeError: if it is no number: a bool, text, None, a list, an array.
        ValueError: if it is out of range, or NaN, or a tensor that requires a gradient, which would get none.

    Example:
        >>> import torch
        >>> number("blur_sigma", torch.tensor(2), "be a positive number", above=0)
        2.0
    """
    value = given
    if not isinstance(given, (int, float)) and getattr(given, "ndim", None) == 0:
        value = _detached(name, given).item()
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise SettingTypeError(f"{name} must {predicate}, got {given!r} of type {type(given).__name__}.")
    value = float(value)
    if not (-math.inf < value < math.inf and value > above and least <= value <= most):  # which a compiler can trace
        raise ValueError(f"{name} must {predicate}, got {given!r}.")
    return value


def sequence(name: str, given: Any, predicate: str) -> tuple[Any, ...]:
    """What a setting lists, each still to be checked, as a tuple.

    Args:
        name: of the setting, for messages.
        given: a sequence, or an array or a tensor of one dimension.
        predicate: what it must, for messages, such as ``"be one or more positive numbers, e.g. (0.5, 2.0)"``.

    Raises:
        SettingTypeError: if it is no sequence: a single number, text, None, a set, a mapping.
        ValueError: if it is a tensor that requires a gradient, which would get none.

    Example:
        >>> sequence("gamma_values", [0.5, 2.0], "be one or more positive numbers")
        (0.5, 2.0)
    """
    if isinstance(given, (tuple, list)):
        return tuple(given)
    refused = isinstance(given, (str, bytes, AbstractSet, Mapping)) or not isinstance(given, Iterable)
    if refused or getattr(given, "ndim", 1) == 0:
        raise SettingTypeError(f"{name} must {predicate}, got {given!r} of type {type(given).__name__}.")
    listed = _detached(name, given)
    return tuple(listed.tolist() if isinstance(listed, Tensor) else listed)


def positive_numbers(name: str, given: Any, predicate: str) -> tuple[float, ...]:
    """One or more finite numbers above 0 as a tuple of ``float``; arguments and errors as :func:`sequence`.

    Raises:
        SettingTypeError: if it is no sequence, or holds what is no number.
        ValueError: if there is none, or one is not positive; with the whole sequence in the message.

    Example:
        >>> positive_numbers("betas", [1, 0.5], "be one or more positive numbers")
        (1.0, 0.5)
    """
    listed = sequence(name, given, predicate)
    try:
        values = tuple(number(f"every value of {name}", value, "be a number", above=0) for value in listed)
    except ValueError:
        values = ()
    if not values:
        raise ValueError(f"{name} must {predicate}, got {listed!r}.")
    return values


def whole(name: str, given: Any, least: int, most: float = math.inf) -> int:
    """A whole number from ``least`` to ``most`` as an ``int``.

    Raises:
        SettingTypeError: if it is no whole number.
        ValueError: if it is out of range.

    Example:
        >>> whole("quality", 50, 1, 100)
        50
    """
    limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise SettingTypeError(f"{name} must be {limits}, a whole number, got {given!r}.")
    value = int(given)
    if not least <= value <= most:
        raise ValueError(f"{name} must be {limits}, got {given!r}.")
    return value


def _detached(name: str, given: Any) -> Any:
    if isinstance(given, Tensor) and given.requires_grad:
        raise ValueError(
            f"{name} is a constant, but a tensor that requires a gradient was given, which it would never get. Pass numbers,"
            " e.g. value.detach(); to learn a weighting, weigh what multi_attacker_privacy_loss returns yourself."
        )
    return given
