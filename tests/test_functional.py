"""The public functions: the numerical bars, gradients everywhere, non-finite pixels, wrong input, invariances."""

import math

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from conftest import NAMES, SMALL, deliver_warnings, in_one_graph, parameters, photo_pair, pictures, spoil, warns_once
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from attacker_metrics import (
    DEFAULT_BETAS,
    MS_SSIM_COMPONENT_NAMES,
    PEARSON_COMPONENT_NAMES,
    multi_attacker_privacy_loss,
    multi_attacker_scores,
    pearson_sq_mean,
    safe_ms_ssim,
)

MS_SSIM = (*MS_SSIM_COMPONENT_NAMES, "ms_ssim")
PEARSON = (*PEARSON_COMPONENT_NAMES, "pearson")
FUNCTIONS = pytest.mark.parametrize(
    "function",
    [multi_attacker_privacy_loss, multi_attacker_scores],
    ids=lambda f: f.__name__.removeprefix("multi_attacker_"),
)


def tensors(arrays, dtype=torch.float32, device="cpu"):
    return [torch.tensor(array, dtype=dtype, device=device) for array in arrays]


def errors(got, expected):
    """Largest absolute difference per key."""
    assert list(got) == list(expected)
    return {name: float(np.abs(got[name].detach().double().cpu().numpy() - expected[name]).max()) for name in got}


# --- values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obfuscation", "size"),
    [
        *((obfuscation, (176, 176)) for obfuscation in reference.OBFUSCATIONS),
        *((obfuscation, (181, 203)) for obfuscation in ("noise", "pixelation", "out of range")),
    ],
    ids=str,
)
def test_scores_of_photographs_equal_the_reference(obfuscation, size, device):
    noisy, clean = photo_pair(obfuscation, *size)
    noisy, clean = noisy.astype(np.float32), clean.astype(np.float32)
    exact = noisy.astype(np.float64), clean.astype(np.float64)
    assert min(reference.smallest_margin(x, y) for x, y in zip(*exact, strict=True)) >= 1e-3  # where the bars hold
    expected = reference.batch_scores(*exact)
    assert max(errors(multi_attacker_scores(*tensors(exact, torch.float64, device)), expected).values()) <= 1e-12
    for name, error in errors(multi_attacker_scores(*tensors(exact, device=device)), expected).items():
        assert error <= 2e-5, name


def test_scores_with_other_settings_equal_the_reference(device):
    noisy, clean = (x[:2, :, :60, :47] for x in photo_pair("noise"))
    settings = {"gamma_values": (0.4, 1.3, 3.0), "blur_sigma": 1.3, "wavelet_threshold": 0.05, "betas": (0.2, 0.3, 0.5)}
    expected = reference.batch_scores(noisy, clean, **settings)
    got = multi_attacker_scores(*tensors((noisy, clean), torch.float64, device), **settings)
    assert max(errors(got, expected).values()) <= 1e-12
    got = multi_attacker_scores(*tensors((noisy, clean), device=device), **settings)
    assert max(errors(got, expected).values()) <= 2e-5


@pytest.mark.parametrize("dtypes", [(torch.bfloat16,) * 2, (torch.float16,) * 2, (torch.bfloat16, torch.float32)], ids=str)
@pytest.mark.parametrize("obfuscation", ["noise", "pixelation", "out of range"])
def test_half_precision_input_is_scored_as_the_reference_scores_the_rounded_pictures(obfuscation, dtypes, device):
    noisy, clean = (torch.tensor(x[:2]).to(dtype) for x, dtype in zip(photo_pair(obfuscation), dtypes, strict=True))
    expected = reference.batch_scores(noisy.double().numpy(), clean.double().numpy())
    got = multi_attacker_scores(noisy.to(device), clean.to(device))
    promoted = torch.promote_types(*dtypes)
    assert {value.dtype for value in got.values()} == {promoted}
    for name, error in errors(got, expected).items():
        assert error <= 5e-3, name
    loss = multi_attacker_privacy_loss(noisy.to(device), clean.to(device))
    for name, error in errors(loss, {name: np.array(v.mean()) for name, v in expected.items()}).items():
        assert error <= 5e-3, name
        assert loss[name].dtype == promoted


# The first photograph of 176 pixels after 2.5 x - 0.6, by reference.py.
GOLDEN = {
    "rgb_clamp": 0.871596332927,
    "rgb_minmax": 0.999999497545,
    "gray_clamp": 0.866077630942,
    "gray_minmax": 0.999997993021,
    "sobel_gray": 0.999990703035,
    "blur_gray": 0.887717544789,
    "standardize_gray": 1.000000000000,
    "gamma_gray": 0.821929718691,
    "wavelet_gray": 0.865969359552,
    "pearson_rgb": 0.934674602224,
    "pearson_gray": 0.929959972706,
    "pearson_sobel": 0.999995905621,
    "pearson_blur": 0.954320387995,
    "pearson_gamma": 0.888715063921,
    "pearson_wavelet": 0.929814662834,
    "ms_ssim": 0.923697642278,
    "pearson": 0.939580099217,
}


