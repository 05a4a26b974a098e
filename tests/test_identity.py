"""What counts as the same metric: by value, in every spelling and every process, with what it has learned."""

import functools
import io
import json
import pickle
import re
import runpy
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, by_rank, pictures
from torch import nn
from torchmetrics import MetricCollection

import attacker_metrics as am
from attacker_metrics.metrics.identity import identity_of
from attacker_metrics.reading.learned import LinearAttacker, LinearAttackerMSSSIM, LinearAttackerPearson

BATCH = pictures(3, seed=3)
FLAT = (BATCH[1].round(), BATCH[1].round())  # 0 and 1: powers, squares and roots change nothing


def metric_of(attacker):
    return am.AttackerMetric(am.Component("own", am.SquaredPearson(), noisy=(attacker,)))


class Power:
    def __init__(self, power):
        self.power = power

    def __repr__(self):
        return "Power"

    def __call__(self, x):
        return x.clamp(0, 1) ** torch.as_tensor(self.power)

    attack = __call__


@dataclass(frozen=True)
class FrozenPower:
    power: float

    def __call__(self, x):
        return x.clamp(0, 1) ** self.power


class Slotted:
    __slots__ = ("power",)

    def __init__(self, power):
        self.power = power

    def __call__(self, x):
        return x.clamp(0, 1) ** self.power


class PowerModule(nn.Module):
    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, x):
        return x.clamp(0, 1) ** self.power


class WeightModule(PowerModule):
    def __init__(self, power):
        super().__init__(None)
        self.power = nn.Parameter(torch.tensor([float(power)]))


class OwnAttack(am.AttackerMetric):
    """The setting is given after the base has been made."""

    def __init__(self, power):
        super().__init__(am.Component("own", am.SquaredPearson(), noisy=(self.attack,)))
        self.power = power

    def attack(self, x):
        return x.clamp(0, 1) ** self.power


class OwnScores(am.AttackerMetric):
    def __init__(self, power):
        super().__init__(am.Component("own", am.SquaredPearson(), noisy=(am.attackers.clamp,)))
        self.power = power

    def scores(self, pair):
        return super().scores(pair) ** self.power


def raised(x, power):
    return x.clamp(0, 1) ** power


def closure(power):
    return lambda x: x.clamp(0, 1) ** power


def recursive(power):
    def attack(x, depth=1):
        return x.clamp(0, 1) ** power if depth == 0 else attack(x, depth - 1)

    return attack


def local_class(power):
    class Local:
        exponent = power

        def __call__(self, x):
            return x.clamp(0, 1) ** self.exponent

    return Local()


def with_attribute(power):
    def attack(x):
        return x.clamp(0, 1) ** attack.power

    attack.power = power
    return attack


def wrapped(power):
    @functools.wraps(raised)
    def attack(x):
        return raised(x, power)

    return attack


def recipes():
    def of(make):
        return lambda power: metric_of(make(power))

    return {
        "bound method": of(lambda power: Power(power).attack),
        "object": of(Power),
        "slots": of(Slotted),
        "frozen dataclass": of(FrozenPower),
        "method of a dataclass": of(lambda power: FrozenPower(power).__call__),
        "partial": of(lambda power: functools.partial(raised, power=power)),
        "closure": of(closure),
        "closure over an object": of(lambda power: closure_over(Power(power))),
        "recursive closure": of(recursive),
        "class inside a function": of(local_class),
        "attribute of a function": of(with_attribute),
        "wrapped": of(wrapped),
        "default": of(lambda power: lambda x, power=power: x.clamp(0, 1) ** power),
        "array": of(lambda power: Power(np.array([power], dtype=np.float32))),
        "tensor": of(lambda power: Power(torch.tensor([power], dtype=torch.float32))),
        "dict": of(lambda power: closure_over_dict({"b": 1, "a": power})),
        "module": of(PowerModule),
        "module's weight": of(WeightModule),
        "module in a closure": of(lambda power: closure_over(WeightModule(power))),
        "metric's own method": OwnAttack,
        "metric's own scores": OwnScores,
        "learned": None,
    }


