"""In ``processes_script.py``: two processes fit on uneven shares, one of them on nothing; rank 0 saves what each found."""

import torch
import torch.distributed as dist
from conftest import pictures

from attacker_metrics.reading.learned import CNNAttacker, LinearAttacker

SIDE = 40


def shares(rank):
    if rank == 0:
        for seed in (1, 2):
            noisy, clean = pictures(2, SIDE, SIDE, seed=seed)
            yield noisy, clean, [f"{seed} {i}" for i in range(2)]


def main(folder):
    linear, cnn = LinearAttacker(3), CNNAttacker(steps=5)
    for noisy, clean, ids in shares(dist.get_rank()):
        linear.fit_update(noisy, clean, ids)
        cnn.fit_update(noisy, clean, ids)
    for attacker in (linear, cnn):
        attacker.fit_compute()
    found = [None] * dist.get_world_size()
    weights = [linear.weights, *cnn.network.state_dict().values()]
    dist.all_gather_object(found, (weights, sorted(linear._seen)))
    if dist.get_rank() == 0:
        torch.save(found, folder / "found.pt")