def test_pinned_golden_values_of_a_photograph():
    noisy, clean = (x[:1] for x in photo_pair("out of range"))
    assert list(GOLDEN) == list(NAMES)
    golden = {name: np.array([value]) for name, value in GOLDEN.items()}
    expected = reference.batch_scores(noisy, clean)
    assert max(abs(expected[name][0] - GOLDEN[name]) for name in NAMES) <= 1e-9
    assert max(errors(multi_attacker_scores(*tensors((noisy, clean), torch.float64)), golden).values()) <= 1e-9
    assert max(errors(multi_attacker_scores(*tensors((noisy, clean))), golden).values()) <= 2e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_loss_is_the_batch_mean_of_the_scores_with_the_same_keys_and_dtype(dtype, device):
    noisy, clean = pictures(3, 23, 25, dtype=dtype, device=device)
    loss, scores = (f(noisy, clean, betas=SMALL) for f in (multi_attacker_privacy_loss, multi_attacker_scores))
    assert tuple(loss) == tuple(scores) == NAMES
    for name in NAMES:
        assert loss[name].shape == ()
        assert scores[name].shape == (3,)
        assert loss[name].dtype == scores[name].dtype == dtype
        assert abs(loss[name].double() - scores[name].double().mean()) <= max(1e-6, torch.finfo(dtype).eps)


def test_the_means_weigh_their_components_equally(device):
    scores = multi_attacker_scores(*pictures(3, device=device), betas=SMALL)
    for mean, names in (("ms_ssim", MS_SSIM_COMPONENT_NAMES), ("pearson", PEARSON_COMPONENT_NAMES)):
        expected = torch.stack([scores[name] for name in names]).mean(dim=0)
        torch.testing.assert_close(scores[mean], expected, rtol=0, atol=1e-6)


@FUNCTIONS
def test_a_family_that_is_switched_off_leaves_no_key_and_changes_no_other_value(function):
    noisy, clean = pictures()
    both = function(noisy, clean, betas=SMALL)
    for switch, names in (("compute_pearson", MS_SSIM), ("compute_ms_ssim", PEARSON)):
        one = function(noisy, clean, betas=SMALL, **{switch: False})
        assert tuple(one) == names
        assert all(torch.equal(one[name], both[name]) for name in names)


@FUNCTIONS
def test_the_functions_take_the_arguments_of_the_specification(function):
    settings = ("gamma_values", "blur_sigma", "wavelet_threshold", "compute_ms_ssim", "compute_pearson", "betas")
    assert parameters(function) == ("noisy_01", "clean_01", *settings)
    assert function.__kwdefaults__ == {
        "gamma_values": (0.5, 2.0),
        "blur_sigma": 2.0,
        "wavelet_threshold": 0.1,
        "compute_ms_ssim": True,
        "compute_pearson": True,
        "betas": DEFAULT_BETAS,
    }
    assert parameters(pearson_sq_mean) == ("pred", "target", "eps")
    assert parameters(safe_ms_ssim) == ("pred", "target", "data_range", "normalize", "betas")


def test_identical_photographs_score_one_except_minmax_of_pictures_that_do_not_span_zero_to_one():
    (clean,) = tensors(photo_pair()[1:])
    scores = multi_attacker_scores(clean, clean)
    for name in set(NAMES) - {"rgb_minmax", "gray_minmax", "ms_ssim"}:
        assert (scores[name] - 1).abs().max() <= 2e-5, name
    assert (scores["rgb_minmax"] < 1 - 1e-4).any()
    clean[:, :, 0, 0], clean[:, :, 0, 1] = 0, 1
    scores = multi_attacker_scores(clean, clean)
    for name in NAMES:
        assert (scores[name] - 1).abs().max() <= 2e-5, name


def test_an_inverted_photograph_reads_zero_for_eight_of_nine_ms_ssims_and_one_for_edges_and_pearson():
    noisy, clean = tensors(photo_pair("inversion"))
    scores = multi_attacker_scores(noisy, clean)
    for name in set(MS_SSIM_COMPONENT_NAMES) - {"sobel_gray"}:
        assert (scores[name] == 0).all(), name
    assert (scores["sobel_gray"] - 1).abs().max() <= 2e-5
    torch.testing.assert_close(scores["ms_ssim"], torch.full((4,), 1 / 9), rtol=0, atol=1e-5)
    for name in set(PEARSON_COMPONENT_NAMES) - {"pearson_gamma"}:
        assert (scores[name] - 1).abs().max() <= 2e-5, name
    assert (scores["pearson_gamma"] > 0.75).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_batch_equals_batches_of_one_and_any_order(dtype, device):
    noisy, clean = (x.to(device, dtype) for x in map(torch.tensor, photo_pair("noise")))
    together = multi_attacker_scores(noisy, clean)
    order = [2, 0, 3, 1]
    permuted = multi_attacker_scores(noisy[order], clean[order])
    alone = [multi_attacker_scores(noisy[i : i + 1], clean[i : i + 1]) for i in range(4)]
    for name in NAMES:
        assert (torch.cat([one[name] for one in alone]) - together[name]).abs().max() <= 1e-6, name
        assert (permuted[name] - together[name][order]).abs().max() <= 1e-6, name


