"""In ``processes_script.py``: Accelerate and Lightning around the collection; each rank saves what it saw."""

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from distributed_script import Inverting, counted
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, DistributedSampler

from attacker_metrics import MultiAttackerPrivacy

PICTURES = torch.rand(6, 3, 22, 22, generator=torch.Generator().manual_seed(0))
EPOCHS = 2


def hidden(clean):
    return 0.7 * clean + 0.3 * clean.flip(-1)


def make(**settings):
    return MultiAttackerPrivacy(betas=(0.5, 0.5), extra={"own": Inverting()}, **settings)


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.steps = make(prefix="steps/")
        self.members = make(prefix="members/")
        self.whole = make(prefix="whole/")
        self.seen, self.collectives = [], []

    def training_step(self, clean, _index):
        scores = self.steps(hidden(clean) * self.weight, clean)
        self.log_dict(self.steps, on_step=True, on_epoch=True)
        self.seen.append({"clean": clean, "returned": {name: value.detach() for name, value in scores.items()}})
        return scores["steps/pearson"]

    def on_train_batch_end(self, *_):
        self.seen[-1]["logged"] = {
            name: value for name, value in self.trainer.logged_metrics.items() if name.endswith("_step")
        }
        self.seen[-1]["updates"] = [(member._update_count, member._computed) for member in self.steps.values()]

    def validation_step(self, clean, _index):
        self.members.update(hidden(clean), clean)
        self.whole.update(hidden(clean), clean)
        self.log_dict(self.members)

    def on_validation_epoch_end(self):
        values, collectives = counted(self.whole.compute)
        self.collectives.append(collectives)
        self.log_dict(values)
        self.whole.reset()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def accelerate():
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(even_batches=False))
    privacy, sizes = make(), []
    for clean in accelerator.prepare(DataLoader(PICTURES, batch_size=2)):
        privacy.update(hidden(clean), clean)
        sizes.append(len(clean))
    values, collectives = counted(privacy.compute)
    return {"values": values, "collectives": collectives, "sizes": sizes}


def lightning(rank, processes):
    model = Model()
    training = DataLoader(PICTURES, batch_size=2, sampler=DistributedSampler(PICTURES, processes, rank, seed=1))
    validation = DataLoader(PICTURES[:4] if rank == 0 else PICTURES[4:], batch_size=2)  # two batches, and one
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp",
        use_distributed_sampler=False,
        max_epochs=EPOCHS,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **quiet,
    )
    trainer.fit(model, training, validation)
    return {"logged": dict(trainer.callback_metrics), "seen": model.seen, "collectives": model.collectives}


def main(folder):
    found = {"accelerate": accelerate()}
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found["lightning"] = lightning(rank, processes)
    torch.save(found, folder / f"rank{rank}.pt")
