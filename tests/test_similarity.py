"""Two views -> one number per image: against torchmetrics, SciPy and the reference, at kinks and at limits."""

import math

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from conftest import deliver_warnings, photo_pair, warns_once
from scipy import stats
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from attacker_metrics import DEFAULT_BETAS, MSSSIM, SquaredPearson, pearson_sq_mean, safe_ms_ssim
from attacker_metrics.attackers.standard import minmax
from attacker_metrics.engine.eager.ms_ssim import _product_of_powers
from attacker_metrics.scoring.similarity import betas_for

SMALLEST = {1: 11, 2: 22, 3: 44, 4: 88, 5: 176}
BETAS = {
    1: (1.0,),
    2: (0.5, 0.5),
    3: (0.2, 0.3, 0.5),
    4: (0.1, 0.3, 0.3, 0.3),
    5: DEFAULT_BETAS,
}


def torchmetrics_ms_ssim(noisy, clean, betas=DEFAULT_BETAS, data_range=1.0, normalize="relu"):
    return multiscale_structural_similarity_index_measure(
        noisy, clean, data_range=data_range, betas=betas, normalize=normalize, reduction="none"
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalize", ["relu", "simple", None])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("scales", [1, 2, 3, 4, 5])
def test_ms_ssim_equals_torchmetrics(channels, normalize, data_range, scales, device):
    betas = tuple(torch.tensor(BETAS[scales]).tolist())  # torchmetrics rounds them to float32
    side = SMALLEST[scales] + 15
    noisy, clean = (data_range * torch.tensor(x[:2, :channels, :side, : side + 4]) for x in photo_pair("noise", 191, 195))
    expected = torchmetrics_ms_ssim(noisy, clean, betas, data_range, normalize)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        views = noisy.to(device, dtype), clean.to(device, dtype)
        got = MSSSIM(betas, data_range, normalize)(*views)
        assert got.dtype == dtype
        assert (got.cpu().double() - expected).abs().max() <= tolerance
        mean = safe_ms_ssim(*views, data_range=data_range, normalize=normalize, betas=betas)
        assert abs(mean.item() - expected.mean().item()) <= tolerance


@pytest.mark.parametrize("obfuscation", reference.OBFUSCATIONS)
@pytest.mark.parametrize("normalize", ["relu", "simple", "fold"])
def test_ms_ssim_equals_the_reference_also_where_torchmetrics_differs_or_contrast_is_negative(obfuscation, normalize):
    noisy, clean = photo_pair(obfuscation, 181, 203)
    got = MSSSIM(normalize=normalize)(torch.tensor(noisy), torch.tensor(clean))
    expected = [reference.ms_ssim(x, y, normalize=normalize) for x, y in zip(noisy, clean, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_ms_ssim_without_normalization_is_nan_where_a_term_is_negative_as_in_torchmetrics():
    clean = torch.tensor(photo_pair()[1][:1, :, :50, :50])
    noisy, clean = torch.cat((1 - clean, clean)), torch.cat((clean, clean))
    got = MSSSIM(BETAS[3], normalize=None)(noisy, clean)
    expected = torchmetrics_ms_ssim(noisy, clean, BETAS[3], normalize=None)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9, equal_nan=True)
    assert got.isnan().tolist() == [True, False]


def test_ms_ssim_survives_a_bright_plane_on_which_moments_cancel():
    clean = 0.01 * torch.rand(2, 1, 44, 44, dtype=torch.float64) + 0.98
    noisy = clean + 0.003 * torch.rand_like(clean)
    exact = MSSSIM(BETAS[3])(noisy, clean)
    rounded = noisy.float(), clean.float()
    exact_of_rounded = MSSSIM(BETAS[3])(*(x.double() for x in rounded))
    assert (exact - exact_of_rounded).abs().max() < 1e-4
    assert (MSSSIM(BETAS[3])(*rounded) - exact_of_rounded).abs().max() <= 2e-6


@pytest.mark.parametrize("scales", SMALLEST)
def test_ms_ssim_accepts_the_smallest_side_and_names_both_ways_out_below_it(scales):
    side, betas = SMALLEST[scales], BETAS[scales]
    similarity = MSSSIM(betas)
    assert similarity.smallest_side == side
    x = torch.rand(1, 1, side, side)
    assert similarity(x, x).item() == pytest.approx(1, abs=1e-6)
    for height, width in ((side - 1, 200), (200, side - 1)):
        advice = rf"pass {scales - 1} or fewer betas" if scales > 1 else "pass fewer betas"
        with pytest.raises(ValueError, match=rf"{height} x {width} .* {scales} betas.* at least {side} .*Resize.*{advice}"):
            similarity(torch.rand(1, 1, height, width), torch.rand(1, 1, height, width))


@pytest.mark.parametrize("betas", [(), (0,), (0.5, -0.5), (math.nan,), (math.inf,)])
def test_ms_ssim_refuses_betas_that_are_not_positive(betas):
    with pytest.raises(ValueError, match=r"betas must be one or more positive numbers, one per scale, got \("):
        MSSSIM(betas)


@pytest.mark.parametrize("data_range", [0, -1.0, math.nan, math.inf])
def test_ms_ssim_refuses_a_data_range_that_is_not_positive(data_range):
    with pytest.raises(ValueError, match=rf"data_range must be a positive number, got {data_range}"):
        MSSSIM(data_range=data_range)


@pytest.mark.parametrize("normalize", ["softmax", "", False, 1])
def test_ms_ssim_refuses_an_unknown_normalize(normalize):
    with pytest.raises(ValueError, match=f"normalize must be 'relu', 'simple', 'fold' or None, got {normalize!r}"):
        MSSSIM(normalize=normalize)
    with pytest.raises(ValueError, match=f"got {normalize!r}"):
        safe_ms_ssim(torch.rand(1, 1, 22, 22), torch.rand(1, 1, 22, 22), normalize=normalize)


@pytest.mark.parametrize("similarity", [MSSSIM((1.0,)), SquaredPearson()], ids=["MSSSIM", "SquaredPearson"])
def test_similarities_refuse_views_of_different_shapes(similarity):
    with pytest.raises(ValueError, match=r"same shape, got \(2, 1, 11, 12\) and \(2, 1, 12, 11\)"):
        similarity(torch.rand(2, 1, 11, 12), torch.rand(2, 1, 12, 11))


def test_settings_given_as_a_list_still_hash_and_compare():
    assert MSSSIM([0.5, 0.5]) == MSSSIM((0.5, 0.5))
    assert hash(MSSSIM([0.5, 0.5])) == hash(MSSSIM((0.5, 0.5)))


def blend_at_zero_contrast():
    """Mixtures ``a clean + (1 - a)(1 - clean)`` whose only MS-SSIM term is just below, at most 1e-6 above, and above 0."""
    clean = torch.rand(1, 1, 11, 11, dtype=torch.float64)

    def term(a):
        mixture = a * clean + (1 - a) * (1 - clean)
        return mixture, clean, reference.ms_ssim_terms(mixture[0].numpy(), clean[0].numpy(), (1.0,))[0]

    low, high = 0.0, 0.6
    assert term(low)[2] < 0 < term(high)[2]
    while term(high)[2] > 3e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if term(middle)[2] <= 0 else (low, middle)
    return {"negative": term(low - 1e-3), "just above": term(high), "well above": term(high + 0.1)}


@pytest.mark.parametrize("where", ["negative", "just above", "well above"])
@pytest.mark.parametrize("beta", [0.1333, 0.5, 0.9])
def test_powers_are_exact_with_the_slope_at_one_millionth_or_above_and_none_below_zero(where, beta):
    noisy, clean, term = blend_at_zero_contrast()[where]
    noisy.requires_grad_()
    value = MSSSIM((beta,))(noisy, clean)
    assert value.item() == pytest.approx(max(term, 0) ** beta, rel=1e-6)
    (slope,) = torch.autograd.grad(value, noisy)
    (slope_of_term,) = torch.autograd.grad(MSSSIM((1.0,))(noisy, clean), noisy)
    expected = beta * max(term, 1e-6) ** (beta - 1) * slope_of_term if term > 0 else torch.zeros_like(slope)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=0)
    assert (slope.abs().max() > 0) == (term > 0)


@pytest.mark.parametrize("shape", [(3, 50), (3, 1, 8, 9), (2, 3, 4, 5, 6)])
def test_squared_pearson_equals_scipy_for_any_shape(shape, device):
    x, y = torch.randn(2, *shape, dtype=torch.float64)
    y = 0.5 * x + y
    expected = [stats.pearsonr(a.flatten(), b.flatten()).statistic ** 2 for a, b in zip(x, y, strict=True)]
    got = SquaredPearson()(x.to(device), y.to(device)).cpu()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)
    assert pearson_sq_mean(x.to(device), y.to(device)).item() == pytest.approx(np.mean(expected), abs=1e-13)
    single = SquaredPearson()(x.float().to(device), y.float().to(device)).cpu()
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-6)


