"""Metric classes, all seventeen alike: values, state, forward, merging, copies, non-finite pixels, wrong input."""

import copy
import gc
import itertools
import math
import pickle
import warnings

import pytest
import torch
from conftest import CASES, NAMES, SMALL, every_class, parameters, pictures, spoil, warns_once
from hypothesis import given
from hypothesis import strategies as st

import attacker_metrics as am

BATCHES = tuple(pictures(size, seed=size) for size in (3, 1, 4))
TOLERANCE = {"rtol": 0, "atol": 1e-6}


def close(value, expected):
    torch.testing.assert_close(torch.as_tensor(value).detach().cpu(), torch.as_tensor(expected).cpu(), **TOLERANCE)


def mean_score(case, batches):
    return torch.cat([case.per_image(*batch) for batch in batches]).mean()


def updated(metric, batches=BATCHES):
    for noisy, clean in batches:
        metric.update(noisy.to(metric.device), clean.to(metric.device))
    return metric


def states(metric):
    return {name: getattr(metric, name) for name in metric._defaults}


# --- what every class promises --------------------------------------------------------------------------------------------


def test_the_seventeen_classes_are_public_and_named_after_their_components():
    assert len(CASES) == 17
    for case in CASES:
        assert getattr(am, case.cls.__name__) is case.cls
        assert case.make().name == case.name
        assert issubclass(case.cls, am.AttackerMetric)
        assert case.cls.__module__ == "attacker_metrics.metrics.standard"
        assert case.cls.__doc__


@every_class
def test_constants_and_signatures(case):
    metric = case.make()
    assert (metric.higher_is_better, metric.is_differentiable, metric.full_state_update) == (False, True, False)
    assert (metric.plot_lower_bound, metric.plot_upper_bound) == (0, 1)
    assert parameters(case.cls) == (*case.settings, "nan_strategy", "kwargs")
    assert parameters(case.cls.update)[1:] == parameters(case.cls.forward)[1:] == ("preds", "target")
    with pytest.raises(RuntimeError, match="const"):
        metric.higher_is_better = True


@every_class
def test_compute_is_the_mean_over_all_images_whatever_the_batching(case, device):
    metric = updated(case.make().to(device))
    value = metric.compute()
    assert (value.shape, value.dtype, value.device.type) == ((), torch.float32, device.type)
    close(value, mean_score(case, BATCHES))
    assert [int(n) for n in (metric.count, metric.skipped)] == [8, 0]
    one_by_one = case.make().to(device)
    for noisy, clean in BATCHES:
        updated(one_by_one, zip(noisy.split(1), clean.split(1), strict=True))
    close(one_by_one.compute(), value)
    for order in itertools.permutations(BATCHES):
        close(updated(case.make().to(device), order).compute(), value)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_any_split_of_an_epoch_into_batches_gives_the_same_mean(sizes, seed):
    noisy, clean = pictures(sum(sizes), seed=seed)
    split, whole = am.MeanPearson(), am.MeanPearson()
    whole.update(noisy, clean)
    for part in zip(noisy.split(sizes), clean.split(sizes), strict=True):
        split(*part)
    close(split.compute(), whole.compute())
    assert split.count == whole.count == sum(sizes)


@every_class
def test_compute_twice_is_the_same_and_more_updates_change_it(case):
    metric = updated(case.make(), BATCHES[:1])
    first = metric.compute()
    assert torch.equal(metric.compute(), first)
    close(updated(metric, BATCHES[1:]).compute(), mean_score(case, BATCHES))


@every_class
def test_reset_forgets_everything(case):
    metric = updated(case.make())
    metric.reset()
    assert all(value == 0 for value in states(metric).values())
    close(updated(metric, BATCHES[:1]).compute(), mean_score(case, BATCHES[:1]))


@every_class
def test_an_empty_batch_is_a_no_op(case, device):
    metric = updated(case.make().to(device), BATCHES[:1])
    before = {name: value.clone() for name, value in states(metric).items()}
    empty = torch.empty(0, 3, 22, 22, device=device)
    metric.update(empty, empty)
    assert states(metric) == before
    close(metric.compute(), mean_score(case, BATCHES[:1]))