def test_memory_layout_does_not_matter(device):
    noisy, clean = pictures(device=device)
    expected = multi_attacker_scores(noisy, clean, betas=SMALL)
    for layout in (
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    ):
        got = multi_attacker_scores(layout(noisy), layout(clean), betas=SMALL)
        assert all((got[name] - expected[name]).abs().max() <= 1e-6 for name in NAMES)
    grey = clean[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        multi_attacker_scores(noisy, grey, betas=SMALL), multi_attacker_scores(noisy, grey.clone(), betas=SMALL)
    )


def test_inputs_stay_as_they_were_and_nothing_is_printed(capfd):
    noisy, clean = (x.requires_grad_() for x in pictures())
    copies = noisy.detach().clone(), clean.detach().clone()
    sum(multi_attacker_privacy_loss(noisy, clean, betas=SMALL).values()).backward()
    assert torch.equal(noisy, copies[0])
    assert torch.equal(clean, copies[1])
    assert capfd.readouterr() == ("", "")


# --- gradients ------------------------------------------------------------------------------------------------------------


def plain_scores(noisy, clean, betas):
    """The seventeen scores by plain formulas and torchmetrics' MS-SSIM, for autograd in float64."""

    def gaussian(x):
        t = torch.arange(-6, 7, dtype=x.dtype)
        w = torch.exp(-(t**2) / 8)
        w = torch.outer(w, w) / w.sum() ** 2
        return F.conv2d(F.pad(x, (6, 6, 6, 6), mode="reflect"), w[None, None])

    def sobel(x):
        gx = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=x.dtype) / 8
        edges = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), torch.stack((gx, gx.T))[:, None])
        return (edges.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()

    def minmax(x):
        low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
        return (x - low) / (high - low)

    def standardize(x):
        return torch.sigmoid((x - x.mean(dim=(1, 2, 3), keepdim=True)) / x.std(dim=(1, 2, 3), keepdim=True, correction=0))

    def wavelet(x):
        signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=x.dtype)
        filters = signs.view(4, 1, 2, 2) / 2
        bands = F.conv2d(x, filters, stride=2)
        bands = torch.cat((bands[:, :1], F.softshrink(bands[:, 1:], 0.1)), dim=1)
        return F.conv_transpose2d(bands, filters, stride=2)

    def ms_ssim(x, y):
        return multiscale_structural_similarity_index_measure(
            x, y, data_range=1.0, normalize="relu", reduction="none", betas=betas
        )

    def pearson(x, y):
        x, y = (v - v.mean(dim=(1, 2, 3), keepdim=True) for v in (x, y))
        return (x * y).mean(dim=(1, 2, 3)) ** 2 / (x.square().mean(dim=(1, 2, 3)) * y.square().mean(dim=(1, 2, 3)))

    weights = torch.tensor([0.299, 0.587, 0.114], dtype=noisy.dtype).view(1, 3, 1, 1)
    raw, clean_gray = ((x * weights).sum(dim=1, keepdim=True) for x in (noisy, clean))
    gray = raw.clamp(0, 1)
    curves = [(gray.clamp(1e-6, 1) ** g, clean_gray.clamp(1e-6, 1) ** g) for g in (0.5, 2.0)]
    edges, clean_edges = sobel(raw), sobel(clean_gray)
    blurred, denoised = (gaussian(gray), gaussian(clean_gray)), (wavelet(gray), wavelet(clean_gray))
    scores = {
        "rgb_clamp": ms_ssim(noisy.clamp(0, 1), clean),
        "rgb_minmax": ms_ssim(minmax(noisy), clean),
        "gray_clamp": ms_ssim(gray, clean_gray),
        "gray_minmax": ms_ssim(minmax(raw), clean_gray),
        "sobel_gray": ms_ssim(minmax(edges), minmax(clean_edges)),
        "blur_gray": ms_ssim(*blurred),
        "standardize_gray": ms_ssim(standardize(raw), standardize(clean_gray)),
        "gamma_gray": (ms_ssim(*curves[0]) + ms_ssim(*curves[1])) / 2,
        "wavelet_gray": ms_ssim(*denoised),
        "pearson_rgb": pearson(noisy.clamp(0, 1), clean),
        "pearson_gray": pearson(gray, clean_gray),
        "pearson_sobel": pearson(edges, clean_edges),
        "pearson_blur": pearson(*blurred),
        "pearson_gamma": (pearson(*curves[0]) + pearson(*curves[1])) / 2,
        "pearson_wavelet": pearson(*denoised),
    }
    for mean, names in (("ms_ssim", MS_SSIM_COMPONENT_NAMES), ("pearson", PEARSON_COMPONENT_NAMES)):
        scores[mean] = torch.stack([scores[name] for name in names]).mean(dim=0)
    return scores


