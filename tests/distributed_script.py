"""Run under torchrun: every rank updates with its own uneven share, rank 0 saves what ``compute`` returned."""

import sys

import torch
import torch.distributed as dist

from attacker_metrics import MultiAttackerPrivacy, RGBClampMSSSIM, SobelPearson

SHARES = {0: [3, 1], 1: [], 2: [2]}
"""Rank -> sizes of its batches."""


def batches(rank):
    generator = torch.Generator().manual_seed(100 + rank)
    for size in SHARES[rank]:
        clean = torch.rand(size, 3, 22, 22, generator=generator)
        noisy = 0.7 * clean + 0.3 * torch.rand(clean.shape, generator=generator)
        if rank == 2:
            noisy[0, 0, 0, 0] = torch.nan
        yield noisy, clean


def metrics():
    settings = {"betas": (0.5, 0.5), "nan_strategy": "ignore"}
    return {
        "collection": MultiAttackerPrivacy(**settings),
        "ms_ssim": RGBClampMSSSIM(**settings),
        "pearson": SobelPearson(nan_strategy="ignore"),
    }


def main(path):
    dist.init_process_group("gloo")
    all_metrics = metrics()
    for noisy, clean in batches(dist.get_rank()):
        for metric in all_metrics.values():
            metric.update(noisy, clean)
    values = {name: metric.compute() for name, metric in all_metrics.items()}
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, values)
    local = [None] * dist.get_world_size()
    dist.all_gather_object(local, (int(all_metrics["ms_ssim"].count), int(all_metrics["ms_ssim"].skipped)))
    if dist.get_rank() == 0:
        torch.save({"values": gathered, "local": local}, path)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