@every_class
def test_an_empty_batch_in_forward_adds_nothing_and_its_mean_is_nan(case):
    metric = updated(case.make(), BATCHES[:1])
    with warns_once("No pair of finite images was seen"):
        value = metric(torch.empty(0, 3, 22, 22), torch.empty(0, 3, 22, 22))
    assert value.isnan()
    close(metric.compute(), mean_score(case, BATCHES[:1]))


# --- state ----------------------------------------------------------------------------------------------------------------


@every_class
def test_state_is_scalars_of_int64_and_float64_however_many_images(case, device):
    metric = case.make().to(device)
    names = set(metric._defaults)
    for _ in range(3):
        updated(metric)
        metric(*(x.to(device) for x in BATCHES[0]))
        assert set(metric._defaults) == names
        for name, value in states(metric).items():
            assert value.shape == ()
            assert value.dtype == (torch.float64 if name.startswith("sum") else torch.int64)
            assert value.grad_fn is None
            assert value.device.type == device.type


@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(),
        lambda m: m.float(),
        lambda m: m.bfloat16(),
        lambda m: m.to(torch.float16),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to("cpu", torch.float32),
        lambda m: m.to(torch.zeros(1, dtype=torch.float16)),
    ],
    ids=["half", "float", "bfloat16", "to half", "to bfloat16", "to device and float", "to tensor"],
)
@pytest.mark.parametrize("holder", ["alone", "in a module", "collection"])
def test_casting_keeps_the_state_and_the_mean(cast, holder):
    collection = am.MultiAttackerPrivacy(betas=SMALL, compute_ms_ssim=False)
    metric = collection["pearson_rgb"] if holder == "collection" else am.RGBPearson()
    outer = {"alone": metric, "in a module": torch.nn.ModuleList([metric]), "collection": collection}[holder]
    updated(metric)
    cast(outer)
    dtypes = {name.split("_")[0]: value.dtype for name, value in states(metric).items()}
    assert dtypes["sum"] == torch.float64
    assert dtypes["count"] == dtypes["skipped"] == dtypes["collapsed"] == torch.int64
    metric.reset()
    assert next(value.dtype for name, value in states(metric).items() if name.startswith("sum")) == torch.float64
    updated(metric)
    close(metric.compute(), mean_score(CASES[9], BATCHES))


def test_counts_do_not_stop_at_two_to_the_24_and_sums_do_not_round_images_away():
    metric = am.RGBPearson()
    metric.persistent(True)
    state = metric.state_dict()
    for name in state:
        if name.startswith(("sum", "count")):
            state[name] = torch.full_like(state[name], 2**24)
    metric.load_state_dict(state)
    for _ in range(3):
        metric.update(pictures(1)[1], pictures(1)[1])
    assert metric.count == 2**24 + 3
    assert float(states(metric)[next(n for n in state if n.startswith("sum"))]) == pytest.approx(2**24 + 3, abs=1e-4)
    assert metric.compute() == pytest.approx(1)


def test_half_precision_images_are_averaged_without_rounding_the_mean():
    metric, scores = am.RGBPearson(), []
    for seed in range(50):
        noisy, clean = pictures(2, 8, 8, seed=seed, dtype=torch.bfloat16)
        metric.update(noisy, clean)
        scores.append(am.multi_attacker_scores(noisy.float(), clean.float(), compute_ms_ssim=False)["pearson_rgb"])
    close(metric.compute(), torch.cat(scores).mean())


@every_class
def test_pickles_copies_and_clones_go_on_on_their_own(case):
    metric = updated(case.make(), BATCHES[:1])
    for again in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
        assert type(again) is case.cls
        close(again.compute(), metric.compute())
        close(updated(again, BATCHES[1:]).compute(), mean_score(case, BATCHES))
        assert again.count == 8
        close(again(*BATCHES[0]), mean_score(case, BATCHES[:1]))
    assert metric.count == 3


@every_class
def test_state_dict_round_trip(case):
    metric = updated(case.make(), BATCHES[:1])
    assert metric.state_dict() == {}
    metric.persistent(True)
    state = metric.state_dict()
    assert set(state) == set(metric._defaults)
    again = case.make()
    again.persistent(True)
    again.load_state_dict(state)
    close(updated(again, BATCHES[1:]).compute(), mean_score(case, BATCHES))
    assert again.count == 8