def all_slopes(function, noisy, clean, weights):
    """Per component the gradient of a weighted sum over the batch with respect to (noisy, clean)."""
    noisy, clean = noisy.clone().requires_grad_(), clean.clone().requires_grad_()
    scores = function(noisy, clean)
    return {
        name: torch.autograd.grad((scores[name] * weights.to(scores[name])).sum(), (noisy, clean), retain_graph=True)
        for name in scores
    }


@pytest.mark.parametrize(
    ("obfuscation", "pictures", "scales"),
    [
        ("noise", slice(1, 2), 5),
        ("noise", slice(4), 3),
        ("blur", slice(4), 3),
        ("pixelation", slice(4), 3),
        ("blend", slice(4), 3),
    ],
)
def test_gradients_in_float32_equal_those_of_the_plain_formulas_in_float64(obfuscation, pictures, scales, device):
    noisy, clean = (torch.tensor(x[pictures].astype(np.float32)) for x in photo_pair(obfuscation))
    if scales < 5:
        noisy, clean = (x[:, :, 50:120, 40:106] for x in (noisy, clean))
    betas = tuple(torch.tensor(DEFAULT_BETAS[:scales]).tolist())  # torchmetrics rounds them to float32
    assert min(reference.smallest_margin(x, y, betas) for x, y in zip(noisy.numpy(), clean.numpy(), strict=True)) >= 1e-3
    weights = torch.tensor([1.0, -0.5, 2.0, 0.3])[: len(noisy)]
    expected = all_slopes(lambda x, y: plain_scores(x, y, betas), noisy.double(), clean.double(), weights)
    got = all_slopes(lambda x, y: multi_attacker_scores(x, y, betas=betas), noisy.to(device), clean.to(device), weights)
    assert tuple(got) == tuple(expected) == NAMES
    for name in NAMES:
        for side, slope, expected_slope in zip(("noisy", "clean"), got[name], expected[name], strict=True):
            relative = (slope.cpu().double() - expected_slope).norm() / expected_slope.norm()
            assert relative <= 1e-3, (name, side)


def test_any_weighting_of_the_outputs_per_image_is_one_backward(device):
    noisy, clean = pictures(3, 24, 23, dtype=torch.float64, device=device)
    weights = torch.randn(len(NAMES), 3, dtype=torch.float64, device=device)
    one_by_one = [
        all_slopes(lambda x, y: multi_attacker_scores(x, y, betas=SMALL), noisy, clean, weights[i])[name]
        for i, name in enumerate(NAMES)
    ]
    noisy.requires_grad_()
    clean.requires_grad_()
    scores = multi_attacker_scores(noisy, clean, betas=SMALL)
    (torch.stack([scores[name] for name in NAMES]) * weights).sum().backward()
    torch.testing.assert_close(noisy.grad, sum(slope[0] for slope in one_by_one), rtol=0, atol=1e-12)
    torch.testing.assert_close(clean.grad, sum(slope[1] for slope in one_by_one), rtol=0, atol=1e-12)


@FUNCTIONS
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)], ids=str)
def test_gradcheck_in_float64(function, wanted, device):
    noisy, clean = pictures(2, 22, 23, dtype=torch.float64, device=device)
    noisy.requires_grad_(wanted[0])
    clean.requires_grad_(wanted[1])

    def outputs(x, y):
        return tuple(function(x, y, betas=SMALL).values())

    assert torch.autograd.gradcheck(outputs, (noisy, clean), fast_mode=True)


def test_gradients_reach_only_the_side_that_wants_them():
    noisy, clean = pictures()
    noisy.requires_grad_()
    loss = multi_attacker_privacy_loss(noisy, clean, betas=SMALL)
    sum(loss.values()).backward()
    assert noisy.grad.abs().max() > 0
    assert clean.grad is None
    with torch.no_grad():
        assert not any(v.requires_grad for v in multi_attacker_privacy_loss(noisy, clean, betas=SMALL).values())


