"""Metrics where torch, Python and torchmetrics mislead: threads, checkpointing, pools, ``meta``, shared memory, modules."""

import copy
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from conftest import SMALL, pictures
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.wrappers import MinMaxMetric

import attacker_metrics as am
from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.quality import LPIPS
from attacker_metrics.reading.learned import CNNAttackerPearson, LinearAttackerPearson

BATCH = pictures(2, seed=2)


def small(**settings):
    return MultiAttackerPrivacy(**{"betas": SMALL, **settings})


class Brightness(MeanMetric):
    def update(self, preds, target):
        super().update(target)


class Holder(nn.Module):
    """A model that merely holds a metric."""

    def __init__(self, metric):
        super().__init__()
        self.layer, self.metric = nn.Conv2d(3, 3, 1), metric

    def forward(self, x):
        return self.layer(x)


def members(metric):
    return list(metric.values()) if isinstance(metric, MetricCollection) else [metric]


# --- threads --------------------------------------------------------------------------------------------------------------


def in_threads(work, number=6):
    failed = []

    def run():
        try:
            work()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.fixture
def often_interrupted():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_interrupted")
@pytest.mark.parametrize("make", [lambda: small(extra={"light": Brightness()}), am.BlurPearson])
def test_threads_that_share_a_metric_lose_nothing(make):
    metric = make()

    def work():
        for _ in range(5):
            metric.update(*BATCH)
            metric(*BATCH)
            metric.compute()

    in_threads(work)
    ours = [member for member in members(metric) if isinstance(member, am.AttackerMetric)]
    assert {int(member.count) for member in ours} == {6 * 5 * 2 * 2}
    assert {member.update_count for member in members(metric)} == {6 * 5 * 2}
    again = make()
    again.update(*BATCH)
    for member, other in zip(ours, members(again), strict=False):
        torch.testing.assert_close(member.compute(), other.compute(), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("often_interrupted")
def test_a_thread_that_updates_a_member_waits_for_those_that_update_all():
    metric = pickle.loads(pickle.dumps(copy.deepcopy(small(compute_ms_ssim=False))))

    def work():
        for _ in range(10):
            metric.update(*BATCH)
            metric["pearson"].update(*BATCH)

    in_threads(work)
    assert int(metric["pearson"].count) == 2 * int(metric["pearson_rgb"].count) == 6 * 10 * 2 * 2


@pytest.mark.usefixtures("often_interrupted")
def test_threads_leave_the_filters_of_warnings_alone():
    before = list(warnings.filters)

    def work():
        for _ in range(100):
            metric = am.RGBPearson(nan_strategy="ignore")
            metric.compute()

    in_threads(work)
    assert warnings.filters == before
    metric = small(nan_strategy="ignore", compute_ms_ssim=False, extra={"light": Brightness()})
    in_threads(metric.compute)
    assert warnings.filters == before
    assert [member.update_count for member in metric.values()] == [0] * 8


# --- torch.utils.checkpoint -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        small,
        lambda: small(extra={"light": Brightness(), "range": MinMaxMetric(am.RGBPearson())}),
        am.BlurPearson,
        lambda: am.MeanMSSSIM(betas=SMALL),
        lambda: MetricCollection([am.BlurPearson(), am.RGBPearson()]),
        lambda: LPIPS(PixelDistance()),
    ],
    ids=["collection", "extra", "pearson", "ms_ssim", "plain collection", "network"],
)
@pytest.mark.parametrize("call", ["forward", "update"])
def test_a_checkpointed_forward_counts_once(make, reentrant, call):
    metric, plain = make(), make()

    def step(metric):
        def run(x):
            if call == "update":
                metric.update(x.detach(), BATCH[1])
                return x.square().sum()
            values = metric(x, BATCH[1])
            values = values if isinstance(values, dict) else {"": values}
            numbers = [value for value in values.values() if isinstance(value, torch.Tensor) and value.requires_grad]
            return x.square().sum() + sum(numbers)

        return run

    gradients = []
    for _ in range(2):
        x, y = (BATCH[0].clone().requires_grad_() for _ in range(2))
        checkpoint(step(metric), x, use_reentrant=reentrant).backward()
        step(plain)(y).backward()
        gradients.append((x.grad, y.grad))
    for one, other in gradients:
        torch.testing.assert_close(one, other)
    for member, other in zip(members(metric), members(plain), strict=True):
        assert member.update_count == other.update_count == (0 if isinstance(member, MinMaxMetric) else 2)
        for name, state in member.metric_state.items():
            assert torch.equal(state, other.metric_state[name])
        if isinstance(member, MinMaxMetric):
            assert member._base_metric.count == other._base_metric.count


