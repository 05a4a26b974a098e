"""torchmetrics' ``Metric`` -> one that threads, checkpointing, pickle, ``meta`` and shared memory do not mislead."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
from lightning_utilities import apply_to_collection
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import _squeeze_if_scalar
from torchmetrics.utilities.distributed import gather_all_tensors

from attacker_metrics.metrics.synchronization import add_up, can_be_packed, forget

_forgotten: ContextVar[bool] = ContextVar("_forgotten", default=False)


class Lock:
    """A lock that its own thread may take again, and that copies and pickles as a new one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()


def is_recomputing() -> bool:
    """Whether autograd is in a backward pass, as when ``torch.utils.checkpoint`` runs a forward for the second time.

    Not inside of :func:`uncounted`, which forgets what is counted.
    """
    return torch._C._current_graph_task_id() != -1 and not _forgotten.get()


@contextmanager
def uncounted(*metrics: Metric) -> Iterator[None]:
    """Afterwards the metrics, and those inside of them, hold the states from before."""
    parts = [part for metric in metrics for part in metric.modules() if isinstance(part, Metric)]
    if not parts:
        yield
        return
    before = [(part, part._copy_state_dict(), part._update_count, part._computed) for part in parts]
    token = _forgotten.set(True)
    try:
        yield
    finally:
        _forgotten.reset(token)
        for part, states, updates, computed in before:
            vars(part).update(states, _update_count=updates, _computed=computed)


class GuardedMetric(Metric):
    """Base of the library's metrics: what torchmetrics' own leaves to chance.

    - Threads may share it: ``update``, ``forward``, ``compute``, ``reset`` and ``merge_state`` wait for each other.
    - A second run of a forward by ``torch.utils.checkpoint`` is not counted.
    - Casts do not reach the state, which follows to devices; made under ``torch.device("meta")`` it starts at zero with
      ``to_empty``.
    - Processes cannot count into one state: ``share_memory`` is a ``RuntimeError`` that says so.
    """

    __jit_unused_properties__: ClassVar[list[str]] = [*Metric.__jit_unused_properties__, "update_called", "update_count"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._lock = Lock()
        self._in_forward = False

    def settle(self, *, for_good: bool = False) -> None:
        """Give the states the names of what the metric is by now: before it counts, is added to another or stored."""

    @torch.jit.unused
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return its own value."""
        with self._lock, uncounted(*([self] if is_recomputing() else [])):
            self._in_forward = True
            try:
                return super().forward(*args, **kwargs)
            finally:
                self._in_forward = False

    def reset(self) -> None:
        """Forget every batch."""
        with self._lock:
            super().reset()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the state of another metric; see torchmetrics."""
        with self._lock:
            super().merge_state(incoming_state)

    def check_real(self) -> None:
        """Raise a ``RuntimeError`` for a metric that has no memory yet."""
        if self.device.type == "meta":
            raise RuntimeError(
                f"{type(self).__name__} was made under torch.device('meta') and has no memory yet: call"
                " to_empty(device=...) on it, or on the model that holds it; its state then starts at zero."
            )

    def _wrap_update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        wrapped = super()._wrap_update(update)

        @functools.wraps(update)
        def guarded(*args: Any, **kwargs: Any) -> None:
            with self._lock:
                if is_recomputing():
                    return
                self.check_real()
                self.settle(for_good=True)
                wrapped(*args, **kwargs)

        return guarded

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """As torchmetrics', but without its warning of no update, and with our state back after an error."""

        @functools.wraps(compute)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.check_real()
                forget(self)
                if self._computed is not None:
                    return self._computed
                synchronized = self.sync_context(
                    dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
                )
                try:
                    with synchronized:
                        value = apply_to_collection(_squeeze_if_scalar(compute(*args, **kwargs)), Tensor, Tensor.clone)
                except Exception:
                    if self._is_synced:  # torchmetrics would leave the other processes' sums in our state
                        self.unsync()
                    raise
                if self.compute_with_cache:
                    self._computed = value
                return value

        return guarded

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        self.settle()
        if can_be_packed(self):
            add_up([self], dist_sync_fn, process_group or self.process_group)
        else:  # a subclass with other states
            super()._sync_dist(dist_sync_fn or gather_all_tensors, process_group)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._computed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Follow ``fn`` to its device, but keep float64 sums and int64 counts whatever it casts to."""
        kwargs.pop("recurse", None)  # of to_empty, which torchmetrics does not know
        moved = fn(torch.zeros((), device=self.device))
        device = moved.device
        if device.type == "cpu" and moved.is_shared():  # type: ignore[no-untyped-call]
            raise RuntimeError(
                f"{type(self).__name__} cannot be put into shared memory: processes that count into one state lose counts."
                " Call share_memory() on the modules without metrics, give every process a metric of its own, and add"
                " them up: total.merge_state(part)."
            )

        return super()._apply(lambda value: on_device(value, device), *args, **kwargs)


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on another device, in its own dtype; from ``meta``, where there is nothing to copy, as zeros."""
    if value.is_meta and device.type != "meta":
        return torch.zeros(value.shape, dtype=value.dtype, device=device)
    try:
        return value.to(device)
    except TypeError:  # a device without float64, such as Apple's GPUs
        return value.float().to(device)
