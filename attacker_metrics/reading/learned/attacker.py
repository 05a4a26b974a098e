"""What learned attackers share: they see the fit split once, remember whom they saw, and then map images to views."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacker_metrics.metrics.identity import Learned, identity_of
from attacker_metrics.scoring.pair import Pair, as_computed

Id = str | int
Ids = Sequence[Id] | Tensor | NDArray[Any]
"""Names or numbers of the images of a batch; loaders deliver numbers as a tensor. 7 and "7" are the same name."""


class NotFittedError(RuntimeError):
    """A learned attacker was asked to attack before ``fit_compute``."""


class FitOverlapError(ValueError):
    """An image is to be scored that the attacker was fitted on, which would flatter the attacker."""


class LearnedAttacker(nn.Module, ABC):
    """An attacker ``(B, 3, H, W) -> (B, 3, H, W)`` that is fitted on pairs of noisy and clean images.

    Feed the fit split through :meth:`fit_update`, batch by batch, call :meth:`fit_compute` once (in every process), then
    use it as any attacker, in a :class:`~attacker_metrics.Component` or by calling it. The gradient flows through the view,
    not through the fit. A subclass implements ``_observe``, ``_solve`` and ``_view``, and, for fits that are stored or
    merged half-way, ``_observed``, ``_take_over`` and ``_forget``.

    ``state_dict`` also holds an unfinished fit: what *this* process has taken in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_fitted = False
        self.fit_count = 0
        """How many pairs this process has fed to the fit; pairs with a NaN or infinite pixel are left out."""
        self._seen: set[int] = set()
        self._offered = 0  # pairs, the left out too: it numbers those without a name
        self._fit: str | None = None  # a digest of the fit, the same in every process that took part

    def fit_update(self, noisy: Tensor, clean: Tensor, ids: Ids | None = None) -> None:
        """Learn from a batch.

        Args:
            noisy: noisy images ``(B, 3, H, W)``; may leave [0, 1].
            clean: clean images in [0, 1], same shape and device.
            ids: a name or number for every pair, by which scoring it later is refused.

        Raises:
            TypeError: for tensors that are not floating.
            ValueError: for other shapes, clean values outside [0, 1] by more than 1e-3, or another number of ids.
            RuntimeError: if the fit was computed already.
        """
        self._check_unfitted()
        pair = Pair(noisy, clean)
        names = None if ids is None else names_of(ids, len(pair))
        if not bool(pair.clean_in_range.all()):
            raise ValueError("clean images leave [0, 1] by more than 1e-3; denormalise them, e.g. clean * std + mean.")
        keys = names or [f"number {self._offered + i}" for i in range(len(pair))]
        self._offered += len(pair)
        self._seen.update(map(_hash, names or ()))
        finite = pair.finite.nonzero()[:, 0]
        with torch.no_grad():
            dtype = torch.promote_types(pair.dtype, torch.float32)
            x, y = (as_computed(side.detach()[finite], dtype) for side in (noisy, clean))
            self._observe(x, y, [keys[i] for i in finite.tolist()])
        self.fit_count += len(finite)

    def fit_compute(self) -> None:
        """Fit, from the pairs of all processes; every process calls it, and gets the same attacker.

        Once is enough: metrics that share the attacker may call it again, to no effect.

        Raises:
            ValueError: if there were too few pairs.
        """
        if self.is_fitted:
            return
        with torch.inference_mode(mode=False):
            self._solve()
        self._seen = set().union(*gathered(self._seen))
        self.is_fitted = True
        self._fit = gathered(self._digest_of_fit())[0]  # other machines may round otherwise

    def fit_state(self) -> dict[str, Any]:
        """What an unfinished fit has taken in so far, with tensors on the CPU: for :meth:`fit_merge`, in any process.

        Raises:
            RuntimeError: if the fit was computed already.
        """
        self._check_unfitted()
        return {
            "fit_count": self.fit_count,
            "seen": sorted(self._seen),
            "offered": self._offered,
            "observed": self._observed(),
        }

    def fit_merge(self, state: Mapping[str, Any]) -> None:
        """Learn from what another attacker of the same settings has taken in.

        Args:
            state: its :meth:`fit_state`.

        Raises:
            RuntimeError: if the fit was computed already.

        Example:
            >>> from attacker_metrics.reading.learned import LinearAttacker
            >>> clean = torch.rand(4, 3, 32, 32)
            >>> one, other = LinearAttacker(), LinearAttacker()
            >>> one.fit_update(1 - clean[:2], clean[:2])
            >>> other.fit_update(1 - clean[2:], clean[2:])
            >>> one.fit_merge(other.fit_state())
            >>> one.fit_count
            4
        """
        self._check_unfitted()
        self.fit_count += state["fit_count"]
        self._seen.update(state["seen"])
        self._offered += state["offered"]
        self._take_over(state["observed"])

    def check_unseen(self, ids: Iterable[Id] | Ids) -> None:
        """Raise a :class:`FitOverlapError` if one of the ids belongs to a pair of the fit split."""
        seen = [name for name in names_of(ids) if _hash(name) in self._seen]
        if seen:
            raise FitOverlapError(
                f"{len(seen)} images were in the fit split, such as {seen[0]!r}; score only images that"
                f" {type(self).__name__} was not fitted on."
            )

    def check_fitted(self) -> None:
        """Raise a :class:`NotFittedError` before ``fit_compute``."""
        if not self.is_fitted:
            raise NotFittedError(
                f"{type(self).__name__} is not fitted: feed it the fit split by fit_update(noisy, clean, ids), then call"
                " fit_compute()."
            )

    @torch.jit.unused
    def forward(self, x: Tensor) -> Tensor:
        """What the attacker makes of noisy images, ``(B, 3, H, W)``."""
        self.check_fitted()
        return self._view(x)

    def get_extra_state(self) -> dict[str, Any]:
        """What ``state_dict`` holds besides the parameters: hashes of whom it saw, and a fit as far as it went."""
        unfinished = None if self.is_fitted else self.fit_state()
        return {
            "is_fitted": self.is_fitted,
            "fit_count": self.fit_count,
            "seen": sorted(self._seen),
            "unfinished": unfinished,
            "fit": self._fit,
        }

    def __metric_identity__(self) -> tuple[str, Learned]:
        """Its settings, which its words tell, and what it was fitted on."""
        fit = (getattr(self, "_fit", None) or self._digest_of_fit()) if self.is_fitted else None
        return repr(self), Learned(fit)

    def _digest_of_fit(self) -> str:
        parameters = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return identity_of(parameters).digest

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        self.is_fitted = False
        self.fit_count, self._offered, self._seen = 0, 0, set()
        self._forget()
        if state["unfinished"] is not None:
            self.fit_merge(state["unfinished"])
        self.is_fitted, self.fit_count, self._seen = state["is_fitted"], state["fit_count"], set(state["seen"])
        self._fit = state.get("fit")  # earlier releases stored none

    def _check_unfitted(self) -> None:
        if self.is_fitted:
            raise RuntimeError(f"{type(self).__name__} is fitted; make a new one to fit it on other images.")

    @abstractmethod
    def _observe(self, noisy: Tensor, clean: Tensor, keys: Sequence[str]) -> None:
        """Take in finite pairs; the keys name them."""

    @abstractmethod
    def _observed(self) -> dict[str, Any]:
        """What was taken in: numbers, lists and tensors on the CPU."""

    @abstractmethod
    def _take_over(self, observed: Mapping[str, Any]) -> None:
        """Take in what :meth:`_observed` of another attacker returned."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop what was taken in."""

    @abstractmethod
    def _solve(self) -> None:
        """Find the parameters, from what all processes took in."""

    @abstractmethod
    def _view(self, x: Tensor) -> Tensor:
        """Apply the parameters."""


