"""All metrics at once: keys, agreement with members and functions, one evaluation, extras, torchmetrics' own collection."""

import copy
import gc
import io
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from conftest import CASES, NAMES, SMALL, parameters, photo_pair, pictures, spoil, warns_once
from PIL import Image
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio

import attacker_metrics as am
from attacker_metrics import MultiAttackerPrivacy

BATCHES = tuple(pictures(size, seed=size) for size in (3, 1, 4))


def make(**settings):
    return MultiAttackerPrivacy(**{"betas": SMALL, **settings})


def updated(metric, batches=BATCHES):
    for batch in batches:
        metric.update(*batch)
    return metric


def expected_means(batches=BATCHES, **settings):
    rows = [am.multi_attacker_scores(*batch, betas=SMALL, **settings) for batch in batches]
    return {name: torch.cat([row[name] for row in rows]).mean() for name in rows[0]}


def assert_values(values, expected):
    assert list(values) == list(expected)
    for name in expected:
        assert abs(values[name].detach() - expected[name].detach()) <= 1e-6, name


class JPEG:
    """What an attacker sees after the picture went through a JPEG file."""

    def __call__(self, x):
        views = []
        for image in (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
            file = io.BytesIO()
            Image.fromarray(image).save(file, format="JPEG", quality=30)
            views.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255)
        return torch.stack(views).to(x)


class JPEGPearson(am.AttackerMetric):
    def __init__(self, **kwargs):
        super().__init__(am.Component("pearson_jpeg", am.SquaredPearson(), noisy=(JPEG(),)), **kwargs)


