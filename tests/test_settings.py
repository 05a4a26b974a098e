"""Settings: every spelling of a number is one number; what is none is named, with the limit."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import attacker_metrics as am
from attacker_metrics import MSSSIM, SquaredPearson
from attacker_metrics.attackers.filters import JPEG, Equalize, Unsharp, Wiener
from attacker_metrics.attackers.standard import Blur, Gamma, Wavelet
from attacker_metrics.scoring.suites import added_components

NUMBERS = {
    "blur_sigma": Blur,
    "every value of gamma_values": Gamma,
    "wavelet_threshold": Wavelet,
    "eps": SquaredPearson,
    "data_range": lambda value: MSSSIM(data_range=value),
    "amount": lambda value: Unsharp(amount=value),
    "noise_to_signal": lambda value: Wiener(noise_to_signal=value),
    "alpha": lambda value: am.PrivacyRegularizedLoss(nn.MSELoss(), alpha=value),
    "weights: 'pearson'": lambda value: am.MultiAttackerPrivacyLoss(weights={"pearson": value}),
    "mean must be finite and std positive; a mean": lambda value: am.MultiAttackerPrivacyLoss(
        mean=(0.5, 0.5, value), std=(1, 1, 1)
    ),
}
SEQUENCES = {
    "betas": lambda value: MSSSIM(value),
    "gamma_values": lambda value: am.standard_components(gamma_values=value),
}
SPELLINGS = (
    2,
    2.0,
    np.float64(2),
    np.float32(2),
    np.int64(2),
    np.array(2.0),
    Fraction(2),
    torch.tensor(2.0),
    torch.tensor(2),
)


@pytest.mark.parametrize(
    "make", [Blur, Gamma, Wavelet, SquaredPearson, lambda v: MSSSIM((v, 1), v), lambda v: Unsharp(v, v)]
)
def test_all_spellings_of_a_number_are_one_setting(make):
    made = [make(spelling) for spelling in SPELLINGS]
    assert len(set(made)) == 1
    assert len(set(map(repr, made))) == 1


@pytest.mark.parametrize("given", [np.array([0.5, 2.0]), torch.tensor([0.5, 2.0]), [0.5, 2], (0.5, 2.0), iter((0.5, 2.0))])
def test_sequences_may_be_arrays_and_iterators(given):
    noisy, clean = torch.rand(2, 1, 3, 22, 22)
    wanted = am.multi_attacker_scores(noisy, clean, betas=(0.5, 2.0), gamma_values=(0.5, 2.0))
    if isinstance(given, (list, tuple, np.ndarray, torch.Tensor)):
        found = am.multi_attacker_scores(noisy, clean, betas=given, gamma_values=given)
    else:
        found = am.multi_attacker_scores(noisy, clean, betas=given, gamma_values=(0.5, 2.0))
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name
    assert MSSSIM(np.array([0.5, 2.0])) == MSSSIM((0.5, 2.0))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, "2", None, [2.0], np.array([2.0]), np.bool_(True), 2j, b"2"], ids=repr)
def test_what_is_no_number_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must ") as caught:
        NUMBERS[name](value)
    assert isinstance(caught.value, TypeError)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.nan)], ids=repr)
def test_what_is_not_finite_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        NUMBERS[name](value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [nn.Parameter(torch.tensor(0.5)), torch.tensor(0.5, requires_grad=True) * 1])
def test_learnable_settings_are_refused_instead_of_frozen(name, value):
    with pytest.raises(ValueError, match=f"^{name} is a constant.*never get"):
        NUMBERS[name](value)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("value", [5, 2.0, "ab", None, True, {0.5}, {0.5: 1}, np.array(2.0), torch.tensor(2.0)], ids=repr)
def test_what_is_no_sequence_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*got") as caught:
        SEQUENCES[name](value)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("value", [("a",), (None,), (True, 0.5), ([0.5],), (math.nan,), (0.5, math.inf), np.ones((2, 2))])
def test_sequences_of_something_else_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got"):
        SEQUENCES[name](value)


@pytest.mark.parametrize("name", SEQUENCES)
def test_learnable_sequences_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} is a constant"):
        SEQUENCES[name](nn.Parameter(torch.tensor([0.5, 2.0])))


@pytest.mark.parametrize("value", [50.5, "50", None, True, 50.0])
def test_counts_are_whole_numbers(value):
    for make, name in ((JPEG, "quality"), (Equalize, "bins")):
        with pytest.raises(ValueError, match=f"{name} must be .* a whole number, got {value!r}"):
            make(value)
    assert JPEG(np.int64(50)) == JPEG(50)


@pytest.mark.parametrize("value", ["no", None, 2, 0.5])
def test_switches_are_true_or_false(value):
    for name in ("compute_ms_ssim", "compute_pearson"):
        with pytest.raises(ValueError, match=f"{name} must be True or False, got {value!r}"):
            am.MultiAttackerPrivacyLoss(**{name: value})


@pytest.mark.parametrize("weights", [5, [1.0], "pearson", 0.5, ()])
def test_weights_are_a_mapping(weights):
    with pytest.raises(ValueError, match="weights must be a dict from names to numbers"):
        am.MultiAttackerPrivacyLoss(weights=weights)


@pytest.mark.parametrize("suite", ["blur", None, 1, ["standard-v1"]])
def test_an_unknown_suite_is_named(suite):
    with pytest.raises(ValueError, match="suite must be one of 'standard-v1', 'standard-v2', got"):
        added_components(suite)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_default_dtype_changes_no_value(dtype):
    noisy, clean = torch.rand(2, 2, 3, 22, 22).unbind()
    settings = {"weights": {"inverted_gray": 1}, "betas": (0.5, 0.5), "mean": (0.1,) * 3, "std": (0.9,) * 3}

    def values():
        leaf = noisy.clone().requires_grad_()
        total = am.MultiAttackerPrivacyLoss(**settings)(leaf, clean)
        total.backward()
        added = am.Pair(noisy, clean).scores(added_components("standard-v1", betas=(0.5, 0.5)).values())
        return [total.detach(), leaf.grad, torch.stack(added)]

    wanted = values()
    torch.set_default_dtype(dtype)
    try:
        found = values()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