def near_zero_contrast(clean):
    """Mixtures of a picture and its negative between which the first scale's mean contrast changes its sign."""

    def mixture(a):
        return a * clean + (1 - a) * (1 - clean)

    def term(a):
        return reference.ms_ssim_terms(mixture(a)[0], clean[0], SMALL)[0]

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if term(middle) <= 0 else (low, middle)
    return mixture(low), mixture(high), mixture(high + 1e-4)


def awkward(dtype):
    """Name -> finite (noisy, clean) on which a careless slope would divide by 0, overflow or meet a root at 0."""
    largest = torch.finfo(dtype).max
    rng = np.random.default_rng(0)
    clean = rng.random((2, 3, 22, 22))
    signs = np.where(rng.random(clean.shape) < 0.5, -1.0, 1.0)
    one_pixel = np.zeros_like(clean)
    one_pixel[1, 1, 7, 9] = 1
    below, above, further = near_zero_contrast(clean)
    huge = min(3e38, largest)
    cases = {
        "identical": (clean, clean),
        "inverted": (1 - clean, clean),
        "saturated": (1e4 * (clean - 0.5), clean),
        "black and white": ((signs + 1) / 2, (signs + 1) / 2),
        "outlier": (clean + min(1e30, largest / 2) * one_pixel, clean),
        "negative outlier": (clean - min(1e30, largest / 2) * one_pixel, clean),
        "outlier in clean": (clean, clean + min(1e30, largest / 2) * one_pixel),
        "largest outlier on black": (largest * one_pixel, clean),
        "one bright pixel on black": (one_pixel, one_pixel),
        "huge": (np.full_like(clean, huge), clean),
        "huge negative": (np.full_like(clean, -huge), clean),
        "huge of both signs": (huge * signs, clean),
        "huge on both sides": (huge * signs, huge * signs),
        "about the cut": (min(1e15, largest) * signs * clean, clean),
        "tiny contrast": (0.5 + 1e-7 * clean, clean),
        "tiny": (1e-30 * clean, clean),
        "subnormal": (1e-42 * clean, 1e-42 * clean),
        "contrast at or below zero": (below, clean),
        "contrast just above zero": (above, clean),
        "contrast slightly above zero": (further, clean),
        "half a step edge": (np.where(np.arange(22) < 11, 0.0, 1.0) * np.ones_like(clean), clean),
    }
    for value in (0.0, 0.5, 1.0, -3.0):
        cases[f"constant {value}"] = (np.full_like(clean, value), clean)
    for value in (0.0, 0.5, 1.0):
        cases[f"clean constant {value}"] = (clean, np.full_like(clean, value))
        cases[f"both constant {value}"] = (np.full_like(clean, value), np.full_like(clean, value))
    return {name: tuple(torch.tensor(x).to(dtype) for x in pair) for name, pair in cases.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", awkward(torch.float32))
def test_values_stay_in_range_and_gradients_finite_for_awkward_finite_images(name, dtype, device):
    noisy, clean = (x.to(device).requires_grad_() for x in awkward(dtype)[name])
    assert noisy.isfinite().all()
    assert clean.isfinite().all()
    scores = torch.stack(list(multi_attacker_scores(noisy, clean, betas=SMALL).values()))
    assert ((scores >= 0) & (scores <= 1)).all()
    slopes = torch.autograd.grad(scores, (noisy, clean), torch.rand_like(scores) - 0.3, retain_graph=True)
    for row in range(len(NAMES)):
        slopes += torch.autograd.grad(scores[row].sum(), (noisy, clean), retain_graph=True)
    assert all(slope.isfinite().all() for slope in slopes)
    sum(multi_attacker_privacy_loss(noisy, clean, betas=SMALL).values()).backward()
    assert noisy.grad.isfinite().all()
    assert clean.grad.isfinite().all()


@pytest.mark.parametrize("name", awkward(torch.float32))
@pytest.mark.parametrize("normalize", ["relu", "simple", "fold"])
def test_safe_ms_ssim_and_pearson_have_finite_gradients_for_awkward_finite_images(name, normalize):
    for function, settings in ((safe_ms_ssim, {"normalize": normalize, "betas": SMALL}), (pearson_sq_mean, {})):
        noisy, clean = (x.requires_grad_() for x in awkward(torch.float32)[name])
        value = function(noisy, clean, **settings)
        assert 0 <= value <= 1
        value.backward()
        assert noisy.grad.isfinite().all()
        assert clean.grad.isfinite().all()


def test_an_outlier_does_not_disturb_its_neighbours_in_the_batch():
    noisy, clean = pictures(2)
    alone = multi_attacker_scores(noisy[:1], clean[:1], betas=SMALL)
    beside = multi_attacker_scores(spoil(noisy, 1, 1e30), clean, betas=SMALL)
    assert all((beside[name][0] - alone[name][0]).abs() <= 1e-6 for name in NAMES)


# --- non-finite pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["noisy", "clean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_loss_is_zero_with_zero_gradients_and_one_warning_if_any_pixel_is_not_finite(value, side, dtype, device):
    noisy, clean = pictures(3, dtype=dtype, device=device)
    noisy, clean = (spoil(noisy, 1, value), clean) if side == "noisy" else (noisy, spoil(clean, 1, value))
    noisy.requires_grad_()
    clean.requires_grad_()
    with warns_once(
        r"1 of 3 pairs .* NaN or infinite pixels: the result is 0 with zero gradients, .* multi_attacker_scores tells"
    ):
        loss = multi_attacker_privacy_loss(noisy, clean, betas=SMALL)
        deliver_warnings(device)
    assert tuple(loss) == NAMES
    assert all(v.item() == 0 and v.dtype == dtype and v.requires_grad for v in loss.values())
    sum(loss.values()).backward()
    assert noisy.grad.abs().max() == clean.grad.abs().max() == 0


def test_a_loss_of_nothing_but_nans_still_has_a_graph_to_any_module_before_it():
    layer = torch.nn.Conv2d(3, 3, 1)
    clean = pictures()[1]
    with warns_once("2 of 2"):
        loss = multi_attacker_privacy_loss(layer(clean * math.nan), clean, betas=SMALL)
    sum(loss.values()).backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["noisy", "clean"])
