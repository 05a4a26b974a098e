"""Per-image scores -> metric state: :class:`AttackerMetric`, the base of the library's classes and of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from attacker_metrics._warnings import at_most_one_warning, warn
from attacker_metrics.attackers.modules import evaluating
from attacker_metrics.metrics.five_facts import COLLAPSED, COUNT, OUT_OF_RANGE, SKIPPED, SUM, FiveFacts
from attacker_metrics.scoring.components import Component
from attacker_metrics.scoring.pair import Pair, check_images
from attacker_metrics.scoring.similarity import MSSSIM

NanStrategy = Literal["warn", "ignore", "error"]


class NonFiniteImageError(ValueError, RuntimeError):
    """A pixel is NaN or infinite under ``nan_strategy="error"``.

    It is a ``ValueError``, as all bad input here, and a ``RuntimeError``, as torchmetrics raises for that strategy.
    """


class AttackerMetric(FiveFacts):
    """Mean over all images of one component's score, or of the mean of several components.

    Subclass it to make a metric of your own attacker: pass the base a :class:`~attacker_metrics.Component`.

    State: five scalars, whatever the number of images, summed across processes. A pair of images with a NaN or infinite
    pixel is left out of the mean and counted in ``skipped``. ``forward`` returns the batch's value with its gradient.

    Args:
        components: one component, or several of which each image's score is the mean.
        name: key for reports and state names; by default the name of the only component.
        nan_strategy: what a non-finite pixel causes: ``"warn"`` (an :class:`~attacker_metrics.AttackerMetricsWarning`),
            ``"ignore"``, or ``"error"`` (:class:`NonFiniteImageError`, and the batch is not counted). On an accelerator
            this and the range check happen in ``compute``, so that ``update`` need not wait for the device.
        kwargs: torchmetrics' own keywords, such as ``sync_on_compute``.

    Raises:
        RuntimeError: in ``share_memory``, and in use for a metric made under ``torch.device("meta")``, before ``to_empty``.
        ValueError: for settings out of range. In ``update`` and ``forward``: for shapes other than ``(B, 3, H, W)``,
            images too small, clean values outside [0, 1] by more than 1e-3. An empty batch is a no-op.
        TypeError: in ``update`` and ``forward``, for images that are not floating.

    Example:
        >>> import torch
        >>> from attacker_metrics.attackers import clamp
        >>> from attacker_metrics.scoring.components import Component
        >>> from attacker_metrics.scoring.similarity import MSSSIM
        >>> class Inverting(AttackerMetric):  # how much shows after turning the negative into a positive
        ...     def __init__(self, **kwargs):
        ...         super().__init__(Component("invert", MSSSIM(), noisy=(clamp, self.invert)), **kwargs)
        ...
        ...     @staticmethod
        ...     def invert(x):
        ...         return 1 - x
        >>> metric = Inverting()
        >>> clean = torch.rand(2, 3, 176, 176)
        >>> metric.update(1 - clean, clean)
        >>> metric.compute().round(decimals=4)
        tensor(1.)
        >>> int(metric.count), int(metric.skipped), int(metric.collapsed)
        (2, 0, 0)
    """

    __jit_unused_properties__: ClassVar[list[str]] = [*FiveFacts.__jit_unused_properties__, "count", "skipped", "collapsed"]
    higher_is_better = False
    leakage_direction: ClassVar[Literal["higher", "lower"]] = "higher"
    is_differentiable = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(
        self, *components: Component, name: str | None = None, nan_strategy: NanStrategy = "warn", **kwargs: Any
    ) -> None:
        if not components:
            raise ValueError(f"{type(self).__name__} needs at least one Component.")
        if name is None and len(components) > 1:
            raise ValueError(f"{type(self).__name__} averages {len(components)} components and needs a name.")
        if nan_strategy not in ("warn", "ignore", "error"):
            raise ValueError(f"nan_strategy must be 'warn', 'ignore' or 'error', got {nan_strategy!r}.")
        super().__init__(components, name or components[0].name, **kwargs)
        self.nan_strategy = nan_strategy

    @property
    def count(self) -> Tensor:
        """Number of images in the mean, int64 scalar."""
        return self._fact(COUNT)

    @property
    def skipped(self) -> Tensor:
        """Number of pairs left out because a pixel is NaN or infinite, int64 scalar."""
        return self._fact(SKIPPED)

    @property
    def collapsed(self) -> Tensor:
        """Number of images whose MS-SSIM is 0 because a term was not positive; that 0 does not mean "safe"."""
        return self._fact(COLLAPSED)

    def update(self, preds: Tensor | Pair, target: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: noisy images ``(B, 3, H, W)``, or a :class:`~attacker_metrics.Pair` shared by several metrics.
            target: clean images in [0, 1] of the same shape; left out with a pair.
        """
        with at_most_one_warning():
            pair = self._checked(preds, target)
        if pair is not None:
            BatchFacts([self], pair).add()

    def compute(self) -> Tensor:
        """Mean score of all images seen: float32 scalar in [0, 1], higher = leaks more; NaN if there was none.

        While processes are joined (``torch.distributed``) this is one collective, cached value or not: every rank of the
        group has to call it equally often.
        """
        on_cpu = self._fact(COUNT).device.type == "cpu"
        if on_cpu or not self._in_forward:  # forward does not wait for an accelerator
            skipped, out_of_range, count = torch.stack([self._fact(f) for f in (SKIPPED, OUT_OF_RANGE, COUNT)]).tolist()
            with at_most_one_warning():
                if not self._in_forward:
                    # On a CPU update has warned, and raised; but flags may come from an accelerator, merged or loaded.
                    self._judge(skipped, out_of_range, count, warned=on_cpu)
                self._warn_of_nothing(count)
        return (self._fact(SUM) / self._fact(COUNT)).to(torch.float32)

    @torch.jit.unused
    def forward(self, preds: Tensor | Pair, target: Tensor | None = None) -> Tensor:
        """Add a batch and return its own mean score, differentiable, in one evaluation; arguments as :meth:`update`."""
        with self._lock, at_most_one_warning():
            self.check_real()
            pair = self._checked(preds, target)
            if pair is None:
                return super().forward(preds, target)  # type: ignore[no-any-return]
            self.settle(for_good=True)
            self.scores(pair)  # errors come before torchmetrics sets the accumulated state aside
            return super().forward(pair)  # type: ignore[no-any-return]

    def scores(self, pair: Pair) -> Tensor:
        """The score of every image of a pair, ``(B,)``, NaN where a pixel is not finite; the state is not touched."""
        with evaluating(self._module_attackers):
            values = pair.kept_scores(self.components)
        return values[0].clone() if len(values) == 1 else torch.stack(values).mean(dim=0)

    def check(self, pair: Pair) -> None:
        """Raise or warn about clean values outside [0, 1] and non-finite pixels; on an accelerator ``compute`` does.

        Noisy images in 0..255 are warned of, too.
        """
        if pair.device.type == "cpu":
            finite, skipped, out_of_range = pair.counted
            self._judge(skipped, out_of_range, finite, swapped=out_of_range > 0 and pair.seem_swapped)
        pair.warn_of_convention()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or a sequence of values between the bounds 0 and 1; needs matplotlib.

        Args:
            val: what ``compute`` or ``forward`` returned, or a list of it; by default ``compute()`` is called.
            ax: the matplotlib axes to draw on; by default a new figure.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)

    def _checked(self, preds: Tensor | Pair, target: Tensor | None) -> Pair | None:
        """The pair to count, or None for an empty batch; raises or warns about what is wrong with it."""
        if isinstance(preds, Pair):
            if target is not None:
                raise ValueError("target must be left out when preds is a Pair, which holds both sides.")
            pair = preds
        else:
            check_images(preds, target, allow_empty=True)
            if len(preds) == 0:
                return None
            assert target is not None
            pair = Pair(preds, target)
        self.check(pair)
        return pair

    def _judge(self, skipped: int, out_of_range: int, finite: int, *, warned: bool = False, swapped: bool = False) -> None:
        if out_of_range:
            hint = " All noisy ones lie in it: are the two swapped? The noisy images come first, then the clean ones."
            raise ValueError(
                f"{out_of_range} of {finite + skipped} clean images leave [0, 1] by more than 1e-3; denormalise them, e.g."
                f" clean * std + mean, or divide 0..255 values by 255.{hint if swapped else ''}"
            )
        if skipped and self.nan_strategy != "ignore":
            message = f"{skipped} of {finite + skipped} pairs of images hold NaN or infinite pixels"
            if self.nan_strategy == "error":
                raise NonFiniteImageError(f"{message}; nan_strategy='warn' or 'ignore' leaves them out of the mean.")
            if not warned:
                warn(f"{message} and are left out of the mean.")

    def _warn_of_nothing(self, count: int) -> None:
        if self.nan_strategy != "ignore" and count == 0:
            warn("No pair of finite images was seen, so the mean is NaN.")

    def is_plain(self, *methods: str) -> bool:
        """Whether these methods are the base's own, so that the collection may do their work for many metrics at once."""
        if "forward" in methods and (self.dist_sync_on_step or self._is_synced):
            return False
        return all(getattr(type(self), method) is getattr(AttackerMetric, method) for method in methods)

    def collapsed_images(self, pair: Pair) -> Tensor:
        """``(B,)`` bool: at least one of the MS-SSIM components is exactly 0, because a term was not positive."""
        with evaluating(self._module_attackers):
            scores = pair.kept_scores(c for c in self.components if isinstance(c.similarity, MSSSIM))
        if len(scores) == 1:
            return scores[0] == 0
        return (torch.stack(scores) == 0).any(dim=0) if scores else pair.none


