"""Metric states -> their sums over all processes: one collective for any number of metrics.

torchmetrics gathers state by state, with a barrier before each. States here are sums of fixed shape, so those of many
metrics travel as one float64 vector. That is exact: a float64 holds every integer up to 2**53, which is 9e15 images. The
vectors are gathered and then added in the order of the ranks, on every rank alike, so that all of them get the same bits; a
sum made by the network would depend on its algorithm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_sum
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.exceptions import TorchMetricsUserError

Gather = Callable[..., Sequence[Tensor]]
"""torchmetrics' ``dist_sync_fn``: ``gather(tensor, group=group)`` returns the tensors of all processes."""

_BLOCK = 1024
"""Vectors are filled up to a multiple of this, so that ranks which hold different metrics can still be told so.

This is eight kilobytes. Where lengths still differ, as of 100 and 300 metrics, the backend fails in its own words.
"""


def is_joined(metric: Metric) -> bool:
    """Whether the metric's next ``compute`` waits for other processes, by torchmetrics' own settings."""
    return bool(metric._to_sync and metric.distributed_available_fn())


def forget(metric: Metric) -> None:
    """Drop the values that a metric, or a metric inside a wrapper, has cached, where the next ``compute`` is joined.

    Another process may have been updated since. It would wait for ever for one that returns its cached value.
    """
    for part in metric.modules():
        if isinstance(part, Metric) and is_joined(part):
            part._computed = None


def can_be_packed(metric: Metric) -> bool:
    """Whether all of a metric's states are sums that have kept their shape, so that they can travel in one vector."""
    return all(
        isinstance(default, Tensor)
        and not default.is_complex()
        and metric._reductions[name] is dim_zero_sum
        and getattr(metric, name).shape == default.shape
        for name, default in metric._defaults.items()
    )


def add_up(metrics: Sequence[Metric], gather: Gather | None, group: Any) -> None:
    """Replace the states of packable metrics by their sums over the processes of a group, in one collective.

    Args:
        metrics: metrics that :func:`can_be_packed`, the same on every rank.
        gather: a ``dist_sync_fn``, called once; by default ``torch.distributed.all_gather``.
        group: the process group, ``None`` for all processes. A process outside of it keeps its own states.

    Raises:
        RuntimeError: on every rank, if the metrics or their settings differ between ranks.
    """
    names = [(metric, name) for metric in metrics for name in metric._defaults]
    states = [getattr(metric, name) for metric, name in names]
    # No process group moves tensors of Apple's GPUs, which have no float64 either.
    device = torch.device("cpu") if states[0].device.type == "mps" else states[0].device
    float64 = torch.empty(0, dtype=torch.float64, device=device)  # decides the dtype of the whole vector
    vector = torch.cat([float64, *(state.to(device).reshape(-1) for state in states)])
    if gather is None or gather is gather_all_tensors:
        total = _sum_of_ranks(vector, metrics, group)
    else:
        total = torch.stack(list(gather(vector, group=group))).sum(dim=0)
    totals = {dtype: total.to(dtype) for dtype in {state.dtype for state in states}}
    start = 0
    for (metric, name), state in zip(names, states, strict=True):
        part = totals[state.dtype][start : start + state.numel()]
        setattr(metric, name, part.view(state.shape).to(state.device))
        start += state.numel()


@contextmanager
def synchronized(metrics: Iterable[Metric]) -> Iterator[None]:
    """Inside the block, metrics whose ``compute`` would synchronize hold the sums over all processes.

    One collective serves all metrics with the same ``process_group`` and ``dist_sync_fn``. Afterwards every metric has its
    own state again.
    """
    joined = [metric for metric in metrics if is_joined(metric)]
    for metric in joined:
        if metric._is_synced:
            raise TorchMetricsUserError("The Metric has already been synced.")
    try:
        for together in _by_route(joined):
            local = [metric._copy_state_dict() for metric in together]
            add_up(together, together[0].dist_sync_fn, together[0].process_group)
            for metric, state in zip(together, local, strict=True):
                metric._cache, metric._is_synced, metric._to_sync = state, True, False
        yield
    finally:
        for metric in joined:
            metric._to_sync = True
            if metric._is_synced:  # torchmetrics restores the state itself after a compute that went well
                metric.unsync()


@contextmanager
def unwarned_of_no_update(metrics: Iterable[Metric]) -> Iterator[None]:
    """Without torchmetrics' warning of a ``compute`` before any ``update``: one empty rank of many is correct use.

    The metrics seem updated meanwhile: Python's filters of warnings belong to all threads of the process.
    """
    parts = [part for metric in metrics for part in metric.modules() if isinstance(part, Metric)]
    untouched = [part for part in parts if part._update_count == 0]
    for part in untouched:
        part._update_count = 1
    try:
        yield
    finally:
        for part in untouched:
            if part._update_count == 1:
                part._update_count = 0


@runtime_checkable
class _Advising(Protocol):
    def advice(self) -> str: ...


def _by_route(metrics: Iterable[Metric]) -> list[list[Metric]]:
    """Metrics that can share a collective, in the order of the first of each."""
    routes: dict[tuple[int, int], list[Metric]] = {}
    for metric in metrics:
        routes.setdefault((id(metric.dist_sync_fn), id(metric.process_group)), []).append(metric)
    return list(routes.values())


def _sum_of_ranks(vector: Tensor, metrics: Sequence[Metric], group: Any) -> Tensor:
    rank = dist.get_rank(group)
    if rank < 0:
        return vector
    sent = torch.zeros(-(-(len(vector) + 2) // _BLOCK) * _BLOCK, dtype=vector.dtype, device=vector.device)
    sent[0], sent[1], sent[2 : len(vector) + 2] = _fingerprint(metrics), len(vector), vector.detach()
    received = [torch.empty_like(sent) for _ in range(dist.get_world_size(group))]
    with torch.no_grad():
        dist.all_gather(received, sent, group=group)
    rows = torch.stack(received)
    if bool((rows[:, :2] != sent[:2]).any()):
        raise RuntimeError(
            "The processes hold different metrics, or the same with different settings or fits, so their states cannot be"
            " added. Make the metric with the same members, extras and settings on every rank, and compute it in the same"
            " order." + "".join(dict.fromkeys(metric.advice() for metric in metrics if isinstance(metric, _Advising)))
        )
    parts = list(rows[:, 2 : len(vector) + 2])
    parts[rank] = vector  # with its graph: forward's values under dist_sync_on_step stay differentiable
    return torch.stack(parts).sum(dim=0)


def _fingerprint(metrics: Sequence[Metric]) -> int:
    """48 bits, exact in a float64, of the states' names, which tell classes and settings apart."""
    names = "\n".join(name for metric in metrics for name in metric._defaults)
    return int(hashlib.sha256(names.encode()).hexdigest()[:12], 16)