def test_scores_are_nan_for_the_bad_pair_only_with_zero_gradient_there_and_no_warning(value, side, device):
    noisy, clean = pictures(3, dtype=torch.float64, device=device)
    good = [0, 2]
    expected = multi_attacker_scores(noisy[good], clean[good], betas=SMALL)
    expected_slopes = all_slopes(
        lambda x, y: multi_attacker_scores(x, y, betas=SMALL), noisy[good], clean[good], torch.ones(2)
    )
    noisy, clean = (spoil(noisy, 1, value), clean) if side == "noisy" else (noisy, spoil(clean, 1, value))
    noisy.requires_grad_()
    clean.requires_grad_()
    scores = multi_attacker_scores(noisy, clean, betas=SMALL)
    for name in NAMES:
        assert scores[name].isnan().tolist() == [False, True, False]
        torch.testing.assert_close(scores[name][good], expected[name], rtol=0, atol=1e-12)
        slopes = torch.autograd.grad(scores[name].sum(), (noisy, clean), retain_graph=True)
        for slope, expected_slope in zip(slopes, expected_slopes[name], strict=True):
            assert slope[1].abs().max() == 0
            torch.testing.assert_close(slope[good], expected_slope, rtol=0, atol=1e-12)


# --- autocast and the compiler --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_neither_values_nor_gradients(dtype, device):
    noisy, clean = (torch.tensor(x[:2], dtype=torch.float32, device=device) for x in photo_pair("noise"))
    noisy.requires_grad_()
    expected = multi_attacker_privacy_loss(noisy, clean)
    (expected_slope,) = torch.autograd.grad(sum(expected.values()), noisy)
    with torch.autocast(device.type, dtype=dtype):
        loss = multi_attacker_privacy_loss(noisy, clean)
        scores = multi_attacker_scores(noisy, clean)
        single = safe_ms_ssim(noisy, clean), pearson_sq_mean(noisy, clean)
        (slope,) = torch.autograd.grad(sum(loss.values()), noisy)
    for name in NAMES:
        assert loss[name].dtype == scores[name].dtype == torch.float32
        assert abs(loss[name] - expected[name]) <= 1e-5
        assert abs(scores[name].mean() - expected[name]) <= 1e-5
    assert abs(single[0] - safe_ms_ssim(noisy, clean)) <= 1e-5
    assert abs(single[1] - pearson_sq_mean(noisy, clean)) <= 1e-5
    assert (slope - expected_slope).norm() <= 1e-5 * expected_slope.norm()


@in_one_graph
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")  # of torch's own tracing
@pytest.mark.parametrize(
    ("function", "settings"),
    [(multi_attacker_privacy_loss, {}), (multi_attacker_scores, {"compute_ms_ssim": False})],
    ids=["loss", "scores"],
)
def test_compiled_in_one_graph_for_all_batch_sizes_equals_eager(function, settings, device):
    torch._dynamo.reset()
    settings = {"betas": SMALL, "gamma_values": (0.5,), "blur_sigma": 0.5, **settings}  # fewer operations to compile
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    compilations = []
    for batch in (2, 3, 5):
        noisy, clean = pictures(batch, 22, 26, seed=batch, device=device)
        noisy.requires_grad_()
        expected, got = (f(noisy, clean, **settings) for f in (function, compiled))
        compilations.append(counter.frame_count)
        assert tuple(got) == tuple(expected)
        assert all((got[name] - expected[name]).abs().max() <= 1e-5 for name in got)
        slopes = [torch.autograd.grad(sum(v.sum() for v in out.values()), noisy)[0] for out in (expected, got)]
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-5, atol=1e-5)
    assert compilations[0] > 0
    assert len(set(compilations)) == 1, compilations
    spoiled = spoil(noisy.detach(), 1).requires_grad_()
    bad = compiled(spoiled, clean, **settings)
    if function is multi_attacker_privacy_loss:
        assert all(v == 0 for v in bad.values())
    else:
        assert all(v.isnan().tolist() == [False, True, False, False, False] for v in bad.values())
    sum(v.sum() for v in bad.values()).backward()
    assert spoiled.grad[1].abs().max() == 0


