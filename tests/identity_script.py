"""Run by torchrun: metrics whose attackers differ between ranks in what does not count, or in what does."""

import io

import torch
import torch.distributed as dist

import attacker_metrics as am
from attacker_metrics.reading.learned import LinearAttackerPearson


class Power:
    def __init__(self, power, handle=None):
        self.power, self.handle = power, handle

    def attack(self, x):
        return x.clamp(0, 1) ** self.power


def on(device, power):
    def attack(x, again=True):
        return attack(x, again=False) if again else x.to(torch.device(device).type.replace("cuda", "cpu")) ** power

    return attack


def metric_of(attacker):
    return am.AttackerMetric(am.Component("own", am.SquaredPearson(), noisy=(attacker,)))


def fitted(noisy, clean):
    metric = LinearAttackerPearson()
    metric.fit_update(noisy, clean)
    metric.fit_compute()
    return metric


def main(folder):
    rank = dist.get_rank()
    noisy, clean = torch.rand(2, 2, 3, 22, 22, generator=torch.Generator().manual_seed(rank))
    noisy = clean * 0.5 + 0.5 * noisy
    found = {}
    spellings = {
        "closure": metric_of(on(f"cuda:{rank}", [2, 2.0][rank])),
        "bound": metric_of(Power([2, 2.0][rank]).attack),
        "fit": fitted(noisy, clean),
        "collection": am.MultiAttackerPrivacy(betas=(0.5, 0.5), blur_sigma=[1, 1.0][rank])["pearson_blur"],
    }
    for name, metric in spellings.items():
        if rank == 0 or name != "bound":  # one rank has seen nothing
            metric.update(noisy, clean)
        metric.compute()
        metric.sync()
        found[name] = int(metric.count)
        metric.unsync()
    unlike = {
        "power": metric_of(Power(rank + 2).attack),
        "handle": metric_of(Power(2, io.TextIOWrapper(io.BytesIO())).attack),
    }
    for name, metric in unlike.items():
        metric.update(noisy, clean)
        try:
            metric.compute()
        except RuntimeError as error:
            found[name] = str(error)
    torch.save(found, folder / f"rank{rank}.pt")