def test_squared_pearson_attaches_means_and_variances_to_the_graph():
    x, y = torch.randn(2, 2, 1, 5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(SquaredPearson(), (x.requires_grad_(), y.requires_grad_()))
    (slope,) = torch.autograd.grad(SquaredPearson()(x, y).sum(), x)
    assert slope.sum(dim=(1, 2, 3)).abs().max() < 1e-14  # a shift changes nothing
    assert (slope * x).sum(dim=(1, 2, 3)).abs().max() < 1e-14  # nor does a scale


def test_squared_pearson_is_deflated_below_its_floor_where_minmax_is_not():
    clean = torch.tensor(photo_pair()[1])[1:2]
    clean = (0.5 + 0.1 * (clean - clean.mean()) / clean.std()).clamp(0, 1)  # a standard deviation of .1
    clean[..., 0, 0], clean[..., 0, 1] = 0, 1
    faint = (0.5 + 1e-5 * (clean - 0.5)).float()
    clean = clean.float()
    assert SquaredPearson()(faint, clean).item() == pytest.approx(0.01, abs=0.002)
    assert MSSSIM()(minmax(faint), clean).item() == pytest.approx(0.999, abs=0.001)
    assert SquaredPearson(eps=1e-20)(faint, clean).item() > 0.99


@pytest.mark.parametrize("eps", [0, -1e-12, math.nan, math.inf])
def test_squared_pearson_refuses_an_eps_that_is_not_positive(eps):
    for call in (lambda: SquaredPearson(eps), lambda: pearson_sq_mean(torch.rand(1, 2), torch.rand(1, 2), eps=eps)):
        with pytest.raises(ValueError, match=f"eps must be a positive number, got {eps}"):
            call()


@pytest.mark.parametrize(
    ("pred", "target", "error", "message"),
    [
        (torch.rand(2, 3), torch.rand(2, 4), ValueError, r"same shape, got \(2, 3\) and \(2, 4\)"),
        (torch.rand(3), torch.rand(3), ValueError, r"\(B, \.\.\.\) with B >= 1 .* got \(3,\)"),
        (torch.rand(0, 3), torch.rand(0, 3), ValueError, r"got \(0, 3\)"),
        (torch.rand(2, 0), torch.rand(2, 0), ValueError, r"got \(2, 0\)"),
        (torch.zeros(2, 3, dtype=torch.uint8), torch.rand(2, 3), TypeError, r"got torch\.uint8.*images\.float\(\) / 255"),
        (torch.rand(2, 3), torch.rand(2, 3).cfloat(), TypeError, r"got torch\.complex64"),
        (torch.rand(2, 3), [[0.0]], TypeError, r"torch\.Tensor, got list"),
        (torch.rand(2, 3), torch.empty(2, 3, device="meta"), ValueError, r"same device, got cpu and meta"),
    ],
)
def test_pearson_sq_mean_names_wrong_input(pred, target, error, message):
    with pytest.raises(error, match=message):
        pearson_sq_mean(pred, target)


@pytest.mark.parametrize(
    ("pred", "target", "error", "message"),
    [
        (torch.rand(1, 1, 22, 22), torch.rand(1, 1, 22, 23), ValueError, r"got \(1, 1, 22, 22\) and \(1, 1, 22, 23\)"),
        (torch.rand(1, 22, 22), torch.rand(1, 22, 22), ValueError, r"shape \(B, C, H, W\), got \(1, 22, 22\)"),
        (torch.rand(0, 1, 22, 22), torch.rand(0, 1, 22, 22), ValueError, r"empty: shape \(0, 1, 22, 22\)"),
        (torch.rand(1, 0, 22, 22), torch.rand(1, 0, 22, 22), ValueError, r"no pixels: shape \(1, 0, 22, 22\)"),
        (torch.rand(1, 1, 22, 21), torch.rand(1, 1, 22, 21), ValueError, r"22 x 21 pixels .* at least 22"),
        (torch.ones(1, 1, 22, 22, dtype=torch.int64), torch.rand(1, 1, 22, 22), TypeError, r"got torch\.int64"),
        (torch.rand(1, 1, 22, 22), torch.rand(1, 1, 22, 22, dtype=torch.cdouble), TypeError, r"got torch\.complex128"),
    ],
)
def test_safe_ms_ssim_names_wrong_input(pred, target, error, message):
    with pytest.raises(error, match=message):
        safe_ms_ssim(pred, target, betas=(0.5, 0.5))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_safe_ms_ssim_takes_any_number_of_channels_and_answers_in_the_dtype_of_pred(channels, device):
    clean = torch.rand(2, channels, 22, 22, device=device)
    noisy = (clean + 0.1 * torch.rand_like(clean)).bfloat16()
    value = safe_ms_ssim(noisy, clean, betas=(0.5, 0.5))
    assert (value.dtype, value.shape) == (torch.bfloat16, ())
    exact = safe_ms_ssim(noisy.double(), clean.double(), betas=(0.5, 0.5))
    assert exact.dtype == torch.float64
    assert abs(value.item() - exact.item()) <= 5e-3
    assert safe_ms_ssim(clean, noisy, betas=(0.5, 0.5)).dtype == torch.float32


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_safe_ms_ssim_is_zero_with_zero_gradients_and_one_warning_for_non_finite_pixels(value, side, device):
    images = [torch.rand(2, 1, 22, 22, device=device) for _ in range(2)]
    images[side][1, 0, 3, 4] = value
    noisy, clean = (x.requires_grad_() for x in images)
    with warns_once("1 of 2 pairs .* NaN or infinite"):
        result = safe_ms_ssim(noisy, clean, betas=(0.5, 0.5))
        deliver_warnings(device)
    assert result.item() == 0
    result.backward()
    assert noisy.grad.abs().max() == clean.grad.abs().max() == 0


# (MS-SSIM, squared Pearson) of the pixelated colour photographs of 176 pixels, by reference.py.
GOLDEN = {
    "astronaut": (0.776164095475, 0.818840807417),
    "chelsea": (0.804844383463, 0.874831315677),
    "coffee": (0.801833672659, 0.881470944519),
    "rocket": (0.907772364365, 0.833186311548),
}


def test_pinned_golden_values_of_photographs():
    noisy, clean = photo_pair("pixelation")
    for i, (ms_ssim, pearson) in enumerate(GOLDEN.values()):
        views = torch.tensor(noisy[i : i + 1]), torch.tensor(clean[i : i + 1])
        assert reference.ms_ssim(noisy[i], clean[i]) == pytest.approx(ms_ssim, abs=1e-9)
        assert reference.pearson_sq(noisy[i], clean[i]) == pytest.approx(pearson, abs=1e-9)
        assert MSSSIM()(*views).item() == pytest.approx(ms_ssim, abs=1e-9)
        assert SquaredPearson()(*views).item() == pytest.approx(pearson, abs=1e-9)
        assert MSSSIM()(*(x.float() for x in views)).item() == pytest.approx(ms_ssim, abs=2e-5)


def test_the_slope_of_squared_pearson_counts_the_variances_down_to_the_floor():
    x = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).requires_grad_()
    y = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    for eps, slope in ((1.0, 0.0), (1.0 + 1e-9, 1.0)):  # the variances' product is 1; below the floor it is a constant
        (reached,) = torch.autograd.grad(SquaredPearson(eps)(x, y).sum(), x)
        assert reached.flatten().tolist() == pytest.approx([-slope, slope], abs=1e-6)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (32, 2), (64, 3), (100, 4), (176, 5), (1000, 5)])