def closure_over(thing):
    return lambda x: thing(x)


def closure_over_dict(settings):
    return lambda x: x.clamp(0, 1) ** settings["a"]


RECIPES = {name: make for name, make in recipes().items() if make is not None}


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_unlike_metrics_are_neither_grouped_nor_merged(make):
    alone = make(3.0)
    alone.update(*BATCH)
    together = MetricCollection({"first": make(1.0), "second": make(3.0)})
    together.update(*FLAT)
    assert len(together.compute_groups) == 2
    together.reset()
    together.update(*BATCH)
    values = together.compute()
    assert torch.equal(values["second"], alone.compute())
    assert abs(values["first"] - values["second"]) > 1e-3
    with pytest.raises(ValueError, match="only metrics of the same class and settings can be merged"):
        make(1.0).merge_state(alone)


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_like_metrics_are_merged_however_their_numbers_are_spelled(make):
    first, second = make(2.0), make(2)
    first.update(*BATCH)
    second.update(*BATCH)
    first.merge_state(second)
    assert first.count == 6
    grouped = MetricCollection({"first": make(2.0), "second": make(np.float64(2))})
    grouped.update(*BATCH)
    assert len(grouped.compute_groups) == 1


@pytest.mark.parametrize("sigma", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)], ids=repr)
def test_every_spelling_of_a_setting_is_the_same_metric(sigma):
    total, part = am.BlurPearson(blur_sigma=2.0), am.BlurPearson(blur_sigma=sigma)
    part.update(*BATCH)
    part.persistent(True)
    total.merge_state(part)
    total.load_state_dict(part.state_dict())
    assert total.count == 3
    gammas = am.GammaPearson(gamma_values=np.array([1, 2]))
    gammas.merge_state(am.GammaPearson(gamma_values=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cuda:0", "cuda:1"),
        (torch.device("cuda", 0), torch.device("cuda", 1)),
        (torch.device("cpu"), torch.device("cuda")),
        (True, np.bool_(True)),
        ([1, 2], (1.0, 2.0)),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0}),
        ({1, 2, 3}, {3.0, 2.0, 1.0}),
        (Path("a/b"), Path("a") / "b"),
        (functools.partial(raised, power=2), functools.partial(raised, power=np.float32(2))),
        (torch.ones(3), torch.ones(6)[::2]),
        (np.ones(3), np.ones(6)[::2]),
        (torch.tensor(2.0), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_the_same(one, other):
    assert identity_of(one) == identity_of(other)
    assert not identity_of(one).unidentified


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (2.0, 2.0000001),
        ("a", "b"),
        ("2", 2),
        (None, 0),
        ([1, 2], [2, 1]),
        (lambda x: x, lambda x: x + 1),  # on one line
        (torch.zeros(3), torch.zeros(2)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (np.zeros(2), np.ones(2)),
        (torch.float32, torch.float64),
        (torch.sigmoid, torch.tanh),
        (np.sin, np.cos),
        (nn.Conv2d(1, 1, 3, stride=1).requires_grad_(False), nn.Conv2d(1, 1, 3, stride=2)),
        ("abc".find, "abd".find),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_not(one, other):
    assert identity_of(one).text != identity_of(other).text


def test_things_that_refer_to_themselves_come_to_an_end():
    loop, other = [1], [2]
    loop.append(loop)
    other.append(other)
    assert identity_of(loop).text != identity_of(other).text
    power = Power(2)
    power.itself = power
    assert identity_of(power) == identity_of(pickle.loads(pickle.dumps(power)))
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert identity_of(deep).unidentified == ("builtins.list",)


@pytest.mark.parametrize("name", ["__main__", "__mp_main__"])
def test_the_main_module_has_one_name_and_what_it_defines_again_is_another(name):
    def defined(power, module):
        made = types.ModuleType(module)
        code = f"def attack(x):\n  return x ** {power}\nclass Attack:\n  def __call__(self, x):\n    return x ** {power}"
        exec(code, vars(made))
        return made.attack, made.Attack()

    for one, same, other in zip(defined(2, "__main__"), defined(2, name), defined(3, name), strict=True):
        assert identity_of(one) == identity_of(same) != identity_of(other)


def test_the_module_of_a_class_or_function_of_the_library_does_not_count(monkeypatch):
    before = set(am.GrayPearson()._defaults)
    monkeypatch.setattr(am.GrayPearson, "__module__", "attacker_metrics.metrics.standard.elsewhere")
    monkeypatch.setattr(am.attackers.luma, "__module__", "attacker_metrics.attackers.standard.elsewhere")
    monkeypatch.setattr(am.attackers.clamp, "__module__", "attacker_metrics.attackers.standard.elsewhere")
    assert set(am.GrayPearson()._defaults) == before


def test_what_cannot_be_identified_is_only_itself_and_the_error_says_what_to_do():
    def make():
        return metric_of(Power(io.TextIOWrapper(io.BytesIO())))

    with pytest.raises(ValueError, match=r"What _io\.TextIOWrapper does cannot be told .* __metric_identity__\(\)"):
        make().merge_state(make())
    shared = Power(io.TextIOWrapper(io.BytesIO()))
    metric_of(shared).merge_state(metric_of(shared))


class Counting(Power):
    def __call__(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().__call__(x)


def test_an_attacker_that_counts_its_calls_stays_the_same():
    attacker = Counting(2)
    parts = []
    for _ in range(2):
        parts.append(metric_of(attacker))
        parts[-1].update(*BATCH)
    parts[0].merge_state(parts[1])
    total = metric_of(Counting(2.0))
    total.merge_state(parts[0])
    assert (total.count, attacker.calls) == (6, 2)


class Handle:
    """Holds what nothing can describe, and says what it is."""

    def __init__(self, power):
        self.power, self.handle = power, io.TextIOWrapper(io.BytesIO())

    def __metric_identity__(self):
        return self.power

    def __call__(self, x):
        return x**self.power


def test_a_class_may_say_what_its_objects_are():
    metric_of(Handle(2)).merge_state(metric_of(Handle(2.0)))
    with pytest.raises(ValueError, match="only metrics of the same class and settings"):
        metric_of(Handle(2)).merge_state(metric_of(Handle(3)))


PROCESS = """
import sys, torch
import attacker_metrics as am
rank = int(sys.argv[1])
def make(device, power):
    def attack(x, again=True):
        return attack(x, False) if again else x.to(device).cpu() ** power
    return attack
class Own:
    def __init__(self, power): self.power = power
    def attack(self, x): return x ** self.power
class Mine(am.AttackerMetric): pass
torch.manual_seed(0)
net = torch.nn.Conv2d(3, 3, 1)
closures = make(f"cuda:{rank}", 2), make(torch.device("cuda", rank), 2.0)
for attacker in (*closures, Own(2).attack, Own(3).attack, net, lambda x: x):
    print(*Mine(am.Component("own", am.SquaredPearson(), noisy=(attacker,)))._defaults)
"""


def test_processes_agree(tmp_path, monkeypatch, capsys):
    script = tmp_path / "script.py"
    script.write_text(PROCESS)
    told = subprocess.run([sys.executable, script, "1"], capture_output=True, text=True, check=True).stdout.splitlines()
    monkeypatch.setattr(sys, "argv", [str(script), "0"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == told
    assert len(set(told)) == 5  # the two spellings of one closure are the same


def test_ranks_agree_on_what_is_the_same_and_say_what_is_not(three_processes):
    for found in by_rank(three_processes[0] / "identity_script", 2):
        assert {name: found[name] for name in ("closure", "bound", "fit", "collection")} == {
            "closure": 4,
            "bound": 2,
            "fit": 4,
            "collection": 4,
        }
        assert "same with different settings" in found["power"]
        assert "TextIOWrapper" not in found["power"]
        assert "What _io.TextIOWrapper does cannot be told" in found["handle"]


# --- what was learned -----------------------------------------------------------------------------------------------------


def fitted(noisy, clean, cls=LinearAttackerPearson, **settings):
    metric = cls(**settings)
    metric.fit_update(noisy, clean)
    metric.fit_compute()
    return metric


def test_differently_fitted_metrics_are_neither_grouped_nor_merged():
    clean = BATCH[1]
    good, bad = fitted(1 - clean, clean), fitted(torch.rand_like(clean), clean)
    together = MetricCollection({"good": good, "bad": bad})
    together.update(torch.zeros_like(clean), torch.zeros_like(clean))
    together.reset()
    together.update(1 - clean, clean)
    values = together.compute()
    assert values["good"] > 0.99
    assert values["bad"] < 0.5
    with pytest.raises(ValueError, match="same fit where they learn"):
        good.merge_state(bad)
    with pytest.raises(ValueError, match="same fit where they learn"):
        LinearAttackerPearson().merge_state(good)


def test_the_same_fit_is_the_same_metric_and_a_state_dict_brings_it_along():
    noisy, clean = BATCH
    metric, again = fitted(noisy, clean), fitted(noisy, clean)
    metric.update(noisy, clean)
    again.merge_state(metric)
    metric.persistent(True)
    loaded = LinearAttackerPearson()
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    assert (loaded.count, loaded.compute()) == (3, metric.compute())
    loaded.merge_state(pickle.loads(pickle.dumps(again)))
    assert loaded.count == 6


def test_a_fit_stays_the_same_on_another_device_and_in_another_attacker_of_the_same_settings():
    noisy, clean = BATCH
    attacker = fitted(noisy, clean).attacker
    other = LinearAttacker()
    other.load_state_dict(attacker.state_dict())
    LinearAttackerMSSSIM(attacker, betas=SMALL).merge_state(LinearAttackerMSSSIM(other.half(), betas=SMALL))


# --- what the release 0.1 stored ------------------------------------------------------------------------------------------

STORED = json.loads((Path(__file__).parent / "data" / "states_0.1.json").read_text())
STORED_METRICS = {
    "collection": lambda: am.MultiAttackerPrivacy(betas=SMALL, suite="standard-v1"),
    "other_settings": lambda: am.MultiAttackerPrivacy(
        betas=SMALL, gamma_values=(0.25, 3.0), blur_sigma=1.5, wavelet_threshold=0.05
    ),
    "blur_pearson": am.BlurPearson,
}


def stored(name):
    return {
        key: torch.tensor(value, dtype=torch.float64 if "sum_" in key else torch.int64)
        for key, value in STORED[name].items()
    }


@pytest.mark.parametrize("name", STORED_METRICS)
def test_states_of_release_0_1_are_loaded(name):
    metric = STORED_METRICS[name]()
    metric.persistent(True)
    metric.load_state_dict(stored(name))
    members = list(metric.values()) if isinstance(metric, MetricCollection) else [metric]
    assert {int(member.count) for member in members} == {3}
    for member in members:
        (value,) = (v for key, v in STORED[name].items() if re.fullmatch(rf"(.*\.)?sum_{member.name}_\w{{8}}", key))
        assert member.compute() == torch.tensor(value / 3, dtype=torch.float64).float()


def test_states_of_release_0_1_with_other_settings_are_refused_and_metric_states_are_merged():
    metric = am.BlurPearson(blur_sigma=1.0)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        metric.load_state_dict(stored("blur_pearson"))
    with pytest.raises(ValueError, match="only metrics of the same class"):
        metric.merge_state(stored("blur_pearson"))
    total = am.BlurPearson()
    total.merge_state(stored("blur_pearson"))
    assert total.count == 3
