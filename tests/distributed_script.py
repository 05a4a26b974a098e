"""Run by the three processes of ``processes_script.py``, as groups of one, two and three, one group after the other.

In each group every rank goes through every scenario with its own uneven share, and saves what it saw.
"""

import os
import socket
import warnings
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from process_group import join, leave
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.utilities.distributed import gather_all_tensors

import attacker_metrics as am
from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.metrics.guarded_metric import GuardedMetric

SETTINGS = {"betas": (0.5, 0.5), "nan_strategy": "ignore"}
SIZES = (3, 1, 2)
"""Of all batches."""
SHARES = {1: [[0, 1, 2]], 2: [[0, 1], [2]], 3: [[0, 1], [], [2]]}
"""Number of processes -> the batches of each rank."""


def batch(index):
    generator = torch.Generator().manual_seed(100 + index)
    clean = torch.rand(SIZES[index], 3, 22, 22, generator=generator)
    noisy = 0.7 * clean + 0.3 * torch.rand(clean.shape, generator=generator)
    if index == 2:
        noisy[0, 0, 0, 0] = torch.nan
    return noisy, clean


class Inverting(am.AttackerMetric):
    """A metric of the user's own."""

    def __init__(self, **kwargs):
        super().__init__(am.Component("invert", am.SquaredPearson(), noisy=(torch.negative,)), **kwargs)


class WithLargest(Inverting):
    """One with a state that is no sum."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("largest", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, preds, target=None):
        super().update(preds, target)
        noisy = preds._given[0] if target is None else preds
        self.largest = torch.maximum(self.largest, noisy.nan_to_num().amax())

    def compute(self):
        return self.largest


class Brightness(MeanMetric):
    """A metric of another library."""

    def update(self, preds, target):
        super().update(target)


def make(**settings):
    return MultiAttackerPrivacy(**{**SETTINGS, **settings})


def extras(**settings):
    ours = {"nan_strategy": "ignore", **settings}
    return {"own": Inverting(**ours), "foreign": Brightness(**settings), "largest": WithLargest(**ours)}


def updated(metric, indices):
    for index in indices:
        metric.update(*batch(index))
    return metric


class Collectives(TorchDispatchMode):
    """Every collective that is made, by the name that torch's dispatcher gives it."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        if function.namespace == "c10d":
            self.seen[function.name().split(".")[0]] += 1
        return function(*arguments, **(settings or {}))


def counted(function):
    """What a call returns, and how often it makes which collective."""
    with Collectives() as collectives:
        value = function()
    return value, dict(collectives.seen)


def raised(function):
    try:
        function()
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def local(metric):
    return [(int(m.count), int(m.skipped), m._is_synced, m._to_sync) for m in metric.values() if hasattr(m, "skipped")]


def own_address():
    """From which this process reaches the first one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((os.environ["MASTER_ADDR"], 9))
        return probe.getsockname()[0]


# --- scenarios: (rank, this rank's batches) -> anything torch can save -------------------------------------------------


def compute(rank, mine):
    metric = updated(make(), mine)
    values, collectives = counted(metric.compute)
    return {"values": values, "collectives": collectives, "local": local(metric), "again": metric.compute()}


def members_alone(rank, mine):
    metric = updated(make(), mine)
    seen = {name: counted(member.compute) for name, member in metric.items()}
    return {
        "values": {name: value for name, (value, _) in seen.items()},
        "collectives": [collectives for _, collectives in seen.values()],
        "local": local(metric),
    }


def stock(rank, mine):
    """The same members as a plain collection whose metrics synchronize as torchmetrics' do."""
    metric = updated(make(), mine)
    for member in metric.values():
        member._sync_dist = super(GuardedMetric, member)._sync_dist
    return counted(MetricCollection(dict(metric.items())).compute)[1]


def manual_sync(rank, mine):
    metric = updated(make(), mine)["pearson_rgb"]
    _, collectives = counted(metric.sync)
    during = int(metric.count)
    metric.unsync()
    return {"collectives": collectives, "during": during, "after": int(metric.count)}


def only_one_rank_goes_on(rank, mine):
    metric = updated(make(extra=extras()), mine)
    member = updated(am.RGBPearson(nan_strategy="ignore"), mine)
    metric.compute(), member.compute()
    if rank == 0:
        updated(metric, [1]), updated(member, [1])
    return {"values": metric.compute(), "member": member.compute()}


