"""Clipping and noise: the Gaussian mechanism of differential privacy, with its guarantee."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch

from attacker_metrics._extras import missing_extra
from attacker_metrics.defenses.gradients import Gradients, normal_like
from attacker_metrics.defenses.guarantee import gaussian_epsilon, gaussian_epsilon_by_rdp, sampled_gaussian_epsilon

_ERROR = 0.01
"""By how much Opacus' PRV accountant may err upwards."""
_MOST = 200.0
"""Above this epsilon its numbers overflow."""
_CELLS = 1 << 22
"""So many cells its grid may have: seconds, and less than a gigabyte."""


@dataclass(frozen=True)
class ClippedNoise:
    """Clip a client's whole gradient to a Euclidean norm, then add normal noise of ``noise_multiplier * max_norm``.

    Args:
        max_norm: largest norm of all tensors as one vector, above 0.
        noise_multiplier: standard deviation of the noise in units of ``max_norm``, at least 0.

    Raises:
        ValueError: for other values.

    Example:
        >>> gradients = {"w": torch.tensor([[3.0, 4.0]]), "b": torch.zeros(1, 1)}
        >>> clipped = ClippedNoise(max_norm=1.0, noise_multiplier=0.0)(gradients)
        >>> [round(value, 4) for value in clipped["w"][0].tolist()]
        [0.6, 0.8]
    """

    max_norm: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if not (0 < self.max_norm < math.inf and 0 <= self.noise_multiplier < math.inf):
            raise ValueError(
                f"max_norm is {self.max_norm} (above 0), noise_multiplier {self.noise_multiplier} (0 or more); both finite."
            )

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:
        """Defended gradients, name -> ``(N, ...)``."""
        values = torch.cat([gradient.reshape(len(gradient), -1) for gradient in gradients.values()], dim=1)
        factor = self.max_norm / values.norm(dim=1).clamp_min(self.max_norm)
        std = self.noise_multiplier * self.max_norm
        return {
            name: gradient * factor.view(-1, *[1] * (gradient.ndim - 1)) + std * normal_like(gradient, generator)
            for name, gradient in gradients.items()
        }

    def epsilon(
        self, delta: float = 1e-5, *, steps: int, sample_rate: float = 1.0, accountant: Literal["prv", "rdp"] = "prv"
    ) -> float:
        """The epsilon at this delta after so many shared gradients. Lower = more private.

        A single step, and any number of steps with ``sample_rate=1``, have closed forms. Several steps of a sample are left
        to Opacus' accountant where its numbers can be trusted (an epsilon up to 200, a grid of 4 million cells); beyond,
        the lower of the bound by Renyi differential privacy and that without sampling is given, which may be loose.

        It protects the client's contribution as a whole: whether this client, with all images of its group, took part
        (neighbours differ by one contribution, added or removed). An attacker who sees the client's own message, not a sum
        over a random sample of clients, faces ``sample_rate=1``; one message is ``steps=1``. That the client took part is
        then no secret: which images it had, of any two sets, is protected by the larger epsilon of half the noise,
        ``ClippedNoise(max_norm, noise_multiplier / 2).epsilon(...)``, as two clipped gradients differ by up to twice
        ``max_norm``.

        Args:
            delta: chance that the guarantee fails, in (0, 1).
            steps: how many gradients were shared.
            sample_rate: chance that a client takes part in a step, in (0, 1], unknown to the attacker.
            accountant: ``"prv"`` (tighter) or ``"rdp"``, the bound by Renyi differential privacy.

        Returns:
            An upper bound; infinite without noise, or where it exceeds all floats.

        Raises:
            ValueError: for values outside these ranges.
            ModuleNotFoundError: without Opacus, naming the extra.
        """
        if not (0 < delta < 1 and 0 < sample_rate <= 1 and steps >= 1 and steps % 1 == 0):
            raise ValueError(
                f"delta is {delta} (between 0 and 1), steps {steps} (a whole number, at least 1), sample_rate {sample_rate}"
                " (above 0, to 1)."
            )
        if accountant not in ("prv", "rdp"):
            raise ValueError(f"accountant is {accountant!r}; it is 'prv' or 'rdp'.")
        if self.noise_multiplier == 0:
            return float("inf")
        try:
            from opacus.accountants import create_accountant
        except ModuleNotFoundError as error:
            raise missing_extra("epsilon needs Opacus", "study", error) from error

        def opacus(name: str, **settings: float) -> float:
            ledger = create_accountant(name)
            ledger.history = [(self.noise_multiplier, sample_rate, int(steps))]
            with warnings.catch_warnings():
                # The best order at the end of Opacus' list still gives a valid bound; of its numerics the result counts.
                warnings.simplefilter("ignore")
                try:
                    found = float(ledger.get_epsilon(delta, **settings))
                except (ArithmeticError, MemoryError, RuntimeError, ValueError):  # its numbers left what it can hold
                    return math.inf
            return found if found >= 0 else math.inf

        noise = self.noise_multiplier / math.sqrt(steps)
        bound = gaussian_epsilon_by_rdp(noise, delta)
        if sample_rate < 1:
            bound = min(bound, opacus("rdp"))
        if accountant == "rdp":
            return bound
        if sample_rate == 1:
            return gaussian_epsilon(noise, delta)
        if steps == 1:
            return sampled_gaussian_epsilon(noise, delta, sample_rate)
        bound = min(bound, gaussian_epsilon(noise, delta))
        cell = _ERROR / math.sqrt(steps * math.log(12_000 / delta) / 2)
        if bound > _MOST or 2 * bound / cell > _CELLS:
            return bound
        return min(bound, opacus("prv", eps_error=_ERROR))
