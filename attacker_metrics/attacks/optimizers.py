"""Optimisers of many independent problems at once: row n of the variables ``(N, D)`` belongs to client n alone.

An optimiser is a frozen record of settings; ``start`` makes a run of it, which takes steps and can let go of finished rows.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Schedule = Literal["constant", "steps", "cosine"]


class Run(Protocol):
    """An optimiser at work."""

    def step(self, variables: Tensor, gradient: Tensor) -> Tensor:
        """The next variables, ``(N, D)``."""

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows only, given by number."""


class Optimizer(Protocol):
    """Settings of an optimiser."""

    def start(self, variables: Tensor, iterations: int) -> Run:
        """Begin at variables ``(N, D)``, to take at most so many steps."""


@dataclass(frozen=True)
class Adam:
    """torch's Adam, which treats every value on its own, hence every client.

    Args:
        learning_rate: at the start.
        signed: whether it sees only the gradient's sign.
        schedule: ``"steps"`` divides the rate by ten after 3/8, 5/8 and 7/8 of the iterations; ``"cosine"`` lets it rise
            over the first 50 and fall to 0.

    Raises:
        ValueError: if the learning rate is not above 0 and finite.
    """

    learning_rate: float = 0.1
    signed: bool = False
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)

    def start(self, variables: Tensor, iterations: int) -> Run:
        """Begin at variables ``(N, D)``."""
        return _AdamRun(self, variables, iterations)

    def rate(self, step: int, iterations: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.schedule == "steps":
            drops = sum(step >= share * iterations for share in (3 / 8, 5 / 8, 7 / 8))
            return self.learning_rate * 0.1**drops
        if self.schedule == "cosine":
            warm_up = min(1.0, (step + 1) / min(50, iterations))
            return self.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / iterations))
        return self.learning_rate


class _AdamRun:
    def __init__(self, settings: Adam, variables: Tensor, iterations: int) -> None:
        self._settings, self._iterations, self._done = settings, iterations, 0
        self._adam = torch.optim.Adam([variables.clone()], lr=settings.learning_rate)

    def step(self, variables: Tensor, gradient: Tensor) -> Tensor:
        (group,) = self._adam.param_groups
        (parameter,) = group["params"]
        parameter.data.copy_(variables)
        parameter.grad = gradient.sign() if self._settings.signed else gradient
        group["lr"] = self._settings.rate(self._done, self._iterations)
        self._adam.step()
        self._done += 1
        moved: Tensor = parameter.detach().clone()
        return moved

    def keep(self, rows: Tensor) -> None:
        (group,) = self._adam.param_groups
        (parameter,) = group["params"]
        state = self._adam.state.pop(parameter)
        kept = parameter.detach()[rows]
        group["params"] = [kept]
        self._adam.state[kept] = {name: value[rows] if value.ndim == 2 else value for name, value in state.items()}


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS without a line search, as DLG was published with; every row takes the iterates of ``torch.optim.LBFGS``.

    torch's own couples all its variables by one curvature and one step size, so that clients would disturb each other; and
    one instance per client could not evaluate them together.

    Args:
        learning_rate: the step size; the first step is shorter, ``min(1, 1 / |gradient|_1)`` of it.
        history: how many updates the curvature is estimated from.

    Raises:
        ValueError: if the learning rate is not above 0 and finite.
    """

    learning_rate: float = 1.0
    history: int = 100

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)

    def start(self, variables: Tensor, iterations: int) -> Run:  # noqa: ARG002 - the protocol's
        """Begin at variables ``(N, D)``."""
        return _LBFGSRun(self, len(variables), variables)


class _LBFGSRun:
    """Two-loop recursion over a history of steps and gradient differences; invalid ones have weight 0 in their row."""

    def __init__(self, settings: LBFGS, rows: int, like: Tensor) -> None:
        self._rate = settings.learning_rate
        self._history: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=settings.history)
        self._scale = like.new_ones(rows, 1)
        self._before: tuple[Tensor, Tensor] | None = None

    def step(self, variables: Tensor, gradient: Tensor) -> Tensor:
        if self._before is None:
            length = self._rate * (1 / _total(gradient.abs()).clamp_min(1e-30)).clamp_max(1)
        else:
            self._learn(variables - self._before[0], gradient - self._before[1])
            length = torch.full_like(self._scale, self._rate)
        direction = self._direction(gradient)
        descends = _total(direction * gradient) <= -1e-9  # torch's tolerance: else the row has arrived
        self._before = variables, gradient
        return torch.where(descends, variables + length * direction, variables)

    def keep(self, rows: Tensor) -> None:
        self._history = deque(((s[rows], y[rows], w[rows]) for s, y, w in self._history), maxlen=self._history.maxlen)
        self._scale = self._scale[rows]
        if self._before is not None:
            self._before = self._before[0][rows], self._before[1][rows]

    def _learn(self, step: Tensor, change: Tensor) -> None:
        curvature = _total(step * change)
        valid = curvature > 1e-10
        weight = torch.where(valid, 1 / curvature, torch.zeros_like(curvature))
        self._history.append((step, change, weight))
        self._scale = torch.where(valid, curvature / _total(change.square()), self._scale)

    def _direction(self, gradient: Tensor) -> Tensor:
        found, shares = -gradient, []
        for step, change, weight in reversed(self._history):
            share = weight * _total(step * found)
            shares.append(share)
            found = found - share * change
        found = self._scale * found
        for (step, change, weight), share in zip(self._history, reversed(shares), strict=True):
            found = found + step * (share - weight * _total(change * found))
        return found


def _check_rate(rate: float) -> None:
    if not 0 < rate < math.inf:
        raise ValueError(f"learning_rate is {rate}; it must be above 0, and finite.")


def _total(rows: Tensor) -> Tensor:
    return rows.sum(dim=1, keepdim=True)
