"""The metrics inside torchmetrics' wrappers, Lightning, and plots."""

import pytest
import torch
from conftest import NAMES, SMALL, every_class, pictures
from torchmetrics import MetricTracker
from torchmetrics.wrappers import BootStrapper, MinMaxMetric, Running

import attacker_metrics as am


def batch(seed):
    return pictures(3, seed=seed)


@every_class
def test_tracker_knows_that_lower_is_better(case):
    tracker = MetricTracker(case.make(), maximize=False)
    values = []
    for seed in range(3):
        tracker.increment()
        noisy, clean = batch(seed)
        tracker.update(noisy if seed else clean, clean)
        values.append(float(tracker.compute()))
    best, step = tracker.best_metric(return_step=True)
    assert best == pytest.approx(min(values))
    assert values[step] == min(values)
    assert tracker.n_steps == 3


def test_tracker_takes_the_collection():
    tracker = MetricTracker(am.MultiAttackerPrivacy(betas=SMALL), maximize=[False] * 17)
    for seed in range(2):
        tracker.increment()
        tracker.update(*batch(seed))
    assert list(tracker.best_metric()) == list(NAMES)


@every_class
def test_bootstrapper_resamples_images(case):
    noisy, clean = pictures(12)
    boot = BootStrapper(case.make(), num_bootstraps=8)
    boot.update(noisy, clean)
    result = boot.compute()
    scores = case.per_image(noisy, clean)
    assert float(scores.min()) <= float(result["mean"]) <= float(scores.max())
    assert float(result["std"]) < float(scores.max() - scores.min())


@every_class
def test_running_mean_covers_the_window_only(case):
    running = Running(case.make(), window=2)
    for seed in range(4):
        running.update(*batch(seed))
    wanted = torch.cat([case.per_image(*batch(seed)) for seed in (2, 3)]).mean()
    assert float(running.compute()) == pytest.approx(float(wanted), abs=1e-6)


@every_class
def test_minmax_remembers_the_extremes(case):
    metric, seen = MinMaxMetric(case.make()), []
    for seed in range(3):
        metric.update(*batch(seed))
        result = metric.compute()
        seen.append(float(result["raw"]))
    assert float(result["min"]) == pytest.approx(min(seen))
    assert float(result["max"]) == pytest.approx(max(seen))


def test_metrics_compose():
    first, second = am.RGBClampMSSSIM(betas=SMALL), am.RGBPearson()
    total = first + 2 * second
    total.update(*batch(0))
    assert float(total.compute()) == pytest.approx(float(first.compute()) + 2 * float(second.compute()))


def test_plots_stay_between_the_bounds():
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib")
    metric = am.SobelMSSSIM(betas=SMALL)
    values = [metric(*batch(seed)).detach() for seed in range(3)]
    for figure, axes in (metric.plot(), metric.plot(values)):
        assert figure is axes.figure
        low, high = axes.get_ylim()
        assert low <= 0
        assert high >= 1
    assert len(axes.lines[0].get_ydata()) == 3
    pyplot.close("all")


@pytest.mark.filterwarnings("ignore", "error::attacker_metrics.AttackerMetricsWarning")  # Lightning warns of its own parts
def test_lightning_logs_the_collection():
    lightning = pytest.importorskip("lightning", reason="needs lightning")

    class Cloak(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.strength = torch.nn.Parameter(torch.tensor(0.3))
            self.privacy = am.MultiAttackerPrivacy(betas=SMALL, prefix="val/")
            self.training_privacy = am.MultiAttackerPrivacy(betas=SMALL, prefix="train/")

        def forward(self, clean):
            return (1 - self.strength) * clean + self.strength * clean.flip(-1)

        def training_step(self, clean, _index):
            scores = self.training_privacy(self(clean), clean)
            return scores["train/ms_ssim"] + scores["train/pearson"]

        def validation_step(self, clean, _index):
            self.privacy.update(self(clean), clean)
            self.log_dict(self.privacy)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    cleans = [pictures(size, seed=size)[1] for size in (3, 1)]
    loader = torch.utils.data.DataLoader(cleans, batch_size=None)
    module = Cloak()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=2, num_sanity_val_steps=0, **quiet)
    trainer.fit(module, loader, loader)
    assert float(module.strength) > 0.3  # the loss pushes away from the clean picture
    direct = am.MultiAttackerPrivacy(betas=SMALL, prefix="val/")
    with torch.no_grad():
        for clean in cleans:
            direct.update(module(clean), clean)
    for name, value in direct.compute().items():
        assert float(trainer.callback_metrics[name]) == pytest.approx(float(value), abs=1e-6)
