"""Sums over processes, by functions that gather; tests/test_distributed.py has the real processes."""

from contextlib import suppress

import pytest
import torch
import torch.distributed as dist
from torchmetrics import CatMetric, MaxMetric, Metric, SumMetric
from torchmetrics.utilities.exceptions import TorchMetricsUserError
from torchmetrics.wrappers import MinMaxMetric

from attacker_metrics.metrics.synchronization import (
    add_up,
    can_be_packed,
    forget,
    is_joined,
    synchronized,
    unwarned_of_no_update,
)


class Table(Metric):
    """States of two dtypes and shapes."""

    def __init__(self, rows=2, **settings):
        super().__init__(**settings)
        self.add_state("sums", torch.zeros(rows, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, number):
        self.sums = self.sums + number * torch.arange(self.sums.numel()).view(self.sums.shape)
        self.count = self.count + 1

    def compute(self):
        return self.sums.sum() / self.count


class Gather:
    """Of three processes, of which the others have one and two times as much; counts its calls."""

    def __init__(self):
        self.groups = []

    def __call__(self, tensor, group=None):
        self.groups.append((group, tensor.dtype))
        return [tensor, tensor, 2 * tensor]


def joined(cls=SumMetric, number=1.0, **settings):
    metric = cls(distributed_available_fn=lambda: True, **settings)
    metric.update(torch.tensor(number))
    return metric


def test_inside_the_block_metrics_hold_the_sums_of_one_collective_per_route_and_afterwards_their_own():
    gather, other = Gather(), Gather()
    one, table = joined(number=1.5, dist_sync_fn=gather), joined(Table, dist_sync_fn=gather)
    elsewhere = joined(number=5.0, dist_sync_fn=gather, process_group="theirs")
    apart = joined(number=7.0, dist_sync_fn=other)
    alone = joined(number=9.0, dist_sync_fn=other, sync_on_compute=False)
    metrics = [one, elsewhere, table, apart, alone]
    assert [is_joined(metric) for metric in metrics] == [True] * 4 + [False]
    with suppress(KeyError), synchronized(iter(metrics)):
        assert [float(metric.sum_value) for metric in (one, elsewhere, apart, alone)] == [6, 20, 28, 9]
        assert torch.equal(table.sums, 4.0 * torch.arange(6, dtype=torch.float64).view(2, 3))
        assert (table.count.item(), table.count.dtype, one.sum_value.dtype) == (4, torch.int64, torch.float32)
        assert [metric._is_synced for metric in metrics] == [True] * 4 + [False]
        raise KeyError
    assert gather.groups == [(None, torch.float64), ("theirs", torch.float64)]
    assert len(other.groups) == 1
    assert [float(metric.sum_value) for metric in (one, elsewhere, apart, alone)] == [1.5, 5, 7, 9]
    assert [metric._to_sync for metric in metrics] == [True] * 4 + [False]
    assert not any(metric._is_synced for metric in metrics)
    with synchronized([one]):
        assert float(one.compute()) == 6
    assert float(one.sum_value) == 1.5
    one.sync(dist_sync_fn=gather)  # by hand, with torchmetrics' own means
    with pytest.raises(TorchMetricsUserError, match="already been synced"), synchronized([one]):
        pass
    one.unsync()
    assert float(one.sum_value) == 1.5


def test_what_is_cached_is_dropped_where_others_may_have_been_updated():
    inner, alone = joined(dist_sync_fn=Gather()), SumMetric()
    wrapper = MinMaxMetric(inner)
    for metric in (wrapper, inner, alone):
        metric._computed = torch.tensor(3.0)
        forget(metric)
    assert inner._computed is None
    assert float(alone._computed) == 3
    inner._computed = torch.tensor(3.0)
    forget(wrapper)
    assert inner._computed is None


def test_only_sums_that_kept_their_shape_are_packed():
    grown, complex_, listed = Table(), Table(), SumMetric()
    grown.sums = torch.zeros(3, 3)
    complex_.add_state("more", torch.zeros(2, dtype=torch.complex64), dist_reduce_fx="sum")
    listed.add_state("more", [], dist_reduce_fx="sum")
    found = [can_be_packed(metric) for metric in (Table(), SumMetric(), MaxMetric(), CatMetric(), grown, complex_, listed)]
    assert found == [True, True, False, False, False, False, False]


def test_a_metric_without_an_update_seems_updated_meanwhile():
    inner, updated, fed = SumMetric(), joined(), SumMetric()
    with suppress(KeyError), unwarned_of_no_update([MinMaxMetric(inner), updated, fed]):
        fed.update(torch.tensor(1.0))
        assert [metric._update_count for metric in (inner, updated, fed)] == [1, 1, 2]
        raise KeyError
    assert [metric._update_count for metric in (inner, updated, fed)] == [0, 1, 2]


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("rows", [2, 340, 341, 1000])  # 1 block of 1024 numbers, with the head and the count, or more
def test_a_group_of_one_process_adds_up_to_the_same_with_its_graph(tmp_path, rows):
    metric, factor = Table(rows), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    metric.update(1)
    metric.sums = before = metric.sums * factor
    sent = []
    gather = dist.all_gather
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "all_gather", lambda out, vector, group: (sent.append(vector), gather(out, vector, group)))
            add_up([metric], None, None)
    finally:
        dist.destroy_process_group()
    (vector,) = sent
    assert (vector.dtype, vector.requires_grad) == (torch.float64, False)
    assert len(vector) == -(-(rows * 3 + 3) // 1024) * 1024
    assert vector[1] == rows * 3 + 1
    assert torch.equal(metric.sums, before)
    assert metric.count == 1
    metric.sums.sum().backward()
    assert factor.grad == torch.arange(rows * 3).sum()