def test_suggested_betas_sum_to_one_and_keep_their_proportions(side, scales):
    betas = betas_for(side)
    assert sum(betas) == pytest.approx(1.0, abs=1.1e-4)  # the five themselves sum to 1.0001
    first = DEFAULT_BETAS[:scales]
    assert betas == pytest.approx([beta * sum(betas) / sum(first) for beta in first], abs=2e-4)
    MSSSIM(betas).check_size(side, side)


def test_an_image_that_is_too_small_is_answered_with_betas_that_do_not_inflate():
    with pytest.raises(ValueError, match=r"pass 2 or fewer betas, e\.g\. betas=\(0\.1356, 0\.8644\)"):
        MSSSIM()(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    with pytest.raises(ValueError, match="10 pixels are too small"):
        betas_for(10)
    unrelated = [torch.tensor(reference.photographs()[k][None], dtype=torch.float32) for k in (0, 1)]
    first, second = (F.interpolate(picture, (32, 32), mode="area") for picture in unrelated)
    assert MSSSIM(betas_for(32))(first, second) < MSSSIM(DEFAULT_BETAS[:2])(first, second) / 2


@pytest.mark.parametrize("normalize", [None, "relu", "simple", "fold"])
def test_no_normalisation_of_an_inverted_picture_leaves_a_value_or_a_gradient_that_is_not_finite(normalize):
    clean = torch.tensor(reference.photographs(64, 64), dtype=torch.float32)
    inverted = (1 - clean).requires_grad_()
    betas = betas_for(64)
    if normalize is None:
        with warns_once("4 of 4 pairs of images have a negative MS-SSIM term.*Pass normalize='relu'"):
            value = safe_ms_ssim(inverted, clean, normalize=None, betas=betas)
        assert value == 0
    else:
        value = safe_ms_ssim(inverted, clean, normalize=normalize, betas=betas)
    value.backward()
    assert 0 <= value.item() <= 1
    assert inverted.grad.isfinite().all()
    assert (inverted.grad.abs().max() > 0) == (normalize in ("simple", "fold"))


def test_images_without_a_real_value_and_images_that_are_not_finite_are_told_in_one_warning():
    clean = torch.tensor(reference.photographs(64, 64)[:3], dtype=torch.float32)
    noisy = clean.clone()
    noisy[0] = 1 - noisy[0]
    noisy[1, 0, 0, 0] = math.nan
    with warns_once("1 of 3 pairs of images hold NaN.* 1 of 3 pairs of images have a negative"):
        assert safe_ms_ssim(noisy, clean, normalize=None, betas=betas_for(64)) == 0
    scores = MSSSIM(betas_for(64), normalize=None)(noisy, clean)  # per image the others keep theirs
    assert scores.isnan().tolist() == [True, True, False]
    assert scores[2].item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("normalize", "term"), [("relu", 0.0), (None, 0.0), ("simple", -1.0)])
def test_a_term_of_exactly_zero_has_slope_zero(normalize, term):
    terms = torch.tensor([term, 0.5], dtype=torch.float64).view(2, 1, 1)
    score, slopes = _product_of_powers(terms, (0.5, 0.5), normalize)
    assert score.item() == 0
    assert slopes.flatten().tolist() == [0, 0]
