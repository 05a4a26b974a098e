"""In ``processes_script.py``: two processes train one encoder for SemSim; rank 0 saves the results."""

import torch
import torch.distributed as dist
from test_semsim import small_cnn, tiny_recipe, write_material

from attacker_metrics.faithfulness import read_annotations
from attacker_metrics.semsim.training import train


def main(folder):
    if dist.get_rank() == 0:
        write_material(folder)
    dist.barrier()
    settings = {"accelerator": "cpu", "devices": dist.get_world_size(), "strategy": "ddp"}
    table = read_annotations(folder / "annotations.csv")
    report = train(table, folder, folder / "run", tiny_recipe(epochs=2), backbone=small_cnn(), **settings)
    if dist.get_rank() == 0:
        torch.save(report["results"], folder / "found.pt")