class BatchFacts:
    """What a checked pair adds to the states of several metrics, in few operations for all of them together."""

    def __init__(self, metrics: Sequence[AttackerMetric], pair: Pair) -> None:
        self.metrics, self.pair = metrics, pair
        finite, skipped, out_of_range = pair.counts
        scores = torch.stack([metric.scores(pair) for metric in metrics])
        collapsed = torch.stack([metric.collapsed_images(pair) for metric in metrics])
        self._sums = torch.where(pair.finite, scores, 0.0).sum(dim=1, dtype=metrics[0]._fact(SUM).dtype)
        self._added = {
            SUM: self._sums.unbind(),
            COUNT: (finite,) * len(metrics),
            SKIPPED: (skipped,) * len(metrics),
            COLLAPSED: collapsed.sum(dim=1).unbind(),
            OUT_OF_RANGE: (out_of_range,) * len(metrics),
        }

    def add(self) -> None:
        """Add the facts to the states."""
        for fact, values in self._added.items():
            states = torch._foreach_add([metric._fact(fact) for metric in self.metrics], values)
            for metric, state in zip(self.metrics, states, strict=True):
                vars(metric)[metric._state(fact)] = state  # Module.__setattr__ takes longer than the sum

    def means(self) -> list[Tensor]:
        """The batch's own value for each metric, with its graph."""
        if self.pair.device.type == "cpu":
            for metric in self.metrics:
                metric._warn_of_nothing(self.pair.counted[0])
        # Views would share their storage, and those of unbind() refuse `loss += value`.
        return [mean.clone() for mean in (self._sums / self.pair.counts[0]).to(torch.float32).unbind()]