def extra(rank, mine):
    metric = updated(make(extra=extras()), mine)
    values, collectives = counted(metric.compute)
    alone = make(extra=extras())
    singly = [counted(updated(alone[name], mine).compute)[1] for name in ("foreign", "largest")]
    return {"values": values, "collectives": collectives, "singly": singly}


def process_group(rank, mine):
    group = dist.new_group(sorted({0, dist.get_world_size() - 1}))
    values, collectives = counted(updated(make(process_group=group), mine).compute)
    return {"values": values, "collectives": collectives}


def dist_sync_fn(rank, mine):
    shapes = []

    def gather(tensor, group=None):
        shapes.append((tuple(tensor.shape), tensor.dtype))
        return gather_all_tensors(tensor, group)

    return {"values": updated(make(dist_sync_fn=gather), mine).compute(), "shapes": shapes}


def no_sync(rank, mine):
    found = {}
    for settings in ({"sync_on_compute": False}, {"distributed_available_fn": lambda: False}):
        found[next(iter(settings))] = counted(updated(make(**settings), mine or [0]).compute)
    return found


def an_error_on_one_rank(rank, mine):
    """Flags as an accelerator leaves them: one image out of range on the last rank; a NaN under nan_strategy="error"."""
    found = {}
    for strategy in ("ignore", "error"):
        metric = updated(make(nan_strategy="ignore"), mine)
        for member in metric.values():
            member.nan_strategy = strategy
            if strategy == "ignore" and rank == dist.get_world_size() - 1:
                member.merge_state({**member.metric_state, member._state("out_of_range"): torch.tensor(1)})
        found[strategy] = [raised(metric.compute), raised(metric["pearson_rgb"].compute), local(metric)]
        metric.reset()
        for member in metric.values():
            member.nan_strategy = "ignore"
        found[strategy].append(updated(metric, mine).compute())
    return found


def ranks_that_differ(rank, mine):
    first = rank == 0
    many = {f"more {number}": Inverting(nan_strategy="ignore") for number in range(30)}
    metrics = (
        *(make(blur_sigma=1.0 if first else 2.0), make(compute_ms_ssim=first)),
        *(make(extra=extra if first else ()) for extra in (extras(), many)),
    )
    return [raised(metric.compute) for metric in metrics]


def exact_counts(rank, mine):
    metric = am.RGBPearson()
    setattr(metric, metric._state("count"), torch.tensor(2**50 + rank))
    metric.sync()
    return int(metric.count)


def forward(rank, mine):
    """Step by step, as many on every rank."""
    found = {}
    for on_step in (False, True):
        metric = make(extra=extras(dist_sync_on_step=on_step), dist_sync_on_step=on_step)
        steps = []
        for index in (0, 1):
            noisy, clean = batch((rank + index) % 3)
            noisy.requires_grad_()
            # The profile of seventeen single synchronizations would take longer than all other scenarios together.
            values, collectives = (metric(noisy, clean), None) if on_step else counted(lambda: metric(noisy, clean))  # noqa: B023
            (gradient,) = torch.autograd.grad(values["pearson_rgb"], noisy)
            cached = all(torch.equal(m._forward_cache, values[name]) for name, m in metric.items())
            steps.append(
                {
                    "values": {name: value.detach() for name, value in values.items()},
                    "collectives": collectives,
                    "gradient": float(gradient.abs().sum()),
                    "book": [cached, *{(m._update_count, m._computed) for m in metric.values()}],
                }
            )
        found[on_step] = {"steps": steps, "end": metric.compute()}
    return found


def checkpoint(rank, mine):
    metric = make()
    metric.persistent(True)
    updated(metric, mine[:1])
    resumed = make()
    resumed.persistent(True)
    resumed.load_state_dict(metric.state_dict())
    return updated(resumed, mine[1:]).compute()


SCENARIOS = (
    *(compute, members_alone, stock, manual_sync, only_one_rank_goes_on, extra, process_group, dist_sync_fn, no_sync),
    *(an_error_on_one_rank, ranks_that_differ, exact_counts, forward, checkpoint),
)


def main(folder):
    warnings.simplefilter("error", am.AttackerMetricsWarning)
    rank, found = int(os.environ["RANK"]), {}
    for processes, shares in SHARES.items():
        if rank >= processes:
            continue
        join(f"group of {processes}", processes)
        found[processes] = {scenario.__name__: scenario(rank, shares[rank]) for scenario in SCENARIOS}
        found[processes]["address"] = own_address()
        leave()
    torch.save(found, Path(folder) / f"rank{rank}.pt")