@every_class
def test_merge_state_before_and_after_updates_and_with_a_pickled_partial(case):
    fresh = case.make()
    fresh.merge_state(updated(case.make(), BATCHES[:1]))
    close(fresh.compute(), mean_score(case, BATCHES[:1]))
    metric = updated(case.make(), BATCHES[:1])
    metric.merge_state(pickle.loads(pickle.dumps(updated(case.make(), BATCHES[1:2]))))
    close(updated(metric, BATCHES[2:]).compute(), mean_score(case, BATCHES))
    assert metric.count == 8
    with_a_dict = updated(case.make(), BATCHES[:2])
    with_a_dict.merge_state(updated(case.make(), BATCHES[2:]).metric_state)
    close(with_a_dict.compute(), mean_score(case, BATCHES))
    metric.merge_state(case.make())
    assert metric.count == 8


def test_merge_state_after_compute_is_seen_by_the_next_compute():
    metric = updated(am.RGBPearson(), BATCHES[:1])
    metric.compute()
    metric.merge_state(updated(am.RGBPearson(), BATCHES[1:]))
    close(metric.compute(), mean_score(CASES[9], BATCHES))


def test_load_state_dict_after_compute_is_seen_by_the_next_compute():
    source, metric = updated(am.RGBPearson(), BATCHES[1:]), updated(am.RGBPearson(), BATCHES[:1])
    source.persistent(True)
    metric.persistent(True)
    metric.compute()
    metric.load_state_dict(source.state_dict())
    close(metric.compute(), mean_score(CASES[9], BATCHES[1:]))


def test_merge_state_refuses_another_class_and_other_settings():
    with pytest.raises(ValueError, match="RGBPearson"):
        am.RGBPearson().merge_state(am.GrayPearson())
    with pytest.raises(ValueError, match="BlurPearson 'pearson_blur': only metrics of the same class and settings"):
        am.BlurPearson(blur_sigma=1.0).merge_state(am.BlurPearson(blur_sigma=2.0))


def test_state_names_tell_classes_and_settings_apart_and_agree_for_equal_ones():
    metrics = [case.make() for case in CASES]
    metrics += [am.BlurPearson(blur_sigma=1.0), am.GammaPearson((2.0, 0.5)), am.RGBClampMSSSIM(betas=(0.4, 0.6))]
    names = [frozenset(metric._defaults) for metric in metrics]
    assert len(set(names)) == len(metrics)
    assert len(frozenset.union(*names)) == sum(map(len, names))
    again = [case.make() for case in CASES]
    assert [frozenset(metric._defaults) for metric in again] == names[:17]


# --- forward --------------------------------------------------------------------------------------------------------------


@every_class
def test_forward_returns_the_differentiable_batch_value_and_accumulates(case, device):
    metric = case.make().to(device)
    for noisy, clean in BATCHES:
        noisy, clean = noisy.to(device).detach().requires_grad_(), clean.to(device)
        value = metric(noisy, clean)
        expected = case.per_image(noisy, clean).mean()
        assert (value.shape, value.dtype) == ((), torch.float32)
        close(value, expected)
        slopes = [torch.autograd.grad(v, noisy)[0] for v in (value, expected)]
        assert (slopes[0] - slopes[1]).norm() <= 1e-5 * slopes[1].norm() > 0
    close(metric.compute(), mean_score(case, BATCHES))
    assert metric.count == 8
    assert not metric.compute().requires_grad


def tensors_alive():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def steps(metric, number, side):
    noisy, clean = (x.requires_grad_() for x in pictures(1, side, side))
    for step in range(number):
        value = metric(noisy, clean)
        if step % 10 == 0:
            value.backward()
            noisy.grad = clean.grad = None
    assert all(state.grad_fn is None for state in states(metric).values())


@pytest.mark.parametrize("metric", [am.RGBClampMSSSIM(betas=(1.0,)), am.WaveletPearson()], ids=lambda m: m.name)
def test_memory_stays_flat_over_a_thousand_forwards(metric):
    steps(metric, 20, 11)
    before = tensors_alive()
    steps(metric, 1000, 11)
    assert tensors_alive() <= before
    assert metric.count == 1020