# --- wrong input ----------------------------------------------------------------------------------------------------------

GOOD = torch.rand(2, 3, 22, 24)
WRONG_IMAGES = {
    "rank": (GOOD[0], GOOD[0], ValueError, r"\(B, 3, H, W\), got \(3, 22, 24\); .*unsqueeze\(0\)"),
    "rank 5": (GOOD[None], GOOD[None], ValueError, r"\(B, 3, H, W\), got \(1, 2, 3, 22, 24\)"),
    "channels": (GOOD[:, :1], GOOD[:, :1], ValueError, r"3 channels \(B, 3, H, W\), got \(2, 1, 22, 24\)"),
    "channels last": (GOOD.mT, GOOD, ValueError, r"same shape, got \(2, 3, 24, 22\) and \(2, 3, 22, 24\)"),
    "batch": (GOOD, GOOD[:1], ValueError, r"same shape, got \(2, 3, 22, 24\) and \(1, 3, 22, 24\)"),
    "device": (GOOD, torch.empty_like(GOOD, device="meta"), ValueError, "same device, got cpu and meta"),
    "no pixels": (GOOD[..., :0], GOOD[..., :0], ValueError, r"no pixels: shape \(2, 3, 22, 0\)"),
    "too small": (GOOD[:, :, :21], GOOD[:, :, :21], ValueError, r"21 x 24 pixels .* 2 betas.* at least 22 .*Resize.*pass 1"),
    "uint8": (GOOD.byte(), GOOD, TypeError, r"noisy images .* got torch\.uint8;.* images\.float\(\) / 255"),
    "int64": (GOOD, GOOD.long(), TypeError, r"clean images .* got torch\.int64"),
    "bool": (GOOD > 0.5, GOOD, TypeError, r"noisy images .* got torch\.bool"),
    "complex": (GOOD.cfloat(), GOOD, TypeError, r"noisy images .* got torch\.complex64"),
    "array": (GOOD.numpy(), GOOD, TypeError, r"noisy images must be a torch\.Tensor, got ndarray"),
    "none": (GOOD, None, TypeError, r"clean images must be a torch\.Tensor, got NoneType"),
    "float8": (GOOD.to(torch.float8_e4m3fn), GOOD, TypeError, r"noisy images .* got torch\.float8_e4m3fn"),
}
WRONG_SETTINGS = {
    "no gamma": ({"gamma_values": ()}, r"gamma_values is empty"),
    "gamma 0": ({"gamma_values": (0.5, 0)}, r"gamma_values must be a positive number, got 0"),
    "gamma -1": ({"gamma_values": (-1.0,)}, r"gamma_values must be a positive number, got -1\.0"),
    "gamma nan": ({"gamma_values": (math.nan,)}, r"gamma_values must be a positive number, got nan"),
    "sigma 0": ({"blur_sigma": 0}, r"blur_sigma must be a positive number of pixels, got 0"),
    "sigma -2": ({"blur_sigma": -2.0}, r"blur_sigma must be a positive number of pixels, got -2\.0"),
    "sigma inf": ({"blur_sigma": math.inf}, r"blur_sigma must be a positive number of pixels, got inf"),
    "threshold": ({"wavelet_threshold": -0.1}, r"wavelet_threshold must be at least 0, got -0\.1"),
    "no betas": ({"betas": ()}, r"betas must be one or more positive numbers, one per scale, got \(\)"),
    "beta 0": ({"betas": (0.5, 0.0)}, r"betas must be one or more positive numbers, one per scale, got \(0\.5, 0\.0\)"),
    "beta nan": ({"betas": (math.nan,)}, r"betas must be one or more .* got \(nan,\)"),
    "blur limit": ({"blur_sigma": 7.1}, r"22 x 24 pixels .* blur_sigma=7\.1: .*ceil\(3 \* blur_sigma\) = 22"),
    "nothing": ({"compute_ms_ssim": False, "compute_pearson": False}, "compute_ms_ssim and compute_pearson are both False"),
}


@FUNCTIONS
@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_wrong_images_are_named(function, name):
    noisy, clean, error, message = WRONG_IMAGES[name]
    with pytest.raises(error, match=message):
        function(noisy, clean, betas=SMALL)


