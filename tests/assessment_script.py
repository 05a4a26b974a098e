"""In ``processes_script.py``: every process assesses the same images, reads only its share, and saves what it found."""

import torch
import torch.distributed as dist
from conftest import SMALL, pictures

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.reading.learned import CNNAttacker, CNNAttackerPearson, LinearAttacker, LinearAttackerMSSSIM
from attacker_metrics.reading.strongest import assess

COUNT = 37


def images(i):
    noisy, clean = pictures(1, 34, 34 + 2 * (i % 2), seed=i)
    if i == 6:  # is scored
        noisy[0, 0, 0, 0] = torch.nan
    return noisy[0], clean[0]


def assessed(read, *, seed=0, ids=range(COUNT)):
    extra = [LinearAttackerMSSSIM(LinearAttacker(3), betas=SMALL), CNNAttackerPearson(CNNAttacker(steps=5))]
    privacy = MultiAttackerPrivacy(betas=SMALL, extra=extra, nan_strategy="ignore")
    return assess(read, ids, privacy, groups=[i // 2 for i in range(COUNT)], batch_size=4, seed=seed)


def as_tensors(found):
    return {
        "ids": list(found.ids),
        "scores": {name: torch.tensor(values) for name, values in found.scores.items()},
        "null": {name: torch.tensor(found.null.mean(name)) for name in found.null.names},
        "p_value": torch.tensor(found.strongest.p_value),
        "winner": found.strongest.winner.tolist(),
        "ceiling": found.ceiling,
        "equal_noise": found.equal_noise,
    }


def error_of(read, **arguments):
    try:
        assessed(read, **arguments)
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def main(folder):
    rank, read = dist.get_rank(), []

    def counted(i):
        read.append(i)
        return images(i)

    def broken(i):
        if rank == 1:
            raise OSError(f"picture {i} is gone")
        return images(i)

    found = {"found": as_tensors(assessed(counted)), "read": len(read)}
    found["broken"] = error_of(broken)
    found["different"] = error_of(images, seed=rank)
    torch.save(found, folder / f"rank{rank}.pt")