@every_class
def test_no_class_keeps_a_graph(case):
    metric = case.make()
    steps(metric, 3, 22)
    before = tensors_alive()
    steps(metric, 12, 22)
    assert tensors_alive() <= before


def test_update_makes_no_graph():
    noisy, clean = pictures()
    metric = am.MeanMSSSIM(betas=SMALL)
    metric.update(noisy.requires_grad_(), clean)
    assert not any(state.requires_grad for state in states(metric).values())


@every_class
@pytest.mark.parametrize("fault", ["range", "dtype", "shape", "size", "channels"])
def test_a_failing_update_or_forward_loses_nothing(case, fault):
    noisy, clean = BATCHES[0]
    bad, error, message = {
        "range": ((noisy, clean * 2), ValueError, r"clean images leave \[0, 1\] by more than 1e-3; denormalise"),
        "dtype": ((noisy.byte(), clean), TypeError, r"noisy images .* got torch\.uint8;.* images\.float\(\) / 255"),
        "shape": ((noisy, clean[:1]), ValueError, r"same shape, got \(3, 3, 22, 22\) and \(1, 3, 22, 22\)"),
        "size": ((noisy[..., :6], clean[..., :6]), ValueError, "22 x 6 pixels are too small"),
        "channels": ((noisy[:, :1], clean[:, :1]), ValueError, r"3 channels .* got \(3, 1, 22, 22\)"),
    }[fault]
    metric = updated(case.make())
    calls = [metric.update, metric]
    if fault == "size" and not case.is_ms_ssim and "blur_sigma" not in case.settings:
        calls = []
        metric.update(*bad)
        metric.reset()
        updated(metric)
    for call in calls:
        with pytest.raises(error, match=message):
            call(*bad)
        assert metric.count == 8
    close(metric.compute(), mean_score(case, BATCHES))
    metric(*BATCHES[0])
    assert metric.count == 11
    assert not metric._is_synced
    close(metric.compute(), mean_score(case, (*BATCHES, BATCHES[0])))


@every_class
def test_autocast_changes_nothing(case, device):
    plain, cast = case.make().to(device), case.make().to(device)
    noisy, clean = (x.to(device) for x in BATCHES[2])
    expected = plain(noisy, clean)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        value = cast(noisy, clean)
        cast.update(noisy, clean)
        assert abs(cast.compute() - expected) <= 1e-5
    assert value.dtype == torch.float32
    assert abs(value - expected) <= 1e-5


# --- non-finite pixels, collapsed images, nothing seen --------------------------------------------------------------------


@every_class
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_warn_leaves_a_pair_with_a_non_finite_pixel_out_and_counts_it(case, value):
    noisy, clean = BATCHES[2]
    good = [0, 1, 3]
    metric = case.make()
    for call, spoiled in ((metric.update, (spoil(noisy, 2, value), clean)), (metric, (noisy, spoil(clean, 2, value)))):
        with warns_once("^1 of 4 pairs of images hold NaN or infinite pixels and are left out of the mean"):
            call(*spoiled)
    assert [int(metric.count), int(metric.skipped)] == [6, 2]
    close(metric.compute(), case.per_image(noisy[good], clean[good]).mean())


@every_class
def test_ignore_leaves_it_out_silently_and_error_refuses_the_batch(case):
    noisy, clean = BATCHES[2]
    spoiled = spoil(noisy, 2)
    silent = case.make(nan_strategy="ignore")
    silent.update(spoiled, clean)
    close(silent(spoiled, clean), silent.compute())
    assert [int(silent.count), int(silent.skipped)] == [6, 2]
    strict = updated(case.make(nan_strategy="error"))
    for call in (strict.update, strict):
        for category in (ValueError, RuntimeError, am.NonFiniteImageError):
            with pytest.raises(category, match=r"^1 of 4 pairs .* nan_strategy='warn' or 'ignore'"):
                call(spoiled, clean)
    assert [int(strict.count), int(strict.skipped)] == [8, 0]
    close(strict.compute(), mean_score(case, BATCHES))


