"""In ``processes_script.py``: every rank trains a cloak on its share, under DDP and under FSDP; rank 0 saves the weights."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from attacker_metrics import MultiAttackerPrivacyLoss, PrivacyRegularizedLoss

IMAGES, STEPS = 4, 3


class CloakWithLoss(nn.Module):
    """A cloak and its loss in one module, as trainers that wrap everything want it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cloak = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))
        privacy = MultiAttackerPrivacyLoss(
            betas=(0.5, 0.5), normalize="fold", weights={"inverted_gray": 1}, mean=(0.1,) * 3, std=(0.9,) * 3
        )
        self.loss = PrivacyRegularizedLoss(nn.MSELoss(), privacy, alpha=lambda step: step / STEPS)

    def forward(self, clean, step):
        noisy = clean + self.cloak(clean)
        return self.loss(noisy, clean, noisy, clean, step=step)


def images():
    return torch.rand(IMAGES, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def train(module, clean):
    """A few steps; alpha is 0 in the first: the privacy part must not leave parameters without a gradient."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = module(clean, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def whole(weight):
    return (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach()


def main(folder):
    share = images().chunk(dist.get_world_size())[dist.get_rank()]
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    outcome = {}
    for name in ("ddp", "fsdp"):
        module = CloakWithLoss()
        wrapped = DistributedDataParallel(module) if name == "ddp" else fully_shard(module, mesh=mesh)
        losses = train(wrapped, share)
        dist.all_reduce(losses)
        weights = {key: whole(value) for key, value in module.state_dict().items()}
        outcome[name] = {"losses": losses / dist.get_world_size(), "weights": weights}
    if dist.get_rank() == 0:
        torch.save(outcome, folder / "found.pt")