def in_fit_split(name: Id, *, share: float = 0.5) -> bool:
    """Whether an image belongs to the fit split, decided by a hash of its name: the same in every run and process.

    Pass the name of its group (the person, the source photograph) rather than of the image where there is one, so that the
    attacker is not scored on other pictures of what it was fitted on.

    Args:
        name: of the image or its group.
        share: how many of all go to the fit split, in (0, 1).

    Raises:
        ValueError: if the share is not between 0 and 1.

    Example:
        >>> sum(in_fit_split(f"image {i}") for i in range(1000))
        497
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share!r}.")
    return _hash(f"split {name}") < share * 2**64


def gathered(mine: Any) -> list[Any]:
    """The object of every process, in the order of ranks."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    everyones = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyones, mine)
    return everyones


def _hash(name: Id) -> int:
    return int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest(), "big")


def names_of(ids: Iterable[Id] | Ids, count: int | None = None) -> list[str]:
    """The ids as text, the same whether they came as a list, an array or a tensor.

    Raises:
        ValueError: if they are not ``count`` of them.
    """
    values = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else ids
    names = [str(value.item() if isinstance(value, Tensor) else value) for value in values]
    if count is not None and len(names) != count:
        raise ValueError(f"ids must name each of the {count} pairs, got {len(names)}.")
    return names