@every_class
@pytest.mark.parametrize("strategy", ["drop", None, "", True])
def test_an_unknown_nan_strategy_is_named(case, strategy):
    with pytest.raises(ValueError, match=f"nan_strategy must be 'warn', 'ignore' or 'error', got {strategy!r}"):
        case.make(nan_strategy=strategy)


@every_class
def test_the_gradient_of_forward_is_zero_at_a_skipped_pair_and_unchanged_beside_it(case):
    noisy, clean = BATCHES[2]
    good = [0, 1, 3]
    spoiled = spoil(noisy, 2).requires_grad_()
    metric = case.make(nan_strategy="ignore")
    metric(spoiled, clean).backward()
    alone = noisy[good].requires_grad_()
    case.per_image(alone, clean[good]).mean().backward()
    assert spoiled.grad[2].abs().max() == 0
    assert (spoiled.grad[good] - alone.grad).norm() <= 1e-5 * alone.grad.norm()


@every_class
def test_nothing_seen_is_nan_with_exactly_one_warning(case):
    metric = case.make()
    with warns_once("No pair of finite images was seen, so the mean is NaN"):
        assert metric.compute().isnan()
    noisy, clean = pictures(2)
    metric = case.make()
    with warns_once("2 of 2"):
        metric.update(noisy * math.nan, clean)
    with warns_once("No pair of finite images"):
        assert metric.compute().isnan()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert case.make(nan_strategy="ignore").compute().isnan()


@every_class
def test_forward_of_nothing_but_bad_pairs_is_nan_with_one_warning_and_zero_gradient(case):
    noisy, clean = pictures(2)
    spoiled = (noisy * math.nan).requires_grad_()
    metric = updated(case.make())
    with warns_once("2 of 2 pairs"):
        value = metric(spoiled, clean)
    assert value.isnan()
    close(metric.compute(), mean_score(case, BATCHES))


@every_class
def test_collapsed_counts_images_whose_ms_ssim_is_zero_because_a_term_is_not_positive(case, device):
    clean = torch.cat([pictures(2)[1], pictures(1, seed=5)[1]])
    noisy = torch.cat((1 - clean[:2], clean[2:])).to(device)
    clean = clean.to(device)
    scores = am.multi_attacker_scores(noisy, clean, betas=SMALL)
    members = am.MS_SSIM_COMPONENT_NAMES if case.name == "ms_ssim" else (case.name,)
    expected = torch.stack([scores[name] == 0 for name in members]).any(dim=0).sum() if case.is_ms_ssim else 0
    metric = case.make().to(device)
    metric.update(noisy, clean)
    metric(noisy, clean)
    assert metric.collapsed == 2 * expected
    assert metric.collapsed.dtype == metric.count.dtype == metric.skipped.dtype == torch.int64
    if case.is_ms_ssim and case.name != "sobel_gray":
        assert metric.collapsed == 4
    metric.reset()
    assert metric.collapsed == 0


def test_gamma_collapses_only_where_every_gamma_does():
    rng = torch.Generator().manual_seed(3)
    noisy, clean = torch.rand(2, 60, 3, 22, 22, generator=rng)
    each = [am.multi_attacker_scores(noisy, clean, betas=SMALL, gamma_values=(g,))["gamma_gray"] == 0 for g in (0.5, 2.0)]
    assert (each[0] != each[1]).any()  # somewhere one exponent collapses and the other does not
    metric = am.GammaMSSSIM(betas=SMALL)
    metric.update(noisy, clean)
    assert metric.collapsed == (each[0] & each[1]).sum() > 0


def test_a_skipped_pair_is_not_collapsed():
    noisy, clean = pictures(2)
    metric = am.MeanMSSSIM(betas=SMALL, nan_strategy="ignore")
    metric.update(spoil(noisy, 0), clean)
    assert [int(n) for n in (metric.count, metric.skipped, metric.collapsed)] == [1, 1, 0]


# --- wrong input ----------------------------------------------------------------------------------------------------------


