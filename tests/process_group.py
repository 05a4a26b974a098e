"""Joining process groups one after the other, and leaving them, for scripts that run under torchrun."""

import functools
import gc
import os
from pathlib import Path

import torch.distributed as dist
from torch.distributed.nn import functional  # noqa: F401  (before there is a group: see attacker_metrics/learned/cnn.py)
from torch.distributed.rendezvous import rendezvous


def join(name, processes):
    """The group of the first processes of the job, under a name that no other group of the job has."""
    store = dist.PrefixStore(name, _store())
    os.environ["WORLD_SIZE"] = str(processes)  # what Lightning believes
    dist.init_process_group("gloo", store=store, rank=int(os.environ["RANK"]), world_size=processes)


@functools.cache
def _store():
    return next(rendezvous("env://"))[0]


def leave():
    """Destroy the process group, and make sure that it is gone: its threads may abort a process at its end."""
    gc.collect()  # what holds it in a cycle, such as a DistributedDataParallel
    dist.destroy_process_group()
    assert not (threads := threads_of_gloo()), threads


def threads_of_gloo():
    """The names of those that run, none where there is no /proc."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]
