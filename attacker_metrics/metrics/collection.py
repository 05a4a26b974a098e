"""All components at once: :class:`MultiAttackerPrivacy`, a ``MetricCollection`` that scores each batch once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from attacker_metrics._warnings import at_most_one_warning
from attacker_metrics.attackers.modules import evaluating
from attacker_metrics.attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
)
from attacker_metrics.metrics.attacker_metric import AttackerMetric, BatchFacts, NanStrategy
from attacker_metrics.metrics.guarded_metric import GuardedMetric, Lock, is_recomputing, uncounted
from attacker_metrics.metrics.standard import (
    BlurMSSSIM,
    BlurPearson,
    GammaMSSSIM,
    GammaPearson,
    GrayClampMSSSIM,
    GrayMinMaxMSSSIM,
    GrayPearson,
    MeanMSSSIM,
    MeanPearson,
    RGBClampMSSSIM,
    RGBMinMaxMSSSIM,
    RGBPearson,
    SobelMSSSIM,
    SobelPearson,
    StandardizeMSSSIM,
    WaveletMSSSIM,
    WaveletPearson,
)
from attacker_metrics.metrics.synchronization import can_be_packed, forget, synchronized, unwarned_of_no_update
from attacker_metrics.scoring.components import Component, component_names
from attacker_metrics.scoring.pair import Pair, check_images
from attacker_metrics.scoring.similarity import DEFAULT_BETAS
from attacker_metrics.scoring.suites import added_components


class MultiAttackerPrivacy(MetricCollection):
    """The fifteen components and their two means as one ``MetricCollection``; every member is a metric of its own.

    ``update`` and ``forward`` make each attacker's view once and evaluate each component once, for all members together.
    ``compute`` and ``forward`` return the keys of :func:`~attacker_metrics.multi_attacker_privacy_loss` in its order, then
    those of ``extra``; ``forward``'s values are the batch's and carry its gradient.

    Args:
        gamma_values: exponents of the gamma attacker, one or more, each > 0.
        blur_sigma: standard deviation of the blur attacker in pixels, > 0.
        wavelet_threshold: soft threshold of the wavelet attacker, >= 0.
        compute_ms_ssim: whether to have the nine MS-SSIM components and their mean.
        compute_pearson: whether to have the six squared-Pearson components and their mean.
        betas: MS-SSIM's exponents, one per scale; the smaller side must be at least ``11 * 2 ** (len(betas) - 1)`` pixels:
            11, 22, 44, 88, 176 for one to five.
        nan_strategy: ``"warn"``, ``"ignore"`` or ``"error"`` about pairs with NaN or infinite pixels.
        suite: ``"standard-v1"`` or ``"standard-v2"`` adds the components of that frozen table
            (:mod:`attacker_metrics.scoring.suites`; the second with oracles, for which SciPy of the extra ``cli`` is
            needed), in its order, behind the fifteen and their two means, which stay means of the fifteen.
        extra: further metrics on (noisy, clean) that return a scalar: a mapping of names to metrics, or a sequence of them
            (named by an :class:`~attacker_metrics.AttackerMetric`'s component, others by their class).
        prefix: put before every key.
        postfix: put after every key.
        kwargs: torchmetrics' own keywords for the members, such as ``sync_on_compute``.

    Raises:
        ValueError: for settings out of range, both families off, an unknown suite, settings or families that are not the
            suite's (only ``betas`` may differ, for small images), or an ``extra`` whose name is taken.
        TypeError: if an ``extra`` is not a torchmetrics ``Metric``.

    Example:
        >>> import torch
        >>> metric = MultiAttackerPrivacy(prefix="privacy/")
        >>> clean = torch.rand(2, 3, 176, 176)
        >>> metric.update(1 - clean, clean)
        >>> values = metric.compute()
        >>> len(values), values["privacy/pearson_rgb"].round(decimals=4)
        (17, tensor(1.))
    """

    __jit_unused_properties__: ClassVar[list[str]] = [*MetricCollection.__jit_unused_properties__, "compute_groups"]

    def __init__(
        self,
        *,
        gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
        blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
        wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
        compute_ms_ssim: bool = True,
        compute_pearson: bool = True,
        betas: Sequence[float] = DEFAULT_BETAS,
        nan_strategy: NanStrategy = "warn",
        suite: str | None = None,
        extra: Mapping[str, Metric] | Sequence[Metric] = (),
        prefix: str | None = None,
        postfix: str | None = None,
        **kwargs: Any,
    ) -> None:
        component_names(compute_ms_ssim=compute_ms_ssim, compute_pearson=compute_pearson)  # raises if both are off
        common: dict[str, Any] = {"nan_strategy": nan_strategy, **kwargs}
        ms_ssim: dict[str, Any] = {"betas": betas, **common}
        gamma: dict[str, Any] = {"gamma_values": gamma_values}
        blur: dict[str, Any] = {"blur_sigma": blur_sigma}
        wavelet: dict[str, Any] = {"wavelet_threshold": wavelet_threshold}
        members: list[AttackerMetric] = []
        if compute_ms_ssim:
            members += [
                RGBClampMSSSIM(**ms_ssim),
                RGBMinMaxMSSSIM(**ms_ssim),
                GrayClampMSSSIM(**ms_ssim),
                GrayMinMaxMSSSIM(**ms_ssim),
                SobelMSSSIM(**ms_ssim),
                BlurMSSSIM(**blur, **ms_ssim),
                StandardizeMSSSIM(**ms_ssim),
                GammaMSSSIM(**gamma, **ms_ssim),
                WaveletMSSSIM(**wavelet, **ms_ssim),
            ]
        if compute_pearson:
            members += [
                RGBPearson(**common),
                GrayPearson(**common),
                SobelPearson(**common),
                BlurPearson(**blur, **common),
                GammaPearson(**gamma, **common),
                WaveletPearson(**wavelet, **common),
            ]
        if compute_ms_ssim:
            members.append(MeanMSSSIM(**gamma, **blur, **wavelet, **ms_ssim))
        if compute_pearson:
            members.append(MeanPearson(**gamma, **blur, **wavelet, **common))
        if suite is not None:
            added = added_components(suite, betas=betas)
            _check_settings_of_suite(suite, compute_ms_ssim and compute_pearson, {**gamma, **blur, **wavelet})
            members += [AttackerMetric(component, **common) for component in added.values()]
        # Members share their evaluation, not their states: torchmetrics' grouping of equal states has nothing to add.
        super().__init__({}, prefix=prefix, postfix=postfix, compute_groups=False)
        self._lock = Lock()
        equal: dict[Component, Component] = {}  # each is pickled once
        for member in members:
            member.components = tuple(equal.setdefault(component, component) for component in member.components)
        for name, metric in (*((member.name, member) for member in members), *_named(extra)):
            self._check_name(name)
            self.add_metrics({name: metric})  # one at a time: a mapping of many would be sorted by name
            if isinstance(metric, AttackerMetric):
                metric._lock = self._lock  # threads that use a member wait for those that use all

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what pickle stored, also in earlier releases."""
        super().__setstate__({"_lock": Lock(), **state})  # type: ignore[no-untyped-call]

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Add a batch to every member.

        Args:
            preds: noisy images ``(B, 3, H, W)``; may leave [0, 1].
            target: clean images in [0, 1], same shape and device.
        """
        if is_recomputing():  # torch.utils.checkpoint runs a forward twice
            return
        with self._lock, torch.no_grad(), at_most_one_warning():
            alone, together, pair = self._prepared(preds, target, "update")
            for metric, arguments in alone.values():
                metric.update(*arguments)
            if pair is not None:
                _add(list(together.values()), pair)

    @torch.jit.unused
    def forward(self, preds: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Add a batch to every member and return the batch's own values, differentiable; arguments as :meth:`update`.

        What ``torch.utils.checkpoint`` runs again in the backward pass is evaluated, not counted, again.
        """
        again = list(self._modules.values()) if is_recomputing() else []
        with self._lock, uncounted(*again), at_most_one_warning():
            alone, together, pair = self._prepared(preds, target, "update", "forward", "compute")
            values = {name: metric(*arguments) for name, (metric, arguments) in alone.items()}
            if pair is not None:
                means = _add(list(together.values()), pair).means()
                for (name, metric), mean in zip(together.items(), means, strict=True):
                    values[name] = metric._forward_cache = mean  # type: ignore[assignment]
        return {self._set_name(name): values[name] for name in self._modules}

    def compute(self) -> dict[str, Tensor]:
        """Mean scores over all images that any process has seen: float32 scalars in [0, 1], higher = leaks more.

        While processes are joined (``torch.distributed``) this is one collective for all members, whether values are cached
        or not, and every rank of the group has to call it equally often; ranks may hold any number of batches. Metrics in
        ``extra`` that are not :class:`~attacker_metrics.AttackerMetric` synchronize themselves.

        Raises:
            ValueError: on every rank, if one has seen clean images out of range, or non-finite pixels under
                ``nan_strategy="error"``, on an accelerator; on a CPU its ``update`` has raised at once.
            RuntimeError: on every rank, if the ranks hold different members or settings.
        """
        with self._lock:
            return self._means()

    def _means(self) -> dict[str, Tensor]:
        members = list(self._modules.values())
        ours = [metric for metric in members if isinstance(metric, AttackerMetric) and can_be_packed(metric)]
        for metric in members:
            forget(metric)
            if isinstance(metric, GuardedMetric):
                metric.check_real()
                metric.settle()
        foreign = [metric for metric in members if not isinstance(metric, GuardedMetric)]
        with at_most_one_warning(), unwarned_of_no_update(foreign), synchronized(ours):
            return super().compute()

    def reset(self) -> None:
        """Forget every batch."""
        with self._lock:
            super().reset()

    def merge_state(self, incoming_state: MetricCollection | Mapping[str, Mapping[str, Any]]) -> None:
        """Add the state of a collection with the same members and settings, e.g. one that a worker returned.

        For engines that map and reduce without ``torch.distributed``. Nothing is added if there is an error.

        Args:
            incoming_state: the other collection, or its ``metric_state``.

        Raises:
            ValueError: if members or settings differ, or a foreign member has no state that could be merged.

        Example:
            >>> import torch
            >>> clean = torch.rand(2, 3, 176, 176)
            >>> parts = [MultiAttackerPrivacy(), MultiAttackerPrivacy()]
            >>> for part in parts:
            ...     part.update(1 - clean, clean)
            >>> total = MultiAttackerPrivacy()
            >>> for part in parts:
            ...     total.merge_state(part)
            >>> int(total["ms_ssim"].count)
            4
        """
        if isinstance(incoming_state, MetricCollection):
            theirs: dict[str, Any] = dict(incoming_state._modules)
        else:
            theirs = {name: incoming_state[key] for name in self._modules if (key := self._set_name(name)) in incoming_state}
        if differing := sorted(theirs.keys() ^ self._modules.keys()):
            raise ValueError(f"Only collections with the same members can be merged; one of the two lacks {differing}.")
        with self._lock:
            for metric in self._modules.values():
                if isinstance(metric, GuardedMetric):
                    metric.settle()
            before = {name: (metric._copy_state_dict(), metric._update_count) for name, metric in self._modules.items()}
            try:
                for name, metric in self._modules.items():
                    _merge(name, metric, theirs[name])
            except Exception:
                for name, (states, updates) in before.items():
                    vars(self._modules[name]).update(states, _update_count=updates)
                raise

    def _check_name(self, name: str) -> None:
        """Raise for a name of a member that torch would refuse, or that is taken."""
        if not isinstance(name, str):
            raise TypeError(f"extra: names must be text, got {name!r}.")
        if name in self._modules:
            raise ValueError(f"extra: the name {name!r} is taken; pass a mapping with names of your own.")
        if not name or "." in name or hasattr(self, name):
            raise ValueError(
                f"extra: the name {name!r} cannot be used: it must be a text of one letter or more, without a dot, that is"
                " no attribute of a collection, such as 'update' or 'prefix'; pass a mapping with names of your own, and"
                " what should stand before every key as prefix."
            )

    def _prepared(
        self, preds: Tensor, target: Tensor, *methods: str
    ) -> tuple[dict[str, tuple[Metric, tuple[Any, ...]]], dict[str, AttackerMetric], Pair | None]:
        """Who does what with a batch, once it is known to be good for all of ours: (alone, together, pair).

        Members in ``alone`` are called one by one, with the arguments beside them: foreign metrics, which come first, so
        that an error of theirs leaves our members as they were, and subclasses with methods of their own. The states of
        those in ``together`` are written from the pair directly; an empty batch has no pair, and is nothing to them.
        """
        check_images(preds, target, allow_empty=True)
        for member in self._modules.values():
            if isinstance(member, GuardedMetric):
                member.check_real()
                member.settle(for_good=len(preds) > 0)
        ours = {name: metric for name, metric in self._modules.items() if isinstance(metric, AttackerMetric)}
        pair = Pair(preds, target) if len(preds) > 0 else None
        if pair is not None:
            for metric in ours.values():
                metric.check(pair)
            with evaluating(module for metric in ours.values() for module in metric._module_attackers):
                pair.kept_scores(component for metric in ours.values() for component in metric.components)
        shared = (preds, target) if pair is None else (pair,)
        alone: dict[str, tuple[Metric, tuple[Any, ...]]]
        alone = {name: (metric, (preds, target)) for name, metric in self._modules.items() if name not in ours}
        alone |= {name: (metric, shared) for name, metric in ours.items() if pair is None or not metric.is_plain(*methods)}
        together = {name: metric for name, metric in ours.items() if name not in alone}
        return alone, together, pair if together else None


def _add(metrics: Sequence[AttackerMetric], pair: Pair) -> BatchFacts:
    facts = BatchFacts(metrics, pair)
    with torch.no_grad():
        facts.add()
    for metric in metrics:  # as torchmetrics does around the update of each
        metric._computed = None
        metric._update_count += 1
    return facts


def _merge(name: str, metric: Metric, incoming: Metric | Mapping[str, Any]) -> None:
    if not metric._defaults:
        raise ValueError(f"extra: {name!r}, a {type(metric).__name__}, has no state of its own that could be merged.")
    metric.merge_state(incoming if isinstance(incoming, Metric) else dict(incoming))
    if not isinstance(metric, AttackerMetric):  # ours do this themselves
        metric._update_count += incoming.update_count if isinstance(incoming, Metric) else 0
        metric._computed = None


def _check_settings_of_suite(suite: str, has_both_families: bool, settings: dict[str, Any]) -> None:
    frozen = {
        "gamma_values": DEFAULT_GAMMA_ATTACK_VALUES,
        "blur_sigma": DEFAULT_GAUSSIAN_BLUR_SIGMA,
        "wavelet_threshold": DEFAULT_WAVELET_SOFT_THRESHOLD,
    }
    given = {**settings, "gamma_values": tuple(settings["gamma_values"])}
    changed = [f"{name}={given[name]!r}" for name, value in frozen.items() if given[name] != value]
    if not has_both_families:
        changed.append("a family switched off")
    if changed:
        raise ValueError(
            f"suite {suite!r} is frozen, so that runs compare, got {', '.join(changed)}; leave the suite or the settings"
            " out."
        )


def _named(extra: Mapping[str, Metric] | Sequence[Metric]) -> list[tuple[str, Metric]]:
    if isinstance(extra, Mapping):
        named = list(extra.items())
    else:
        named = [(m.name if isinstance(m, AttackerMetric) else type(m).__name__, m) for m in extra]
    for name, metric in named:
        if not isinstance(metric, Metric):
            raise TypeError(f"extra: {name!r} must be a torchmetrics Metric, got {type(metric).__name__}.")
    return named