@FUNCTIONS
def test_an_empty_batch_is_named(function):
    with pytest.raises(ValueError, match=r"the batch is empty: shape \(0, 3, 22, 24\)"):
        function(GOOD[:0], GOOD[:0], betas=SMALL)


@FUNCTIONS
@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_wrong_settings_are_named(function, name):
    settings, message = WRONG_SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        function(GOOD, GOOD, **{"betas": SMALL, **settings})


@FUNCTIONS
@pytest.mark.parametrize(("scales", "side"), [(1, 11), (2, 22), (3, 44), (4, 88), (5, 176)])
def test_the_smallest_side_of_every_number_of_scales(function, scales, side):
    betas = DEFAULT_BETAS[:scales]
    x = torch.rand(1, 3, side, side)
    assert all(v.isfinite().all() for v in function(x, x, betas=betas).values())
    ways_out = f"Resize the images, or pass {scales - 1} or fewer betas" if scales > 1 else "Resize the images, or"
    for height, width in ((side - 1, side), (side, side - 1)):
        small = torch.rand(1, 3, height, width)
        with pytest.raises(ValueError, match=rf"{height} x {width} .*at least {side} \(11, 22, 44, 88, 176 .*{ways_out}"):
            function(small, small, betas=betas)


@FUNCTIONS
@pytest.mark.parametrize(("sigma", "limit"), [(2.0, 6), (0.5, 2), (3.0, 9)])
def test_without_ms_ssim_only_the_blur_limits_the_size(function, sigma, limit):
    for height, width in ((limit + 1, 40), (40, limit + 1)):
        x = torch.rand(1, 3, height, width)
        assert tuple(function(x, 1 - x, blur_sigma=sigma, compute_ms_ssim=False)) == PEARSON
        x = torch.rand(1, 3, height - (height < 40), width - (width < 40))
        with pytest.raises(ValueError, match=rf"blur_sigma={sigma}: both sides must exceed .* = {limit}\. Resize"):
            function(x, x, blur_sigma=sigma, compute_ms_ssim=False)


@FUNCTIONS
def test_the_functions_do_not_look_at_the_range_of_clean(function):
    noisy, clean = pictures()
    assert all(v.isfinite().all() for v in function(noisy, clean + 5, betas=SMALL).values())


# --- properties -----------------------------------------------------------------------------------------------------------

seeds = st.integers(0, 10_000)


@given(seed=seeds, low=st.floats(-3, 1), span=st.floats(0, 6), side=st.integers(22, 30))
def test_scores_lie_between_zero_and_one(seed, low, span, side):
    generator = torch.Generator().manual_seed(seed)
    noisy, clean = torch.rand(2, 2, 3, side, 22, generator=generator)
    for name, score in multi_attacker_scores(low + span * noisy, clean, betas=SMALL).items():
        assert ((score >= 0) & (score <= 1)).all(), name


@given(seed=seeds, order=st.permutations(range(4)))
def test_scores_follow_a_permutation_of_the_batch(seed, order):
    noisy, clean = pictures(4, 22, 24, seed=seed)
    scores, permuted = (
        multi_attacker_scores(x, y, betas=SMALL) for x, y in ((noisy, clean), (noisy[list(order)], clean[list(order)]))
    )
    assert all((permuted[name] - scores[name][list(order)]).abs().max() <= 1e-6 for name in NAMES)


@given(seed=seeds, scale=st.floats(0.05, 20), sign=st.sampled_from([-1, 1]), shift=st.floats(-50, 50))
def test_squared_pearson_ignores_any_affine_change(seed, scale, sign, shift):
    noisy, clean = pictures(2, seed=seed, dtype=torch.float64)
    assert abs(pearson_sq_mean(sign * scale * noisy + shift, clean) - pearson_sq_mean(noisy, clean)) <= 1e-10


@given(seed=seeds, scale=st.floats(0.1, 1), inverted=st.booleans())
def test_affine_changes_within_the_range_leave_the_linear_pearson_components_at_one(seed, scale, inverted):
    _, clean = pictures(2, seed=seed)
    noisy = scale * (1 - clean if inverted else clean) + (1 - scale) / 2
    scores = multi_attacker_scores(noisy, clean, compute_ms_ssim=False)
    for name in ("pearson_rgb", "pearson_gray", "pearson_blur"):
        assert (scores[name] - 1).abs().max() <= 1e-5, name


@given(seed=seeds, height=st.integers(22, 30), width=st.integers(22, 30))
def test_identical_pictures_that_span_the_range_score_one(seed, height, width):
    _, clean = pictures(2, height, width, seed=seed)
    clean[:, :, 0, 0], clean[:, :, 1, 1] = 0, 1
    for name, score in multi_attacker_scores(clean, clean, betas=SMALL).items():
        assert (score - 1).abs().max() <= 2e-5, name