@every_class
@pytest.mark.parametrize(("shift", "fine"), [(-0.0009, True), (0.0009, True), (-0.0015, False), (0.0015, False)])
def test_clean_may_leave_the_range_by_a_thousandth_only(case, shift, fine):
    noisy, clean = pictures(2)
    clean[1, 0, 0, 0] = (1 if shift > 0 else 0) + shift
    metric = case.make()
    if fine:
        metric.update(noisy, clean)
        assert metric.count == 2
    else:
        with pytest.raises(ValueError, match=r"^1 of 2 clean images leave \[0, 1\] .* clean \* std \+ mean, .* by 255"):
            metric.update(noisy, clean)
        assert metric.count == 0


def test_noisy_may_leave_the_range():
    noisy, clean = pictures(2)
    metric = am.RGBMinMaxMSSSIM(betas=SMALL)
    metric.update(noisy * 1000 - 300, clean)
    close(metric.compute(), CASES[1].per_image(noisy, clean).mean())


WRONG = {
    "gamma_values": ((), (0.0,), (-2.0,)),
    "blur_sigma": (0.0, -1.0, math.nan),
    "wavelet_threshold": (-0.1,),
    "betas": ((), (0.0, 1.0), (-1.0,)),
}


@every_class
def test_constructors_refuse_settings_out_of_range(case):
    for setting in case.settings:
        for value in WRONG[setting]:
            with pytest.raises(ValueError, match=setting):
                case.make(**{setting: value})
    with pytest.raises(ValueError, match=r"Unexpected keyword arguments: `blur`"):
        case.make(blur=1.0)


@every_class
def test_settings_reach_the_score(case):
    noisy, clean = pictures(3, 44, 44)
    values = {"gamma_values": (3.0,), "blur_sigma": 0.7, "wavelet_threshold": 0.3, "betas": (0.2, 0.3, 0.5)}
    settings = {name: values[name] for name in case.settings}
    metric = case.cls(**settings)
    metric.update(noisy, clean)
    expected = am.multi_attacker_scores(noisy, clean, **{"betas": SMALL, **settings})[case.name].mean()
    close(metric.compute(), expected)
    if settings:
        assert abs(expected - case.per_image(noisy, clean).mean()) > 1e-4


def test_a_pair_stands_for_both_sides_and_goes_alone():
    noisy, clean = pictures()
    metric = am.RGBPearson()
    metric.update(am.Pair(noisy, clean))
    close(metric(am.Pair(noisy, clean)), metric.compute())
    assert metric.count == 4
    for call in (metric.update, metric):
        with pytest.raises(ValueError, match="target must be left out when preds is a Pair"):
            call(am.Pair(noisy, clean), clean)
        with pytest.raises(TypeError, match=r"clean images must be a torch\.Tensor, got NoneType"):
            call(noisy)


# --- metrics of one's own -------------------------------------------------------------------------------------------------


def test_the_base_class_needs_components_and_a_name_for_several():
    table = am.standard_components(betas=SMALL)
    with pytest.raises(ValueError, match="AttackerMetric needs at least one Component"):
        am.AttackerMetric()
    with pytest.raises(ValueError, match="averages 2 components and needs a name"):
        am.AttackerMetric(table["rgb_clamp"], table["pearson_rgb"])
    metric = am.AttackerMetric(table["rgb_clamp"], table["pearson_rgb"], name="both")
    scores = am.multi_attacker_scores(*BATCHES[2], betas=SMALL)
    close(metric(*BATCHES[2]), (scores["rgb_clamp"] + scores["pearson_rgb"]).mean() / 2)
    assert metric.name == "both"


def test_a_similarity_of_the_wrong_shape_is_named_and_loses_nothing():
    metric = am.AttackerMetric(am.Component("mine", lambda noisy, clean: (noisy - clean).abs().mean()))
    for call in (metric.update, metric):
        with pytest.raises(ValueError, match=r"component 'mine': .* shape \(3,\), got \(\)"):
            call(*BATCHES[0])
    assert metric.count == 0


def test_forward_evaluates_a_component_once():
    calls = []

    def similarity(noisy, clean):
        calls.append(len(noisy))
        return am.SquaredPearson()(noisy, clean)

    metric = am.AttackerMetric(am.Component("counted", similarity))
    metric(*BATCHES[0])
    metric.update(*BATCHES[2])
    assert calls == [3, 4]


def test_the_order_of_names_is_that_of_the_functions():
    assert tuple(am.multi_attacker_scores(*BATCHES[1], betas=SMALL)) == NAMES