class PixelDistance(nn.Module):
    def forward(self, a, b):
        return (a - b).abs().mean(dim=(1, 2, 3))


# --- pickle ---------------------------------------------------------------------------------------------------------------

POOL = """
import multiprocessing, resource, torch
from attacker_metrics import MultiAttackerPrivacy

def evaluate(seed):
    part = MultiAttackerPrivacy(betas=(0.5, 0.5))
    part.update(*torch.rand(2, 1, 3, 22, 22, generator=torch.Generator().manual_seed(seed)))
    return part

if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    total = MultiAttackerPrivacy(betas=(0.5, 0.5))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(evaluate, range(12))
    for part in parts:
        total.merge_state(part)
    print({int(member.count) for member in total.values()})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files to lower, and no fork")
def test_a_pool_returns_collections_although_few_files_may_be_open(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "{12}\n", done.stderr


def test_a_pickled_collection_is_a_few_kilobytes_without_a_tensor():
    metric = small()
    metric.update(*BATCH)
    pickled = pickle.dumps(metric)
    assert len(pickled) < 8_000
    assert b"torch._utils" not in pickled
    assert len(pickle.dumps(metric["pearson_rgb"])) < 1_500


def test_pickles_hold_the_exact_state_and_all_settings():
    metric = am.BlurPearson(blur_sigma=1.5, nan_strategy="ignore", sync_on_compute=False, compute_with_cache=False)
    metric.update(*BATCH)
    metric.merge_state({**metric.metric_state, metric._state("count"): torch.tensor(2**60 + 1)})
    metric.persistent(True)
    metric.eval()
    again = pickle.loads(pickle.dumps(metric))
    assert again.count == metric.count == 2**60 + 3
    assert again.metric_state == metric.metric_state
    for name in ("nan_strategy", "sync_on_compute", "compute_with_cache", "training", "_persistent", "update_count"):
        assert getattr(again, name) == getattr(metric, name)
    again.reset()
    assert again.count == 0


# --- scripts, meta, shared memory -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated", "ignore:This property will be removed")
@pytest.mark.parametrize(
    "make",
    [small, am.GammaPearson, lambda: LPIPS(PixelDistance()), LinearAttackerPearson, CNNAttackerPearson],
    ids=["collection", "metric", "network", "linear", "cnn"],
)
def test_a_model_that_holds_a_metric_can_be_scripted(make):
    model = Holder(make())
    assert torch.equal(torch.jit.script(model)(BATCH[0]), model(BATCH[0]))


def test_metrics_made_on_meta_start_at_zero_with_to_empty():
    with torch.device("meta"):
        model, single = Holder(small(extra={"light": Brightness()})), am.RGBPearson()
    for call in (lambda: single.update(*BATCH), lambda: single(*BATCH), single.compute, lambda: model.metric.update(*BATCH)):
        with pytest.raises(RuntimeError, match=r"made under torch\.device\('meta'\).* to_empty\(device=\.\.\.\)"):
            call()
    copied = pickle.loads(pickle.dumps(single))
    for metric in (single, copied, model):
        metric.to_empty(device="cpu")
    single.update(*BATCH)
    copied(*BATCH)
    assert (single.count, copied.count) == (2, 2)
    ours = [member for member in model.metric.values() if isinstance(member, am.AttackerMetric)]
    for _ in range(2):
        model.metric.reset()
        for member in ours:
            member.update(*BATCH)
    wanted = small()
    wanted.update(*BATCH)
    for member, other in zip(ours, wanted.values(), strict=True):
        assert torch.equal(member.compute(), other.compute())


def test_shared_memory_is_refused_with_what_to_do_instead():
    for model in (Holder(small()), Holder(am.RGBPearson()), am.RGBPearson()):
        with pytest.raises(RuntimeError, match=r"cannot be put into shared memory.* total\.merge_state\(part\)"):
            model.share_memory()


# --- attackers that are torch modules -------------------------------------------------------------------------------------


class Normalizing(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(x))


def with_module(net, wrap=lambda net: net):
    return am.AttackerMetric(am.Component("net", am.SquaredPearson(), noisy=(wrap(net),)))


WRAPS = {"module": lambda net: net, "method": lambda net: net.forward, "closure": lambda net: lambda x: net(x)}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("collected", [False, True])
def test_scoring_leaves_a_module_attacker_as_it_is_and_does_not_depend_on_the_batch(wrap, collected):
    net = Normalizing()
    metric = with_module(net, wrap)
    if collected:
        metric = small(compute_ms_ssim=False, extra={"net": metric})
    model = Holder(metric).train()
    before = copy.deepcopy(net.state_dict())
    for i in range(2):
        model.metric.update(*(side[i : i + 1] for side in BATCH))
    one_by_one = model.metric.compute()
    model.metric.reset()
    model.metric(*BATCH)
    whole = model.metric.compute()
    torch.testing.assert_close(whole, one_by_one, rtol=0, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    model.eval()
    assert not net.norm.training


def test_a_module_attacker_follows_the_model_and_is_no_part_of_what_it_trains():
    net = Normalizing()
    model = Holder(with_module(net))
    names = dict(Holder(am.RGBPearson()).named_parameters()).keys()
    assert dict(model.named_parameters()).keys() == names
    model.half()
    assert net.norm.weight.dtype == torch.float32  # views are computed in float32
    model.to("meta")
    assert net.norm.weight.device.type == net.norm.running_mean.device.type == "meta"
    model.to_empty(device="cpu")
    model.metric.update(*BATCH)
    model.apply(lambda module: module.reset_parameters() if isinstance(module, nn.BatchNorm2d) else None)
    assert net.norm.weight.eq(0).all()  # as to_empty left it


def test_the_weights_of_a_module_attacker_are_stored_and_checkpoints_without_them_are_loaded():
    net, other = Normalizing(), Normalizing()
    nn.init.uniform_(net.norm.weight)
    model, again = Holder(with_module(net)), Holder(with_module(other))
    stored = model.state_dict()
    assert "metric.attackers.0.norm.weight" in stored
    assert (
        again.load_state_dict({name: value for name, value in stored.items() if "attackers" not in name}).missing_keys == []
    )
    assert not torch.equal(other.norm.weight, net.norm.weight)
    again.load_state_dict(stored)
    assert torch.equal(other.norm.weight, net.norm.weight)
    again.metric.merge_state(model.metric)
    del stored["metric.attackers.0.norm.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*metric\.attackers\.0\.norm\.weight"):
        again.load_state_dict(stored)


def test_learned_attackers_are_stored_once():
    assert [name for name in LinearAttackerPearson().state_dict() if name.endswith("weights")] == ["attacker.weights"]


# --- names and types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a.b", "update", "prefix", "training", "items", "metric_state", "_lock"])
def test_an_extra_with_an_impossible_name_is_refused_with_the_rule(name):
    with pytest.raises(ValueError, match=rf"extra: the name '{name}' cannot be used: .*without a dot.*mapping with names"):
        small(extra={name: am.RGBPearson()}, prefix="val/")
    with pytest.raises(TypeError, match="extra: names must be text, got 3"):
        small(extra={3: am.RGBPearson()})


@pytest.mark.parametrize("name", ["a b", "é", "a/b", "a$b", "1"])
def test_an_extra_with_an_odd_name_works(name):
    metric = pickle.loads(pickle.dumps(small(compute_ms_ssim=False, extra={name: am.RGBPearson()}, prefix="val/")))
    metric.update(*BATCH)
    assert metric.compute()[f"val/{name}"] == metric.compute()["val/pearson_rgb"]


@pytest.mark.parametrize(
    "metric", [am.RGBPearson(), small(), LPIPS(PixelDistance())], ids=["metric", "collection", "network"]
)
def test_arrays_are_refused(metric):
    noisy, clean = BATCH
    for pair in ((np.asarray(noisy), clean), (noisy, np.asarray(clean))):
        for call in (metric.update, metric):
            with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got .*ndarray"):
                call(*pair)
    assert {int(member.count) for member in members(metric)} == {0}
