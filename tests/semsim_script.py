"""In ``processes_script.py``: every rank scores its own uneven share by SemSim, rank 0 saves what ``compute`` returned."""

import torch
import torch.distributed as dist
from torch import nn

from attacker_metrics.semsim import SemSim

SHARES = {0: [3, 1], 1: [], 2: [2]}
"""Rank -> sizes of its batches."""


def encoder():
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8))


def made_encoder():
    module = encoder()
    module(torch.rand(2, 3, 16, 16))  # settles the lazy layer's shape
    return module


def batches(rank):
    generator = torch.Generator().manual_seed(100 + rank)
    for size in SHARES[rank]:
        original = torch.rand(size, 3, 16, 16, generator=generator)
        yield 0.6 * original + 0.4 * torch.rand(original.shape, generator=generator), original


def metrics():
    return [SemSim(made_encoder()), SemSim(made_encoder(), "cosine"), SemSim(made_encoder(), similarity=True)]


def main(folder):
    all_metrics = metrics()
    for preds, target in batches(dist.get_rank()):
        for metric in all_metrics:
            metric.update(preds, target)
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, [metric.compute() for metric in all_metrics])
    if dist.get_rank() == 0:
        torch.save(gathered, folder / "found.pt")