class Counted:
    """A similarity or an attacker that counts how often it is evaluated."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *views):
        self.calls += 1
        return self.function(*views)


def double(x):
    return 2 * x


# --- values ---------------------------------------------------------------------------------------------------------------


def test_the_collection_has_the_seventeen_members_under_their_names_in_order():
    metric = make()
    assert tuple(metric.keys()) == NAMES
    for case in CASES:
        assert type(metric[case.name]) is case.cls
    assert isinstance(metric, MetricCollection)
    assert parameters(MultiAttackerPrivacy) == (
        *("gamma_values", "blur_sigma", "wavelet_threshold", "compute_ms_ssim", "compute_pearson", "betas"),
        *("nan_strategy", "suite", "extra", "prefix", "postfix", "kwargs"),
    )


def test_values_equal_the_functions_and_the_members_used_alone(device):
    metric = make().to(device)
    members = {case.name: case.make().to(device) for case in CASES}
    forward = {case.name: case.make().to(device) for case in CASES}
    for noisy, clean in BATCHES:
        noisy, clean = noisy.to(device), clean.to(device)
        metric.update(noisy, clean)
        for name in NAMES:
            members[name].update(noisy, clean)
            forward[name](noisy, clean)
    values = {name: value.cpu() for name, value in metric.compute().items()}
    assert_values(values, expected_means())
    assert_values(values, {name: member.compute().cpu() for name, member in members.items()})
    assert_values(values, {name: member.compute().cpu() for name, member in forward.items()})
    assert all(value.dtype == torch.float32 and value.shape == () for value in values.values())
    for name in NAMES:
        for fact in ("count", "skipped", "collapsed"):
            assert getattr(metric[name], fact) == getattr(members[name], fact)


def test_values_of_photographs_at_five_scales_equal_the_loss():
    noisy, clean = (torch.tensor(x[:2], dtype=torch.float32) for x in photo_pair("blend"))
    metric = MultiAttackerPrivacy()
    metric.update(noisy[:1], clean[:1])
    metric.update(noisy[1:], clean[1:])
    assert_values(metric.compute(), am.multi_attacker_privacy_loss(noisy, clean))


def test_settings_reach_every_member():
    settings = {"gamma_values": (0.3,), "blur_sigma": 0.8, "wavelet_threshold": 0.4}
    metric = make(**settings)
    assert_values(updated(metric).compute(), expected_means(**settings))
    for case in CASES:
        mine = {name: value for name, value in settings.items() if name in case.settings}
        assert set(metric[case.name]._defaults) == set(case.make(**mine)._defaults)


def test_a_family_that_is_switched_off_leaves_no_member():
    for switch, kept in (("compute_ms_ssim", NAMES[9:15] + NAMES[16:]), ("compute_pearson", NAMES[:9] + NAMES[15:16])):
        metric = make(**{switch: False})
        assert tuple(metric.keys()) == kept
        assert_values(updated(metric).compute(), {name: expected_means()[name] for name in kept})
    small = MultiAttackerPrivacy(compute_ms_ssim=False)
    small.update(*(x[..., :7, :7] for x in BATCHES[0]))
    assert len(small.compute()) == 7
    with pytest.raises(ValueError, match="compute_ms_ssim and compute_pearson are both False"):
        make(compute_ms_ssim=False, compute_pearson=False)


def test_forward_returns_differentiable_batch_values_and_accumulates(device):
    metric = make().to(device)
    for noisy, clean in BATCHES:
        noisy, clean = noisy.to(device).detach().requires_grad_(), clean.to(device)
        values = metric(noisy, clean)
        loss = am.multi_attacker_privacy_loss(noisy, clean, betas=SMALL)
        assert_values(values, loss)
        for weights in (torch.rand(17), torch.eye(17)[9]):
            slopes = [
                torch.autograd.grad(sum(map(torch.mul, weights.tolist(), out.values())), noisy, retain_graph=True)[0]
                for out in (values, loss)
            ]
            assert (slopes[0] - slopes[1]).norm() <= 1e-5 * slopes[1].norm() > 0
    assert_values({k: v.cpu() for k, v in metric.compute().items()}, expected_means())


def test_autocast_changes_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = make()
        values = cast(*BATCHES[0])
        updated(cast, BATCHES[1:])
    for got, expected in ((values, expected_means(BATCHES[:1])), (cast.compute(), expected_means())):
        assert all(abs(got[name] - expected[name]) <= 1e-5 for name in NAMES)


def test_memory_stays_flat_and_no_graph_is_kept():
    metric = MultiAttackerPrivacy(betas=(1.0,), blur_sigma=1.0)
    noisy, clean = (x.requires_grad_() for x in pictures(1, 11, 11))

    def tensors_alive():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    metric(noisy, clean)
    before = tensors_alive()
    for _ in range(100):
        metric(noisy, clean)
    assert tensors_alive() <= before
    assert all(getattr(member, s).grad_fn is None for member in metric.values() for s in member._defaults)


# --- grouping -------------------------------------------------------------------------------------------------------------


def in_a_plain_collection(**settings):
    return MetricCollection({case.name: case.make() for case in CASES} | settings)


@pytest.mark.parametrize("collection", [make, in_a_plain_collection])
def test_an_identical_first_batch_does_not_merge_the_metrics(collection):
    metric = collection()
    clean = BATCHES[0][1].clone()
    clean[:, :, 0, 0], clean[:, :, 1, 1] = 0, 1
    first = (clean, clean)
    metric.update(*first)
    updated(metric)
    values = metric.compute()
    expected = expected_means((first, *BATCHES))
    for name in NAMES:
        assert abs(values[name] - expected[name]) <= 1e-6, name
    assert len({round(float(value), 4) for value in values.values()}) > 10


def test_a_plain_collection_groups_equal_class_and_settings_only():
    metric = MetricCollection(
        {
            "a": am.BlurPearson(blur_sigma=1.0),
            "b": am.BlurPearson(blur_sigma=2.0),
            "again": am.BlurPearson(blur_sigma=1.0),
            "gamma": am.GammaPearson(gamma_values=(2.0,)),
            "other gamma": am.GammaPearson(gamma_values=(3.0,)),
            "blur": am.BlurMSSSIM(blur_sigma=1.0, betas=SMALL),
        }
    )
    clean = BATCHES[0][1]
    metric.update(clean, clean)
    groups = [set(group) for group in metric.compute_groups.values()]
    assert all(len(group) == 1 or group == {"a", "again"} for group in groups)
    updated(metric)
    values = metric.compute()
    batches = ((clean, clean), *BATCHES)
    assert abs(values["a"] - expected_means(batches, blur_sigma=1.0)["pearson_blur"]) <= 1e-6
    assert abs(values["b"] - expected_means(batches, blur_sigma=2.0)["pearson_blur"]) <= 1e-6
    assert torch.equal(values["a"], values["again"])
    assert abs(values["other gamma"] - expected_means(batches, gamma_values=(3.0,))["pearson_gamma"]) <= 1e-6


def test_two_components_of_one_class_with_lambdas_on_different_lines_are_not_grouped():
    first, second = (
        am.AttackerMetric(am.Component("own", am.SquaredPearson(), noisy=(attacker,)))
        for attacker in (
            lambda x: x,
            lambda x: x.square(),
        )
    )
    metric = MetricCollection({"first": first, "second": second})
    clean = BATCHES[0][1]
    metric.update(clean.round(), clean.round())  # a square changes nothing: both read 1
    updated(metric)
    values = metric.compute()
    assert abs(values["first"] - values["second"]) > 1e-3


def test_the_collection_nests_in_a_plain_one():
    metric = MetricCollection([make(prefix="privacy/"), make(compute_ms_ssim=False, prefix="again/")])
    values = updated(metric).compute()
    assert len(values) == 24
    for name, expected in expected_means().items():
        assert abs(values[f"privacy/{name}"] - expected) <= 1e-6


# --- names, copies --------------------------------------------------------------------------------------------------------


def test_prefix_and_postfix_go_around_every_key_of_update_and_forward():
    metric = make(prefix="val/", postfix="_epoch")
    keys = [f"val/{name}_epoch" for name in NAMES]
    assert list(metric(*BATCHES[0])) == keys
    assert list(metric.compute()) == keys
    clone = metric.clone(prefix="test/", postfix="_last")
    assert list(clone.compute()) == [f"test/{name}_last" for name in NAMES]
    assert list(clone(*BATCHES[0])) == [f"test/{name}_last" for name in NAMES]
    assert metric["rgb_clamp"].count == 3
    assert clone["rgb_clamp"].count == 6


def test_pickles_copies_clones_and_state_dicts_go_on_on_their_own():
    metric = updated(make(extra=[JPEGPearson()]), BATCHES[:1])
    metric.persistent(True)
    loaded = make(extra=[JPEGPearson()])
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    whole = updated(make(extra=[JPEGPearson()])).compute()
    for again in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone(), loaded):
        assert_values(updated(again, BATCHES[1:]).compute(), whole)
    assert metric["pearson"].count == 3
    metric.reset()
    assert_values(updated(metric).compute(), whole)


# --- extras ---------------------------------------------------------------------------------------------------------------


def test_extra_takes_metrics_of_ones_own_and_of_torchmetrics(device):
    metric = make(extra=[JPEGPearson(), PeakSignalNoiseRatio(data_range=1.0)]).to(device)
    assert tuple(metric.keys()) == (*NAMES, "pearson_jpeg", "PeakSignalNoiseRatio")
    psnr, jpeg = PeakSignalNoiseRatio(data_range=1.0).to(device), JPEGPearson().to(device)
    for noisy, clean in ((x.to(device), y.to(device)) for x, y in BATCHES):
        values = metric(noisy, clean)
        assert list(values) == list(metric.keys())
        torch.testing.assert_close(values["PeakSignalNoiseRatio"], psnr(noisy, clean))
        torch.testing.assert_close(values["pearson_jpeg"], jpeg(noisy, clean))
    result = metric.compute()
    assert list(result) == list(metric.keys())
    torch.testing.assert_close(result["PeakSignalNoiseRatio"], psnr.compute())
    assert 0 < jpeg.compute() == result["pearson_jpeg"] < 1
    metric.update(*(x.to(device) for x in BATCHES[0]))
    assert metric["pearson_jpeg"].count == 11


def test_extra_takes_a_mapping_of_names():
    metric = make(extra={"jpeg": JPEGPearson(), "strong": am.BlurPearson(blur_sigma=5.0)}, compute_ms_ssim=False)
    values = updated(metric).compute()
    assert list(values)[-2:] == ["jpeg", "strong"]
    assert abs(values["strong"] - expected_means(blur_sigma=5.0)["pearson_blur"]) <= 1e-6
    assert abs(values["strong"] - values["pearson_blur"]) > 1e-4


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ([am.RGBPearson()], ValueError, r"extra: the name 'pearson_rgb' is taken; pass a mapping"),
        ([JPEGPearson(), JPEGPearson()], ValueError, "extra: the name 'pearson_jpeg' is taken"),
        ({"ms_ssim": JPEGPearson()}, ValueError, "extra: the name 'ms_ssim' is taken"),
        ([torch.nn.Identity()], TypeError, "extra: 'Identity' must be a torchmetrics Metric, got Identity"),
        ({"loss": len}, TypeError, "extra: 'loss' must be a torchmetrics Metric, got builtin_function_or_method"),
    ],
)
def test_extra_names_what_is_wrong(extra, error, message):
    with pytest.raises(error, match=message):
        make(extra=extra)


def test_every_view_and_score_is_evaluated_once_per_update_and_per_forward():
    attacker, similarity = Counted(double), Counted(am.SquaredPearson())
    component = am.Component("shared", similarity, (attacker,), (attacker,))
    other = am.Component("same view", am.SquaredPearson(1e-6), (attacker,), (attacker,))
    metric = make(
        extra={"one": am.AttackerMetric(component), "two": am.AttackerMetric(component), "view": am.AttackerMetric(other)}
    )
    for number, call in enumerate((metric.update, metric, metric.update, metric), start=1):
        call(*BATCHES[0])
        assert attacker.calls == 2 * number  # one per side
        assert similarity.calls == number
    values = metric.compute()
    assert torch.equal(values["one"], values["two"])
    assert metric["one"].count == metric["view"].count == 12


# --- trouble --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["update", "forward"])
def test_a_bad_pair_is_left_out_of_every_member_with_one_warning_for_all(call):
    noisy, clean = BATCHES[2]
    good = [0, 1, 3]
    metric = make()
    with warns_once("1 of 4 pairs of images hold NaN or infinite pixels and are left out"):
        values = getattr(metric, call)(spoil(noisy, 2, math.inf), clean)
    expected = expected_means([(noisy[good], clean[good])])
    if call == "forward":
        assert_values(values, expected)
    assert_values(metric.compute(), expected)
    assert {(int(m.count), int(m.skipped)) for m in metric.values()} == {(3, 1)}


def test_nothing_seen_is_nan_everywhere_with_one_warning():
    with warns_once("No pair of finite images was seen"):
        values = make().compute()
    assert all(value.isnan() for value in values.values())
    noisy, clean = BATCHES[0]
    metric = make()
    with warns_once("3 of 3 pairs"):
        assert all(value.isnan() for value in metric(noisy * math.nan, clean).values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = make(nan_strategy="ignore")
        silent.update(noisy * math.nan, clean)
        assert all(value.isnan() for value in silent.compute().values())


def test_an_empty_batch_is_a_no_op():
    metric = updated(make(extra=[JPEGPearson(), PeakSignalNoiseRatio(data_range=1.0)]), BATCHES[:1])
    before = metric.compute()
    metric.update(torch.empty(0, 3, 22, 22), torch.empty(0, 3, 22, 22))
    assert metric["pearson"].count == 3
    metric["PeakSignalNoiseRatio"].reset()
    metric["PeakSignalNoiseRatio"].update(*BATCHES[0])
    assert_values(metric.compute(), before)


@pytest.mark.parametrize("call", ["update", "forward"])
@pytest.mark.parametrize("fault", ["range", "nan", "dtype", "shape", "size", "empty shape", "similarity", "foreign"])
def test_an_error_leaves_every_member_as_it_was(call, fault):
    def fail(noisy, clean):
        if (clean == 0.123).any():
            raise ValueError("mine")
        return am.SquaredPearson()(noisy, clean)

    class Foreign(MeanMetric):
        def update(self, preds, target):
            if (target == 0.321).any():
                raise ValueError("foreign")
            super().update(preds)

    noisy, clean = BATCHES[0]
    special = {"similarity": 0.123, "foreign": 0.321}.get(fault, 0.5)
    marked = clean.clone()
    marked[0, 0, 0, 0] = special
    bad, error, message = {
        "range": ((noisy, clean - 0.5), ValueError, r"clean images leave \[0, 1\] by more than 1e-3"),
        "nan": ((spoil(noisy, 0), clean), am.NonFiniteImageError, "1 of 3 pairs"),
        "dtype": ((noisy, clean.long()), TypeError, r"clean images .* got torch\.int64"),
        "shape": ((noisy[0], clean[0]), ValueError, r"shape \(B, 3, H, W\), got \(3, 22, 22\)"),
        "size": ((noisy[..., :21], clean[..., :21]), ValueError, "22 x 21 pixels .* too small for MS-SSIM with 2 betas"),
        "empty shape": ((noisy[:0], clean[:0, :2]), ValueError, r"\(0, 3, 22, 22\) and \(0, 2, 22, 22\)"),
        "similarity": ((noisy, marked), ValueError, "mine"),
        "foreign": ((noisy, marked), ValueError, "foreign"),
    }[fault]
    mine = am.AttackerMetric(am.Component("mine", fail), nan_strategy="error")
    metric = updated(make(extra={"mine": mine, "foreign": Foreign()}, nan_strategy="error"), BATCHES[:1])
    before = {name: value.clone() for name, value in metric.compute().items()}
    with pytest.raises(error, match=message):
        getattr(metric, call)(*bad)
    members = [member for member in metric.values() if isinstance(member, am.AttackerMetric)]
    assert {int(member.count) for member in members} == {3}
    for member in members:
        member._computed = None
    values = metric.compute()
    assert_values({n: values[n] for n in values if n != "foreign"}, {n: before[n] for n in values if n != "foreign"})
    metric(*BATCHES[1])
    assert {int(member.count) for member in members} == {4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma_values": ()}, "gamma_values is empty"),
        ({"gamma_values": (0.0,)}, r"gamma_values must be a positive number, got 0\.0"),
        ({"blur_sigma": -1.0}, r"blur_sigma must be a positive number of pixels, got -1\.0"),
        ({"wavelet_threshold": -0.1}, r"wavelet_threshold must be at least 0, got -0\.1"),
        ({"betas": (0.5, -0.5)}, r"betas must be .* got \(0\.5, -0\.5\)"),
        ({"nan_strategy": "drop"}, "nan_strategy must be 'warn', 'ignore' or 'error', got 'drop'"),
        ({"blur": 1.0}, "Unexpected keyword arguments: `blur`"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_torchmetrics_keywords_reach_every_member():
    metric = make(sync_on_compute=False, compute_with_cache=False)
    assert all(not member.sync_on_compute and not member.compute_with_cache for member in metric.values())
    assert all(isinstance(member, Metric) for member in metric.values())


# --- what torchmetrics and its users rely on ------------------------------------------------------------------------------


def bookkeeping(member):
    states = {
        fact: getattr(member, member._state(fact)) for fact in ("sum", "count", "skipped", "collapsed", "out_of_range")
    }
    kinds = {fact: (state.dtype, state.shape, state.requires_grad) for fact, state in states.items()}
    facts = {fact: int(state) for fact, state in states.items() if fact != "sum"}
    return kinds, facts, member._update_count, member._computed, member._is_synced, member._to_sync, member._should_unsync


@pytest.mark.parametrize("call", ["update", "forward"])
def test_members_are_left_as_their_own_update_and_forward_leave_them(call):
    metric, alone = make(nan_strategy="ignore"), {case.name: case.make(nan_strategy="ignore") for case in CASES}
    for noisy, clean in (*BATCHES, (spoil(BATCHES[0][0], 0), BATCHES[0][1]), (1 - BATCHES[1][1], BATCHES[1][1])):
        metric.compute() if metric["pearson"].update_called else None  # a cached value has to go
        getattr(metric, call)(noisy, clean)
        for name, single in alone.items():
            getattr(single, call)(noisy, clean)
            assert bookkeeping(metric[name]) == bookkeeping(single)
            torch.testing.assert_close(metric[name]._fact("sum"), single._fact("sum"), rtol=0, atol=1e-6)
            if call == "forward":
                torch.testing.assert_close(metric[name]._forward_cache, single._forward_cache, rtol=0, atol=1e-6)
    metric.reset()
    assert all(member._forward_cache is None and not member.update_called for member in metric.values())


def test_forward_values_can_be_added_up_in_place():
    noisy, clean = BATCHES[0]
    values = make()(noisy.clone().requires_grad_(), clean)
    before = values["pearson"].detach().clone()
    values["ms_ssim"] += values["pearson"]
    values["ms_ssim"].backward()
    assert torch.equal(values["pearson"], before)


def test_states_made_in_inference_mode_go_on_outside_of_it():
    metric = make()
    with torch.inference_mode():
        metric.update(*BATCHES[0])
        metric.reset()
        metric.update(*BATCHES[0])
    metric(*BATCHES[1])
    updated(metric, BATCHES[2:])
    assert_values(metric.compute(), expected_means())


@pytest.mark.parametrize("call", ["update", "forward"])
def test_a_member_with_methods_of_its_own_keeps_them(call):
    class Doubled(JPEGPearson):
        calls = 0

        def update(self, preds, target=None):
            type(self).calls += 1
            super().update(preds, target)

        def compute(self):
            return 2 * super().compute()

    metric = make(extra={"plain": JPEGPearson(), "doubled": Doubled()})
    for batch in BATCHES:
        getattr(metric, call)(*batch)
    values = metric.compute()
    assert Doubled.calls == len(BATCHES)
    assert values["doubled"] == 2 * values["plain"]
    if call == "forward":
        assert metric["doubled"]._forward_cache == 2 * metric["plain"]._forward_cache


def test_an_update_costs_the_states_few_operations():
    """Seventeen members with five states each: a sum apiece, and not an evaluation apiece."""
    noisy, clean = BATCHES[0]
    metric = updated(make(), BATCHES[:1])

    def operations(function):
        with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as events:
            function(noisy, clean)
        return sum(event.name.startswith("aten::") for event in events.events())

    one = operations(lambda *pair: am.multi_attacker_scores(*pair, betas=SMALL))
    assert operations(metric.update) - one < 5 * 17 * 5
    assert operations(metric) - one < 7 * 17 * 5
