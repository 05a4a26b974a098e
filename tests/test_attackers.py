"""Image -> view: every attacker against another implementation, at its kinks, at its limits."""

import math

import kornia
import numpy as np
import pytest
import reference
import torch
from conftest import photo_pair
from torch.autograd import gradcheck

from attacker_metrics.attackers.filters import JPEG, Unsharp
from attacker_metrics.attackers.standard import Blur, Gamma, Wavelet, clamp, luma, minmax, pull_back, sobel, standardize

ATTACKERS = {
    "clamp": (clamp, reference.clamp),
    "minmax": (minmax, reference.minmax),
    "sobel": (sobel, reference.sobel),
    "standardize": (standardize, reference.standardize),
    "blur": (Blur(), reference.blur),
    "blur 0.8": (Blur(0.8), lambda x: reference.blur(x, 0.8)),
    "gamma 0.5": (Gamma(0.5), lambda x: reference.gamma(x, 0.5)),
    "gamma 2": (Gamma(2.0), lambda x: reference.gamma(x, 2.0)),
    "wavelet": (Wavelet(), reference.wavelet),
    "wavelet 0.02": (Wavelet(0.02), lambda x: reference.wavelet(x, 0.02)),
}
every_attacker = pytest.mark.parametrize("name", ATTACKERS)


def grad(attacker, x, weights=None):
    x = x.clone().requires_grad_()
    view = attacker(x)
    return torch.autograd.grad(view, x, torch.ones_like(view) if weights is None else weights)[0]


@every_attacker
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (37, 50), (36, 51), (7, 9)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_views_equal_the_reference(name, channels, size, dtype, tolerance, device):
    attacker, expected = ATTACKERS[name]
    noisy = photo_pair("noise")[0][:, :channels, 60 : 60 + size[0], 40 : 40 + size[1]]
    view = attacker(torch.tensor(noisy, dtype=dtype, device=device))
    assert view.dtype == dtype
    assert view.shape == noisy.shape
    np.testing.assert_allclose(view.cpu().numpy(), np.stack([expected(x) for x in noisy]), rtol=0, atol=tolerance)


def test_luma_equals_kornia_and_the_reference(device):
    noisy, _ = photo_pair("noise")
    view = luma(torch.tensor(noisy, device=device)).cpu()
    torch.testing.assert_close(view, kornia.color.rgb_to_grayscale(torch.tensor(noisy)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(view, np.stack([reference.luma(x) for x in noisy]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(8, 8), (33, 20)])
def test_sobel_equals_kornia(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(sobel(x), kornia.filters.sobel(x, normalized=True, eps=1e-6), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("sigma", "taps"), [(2.0, 13), (1.0, 7), (0.4, 5)])
def test_blur_equals_kornia_with_two_ceil_three_sigma_plus_one_taps(sigma, taps):
    x = torch.randn(2, 1, 21, 17, dtype=torch.float64)
    expected = kornia.filters.gaussian_blur2d(x, (taps, taps), (sigma, sigma), border_type="reflect")
    torch.testing.assert_close(Blur(sigma)(x), expected, rtol=0, atol=1e-14)


@every_attacker
def test_one_image_does_not_influence_another(name):
    attacker, _ = ATTACKERS[name]
    x = torch.randn(3, 1, 9, 12)
    changed = x.clone()
    changed[1] *= 100
    view, other = attacker(x), attacker(changed)
    assert torch.equal(view[[0, 2]], other[[0, 2]])
    assert torch.equal(view[:1], attacker(x[:1]))


@every_attacker
def test_slopes_pass_gradcheck(name):
    attacker, _ = ATTACKERS[name]
    x = (0.1 + 0.8 * torch.rand(2, 1, 8, 9, dtype=torch.float64)).requires_grad_()
    assert gradcheck(attacker, x, fast_mode=True)


@pytest.mark.parametrize("name", ["luma", *ATTACKERS])
@pytest.mark.parametrize("kind", ["wide", "inside", "ties", "flat", "nearly flat"])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (24, 31)])
def test_pull_backs_are_what_autograd_finds(name, kind, size, device):
    attacker = luma if name == "luma" else ATTACKERS[name][0]
    generator = torch.Generator().manual_seed(size[0])
    x = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    x = {
        "wide": 3 * x - 1,
        "inside": x,
        "ties": (4 * x).round() / 2 - 0.5,
        "flat": torch.full_like(x, 0.25),
        "nearly flat": 1e-9 * x,
    }[kind]
    x = x.to(device).requires_grad_()
    view = attacker(x)
    gradient = torch.randn(view.shape, generator=generator, dtype=torch.float64).to(device)
    (expected,) = torch.autograd.grad(view, x, gradient)
    before = gradient.clone()
    reached = pull_back(attacker, x.detach(), view.detach(), gradient)
    torch.testing.assert_close(reached, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))
    assert torch.equal(gradient, before)


def slopes(attacker, x, gradient, atol=1e-12):
    """The gradient in ``x`` by autograd, by ``torch.func`` and by the written-out pull-back, which must agree."""
    found = [
        grad(attacker, x, gradient),
        torch.func.vjp(attacker, x)[1](gradient)[0],
        pull_back(attacker, x, attacker(x), gradient),
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=atol)
    return found[0].flatten().tolist()


def test_clamp_passes_the_gradient_at_its_bounds_only():
    x = torch.tensor([[[[-0.1, 0.0, 0.5, 1.0, 1.1]]]])
    assert slopes(clamp, x, torch.ones_like(x)) == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gamma_passes_the_gradient_at_its_bounds_only(gamma):
    x = torch.tensor([[[[0.0, 1e-6, 0.25, 1.0, 1.1]]]], dtype=torch.float64)
    expected = [0, gamma * 1e-6 ** (gamma - 1), gamma * 0.25 ** (gamma - 1), gamma, 0]
    assert slopes(Gamma(gamma), x, torch.ones_like(x)) == pytest.approx(expected, rel=1e-12)


def test_minmax_passes_the_gradient_where_the_span_is_exactly_its_floor():
    x = torch.tensor([[[[0.0, 0.25e-8, 1e-8]]]], dtype=torch.float64)
    weights = torch.tensor([[[[0.0, 1.0, 0.0]]]], dtype=torch.float64)
    assert slopes(minmax, x, weights) == pytest.approx([-0.75e8, 1e8, -0.25e8], rel=1e-12)
    below = x / 2  # the span is a constant there
    assert slopes(minmax, below, weights) == pytest.approx([-1e8, 1e8, 0], rel=1e-12)


def test_standardize_takes_the_deviation_below_its_floor_as_a_constant():
    x = torch.tensor([[[[-1.0, 1.0]]]], dtype=torch.float64)
    weights = torch.tensor([[[[0.0, 1.0]]]], dtype=torch.float64)
    assert slopes(standardize, x, weights) == pytest.approx([0, 0], abs=1e-15)  # of two values only the sign is left
    # At the floor it still moves: slopes of 1e5 cancel.
    assert slopes(standardize, 1e-6 * x, weights, atol=1e-9) == pytest.approx([0, 0], abs=1e-9)
    tiny = 1e-7 * x
    slope = 1e6 / 2 * (1 / (1 + math.exp(-0.1)) * (1 - 1 / (1 + math.exp(-0.1))))
    assert slopes(standardize, tiny, weights) == pytest.approx([-slope, slope], rel=1e-12)


def test_slopes_at_kinks_do_not_need_a_gradient_mode_of_the_caller():
    x = torch.tensor([[[[0.0, 1.0]]]])
    with torch.no_grad():
        assert torch.equal(clamp(x), x)
        assert not clamp(x.clone().requires_grad_()).requires_grad
    assert clamp(torch.tensor([[[[math.nan]]]])).isnan().all()


@pytest.mark.parametrize("filtered", [Unsharp(), JPEG(100)], ids=repr)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_filters_pass_the_gradient_at_the_bounds_of_their_clamps(filtered, value):
    x = torch.full((1, 1, 16, 16), value, dtype=torch.float64)
    assert torch.equal(filtered(x), x)  # a flat picture stays what it is, at the bound
    assert grad(filtered, x).sum().item() == pytest.approx(x.numel(), rel=1e-9)


def test_minmax_shares_the_gradient_equally_between_ties():
    x = torch.tensor([[[[0.0, 0.0, 0.5, 2.0, 2.0]]]], dtype=torch.float64)
    weights = torch.zeros_like(x)
    weights[..., 2] = 1  # d view[2] / dx with view[2] = (x - low) / (high - low)
    expected = [-0.375 / 2, -0.375 / 2, 0.5, -0.125 / 2, -0.125 / 2]
    np.testing.assert_allclose(grad(minmax, x, weights).flatten(), expected, rtol=0, atol=1e-15)


def test_wavelet_has_slope_zero_at_and_below_the_threshold():
    # One 2 x 2 block whose only detail coefficient is exactly 0.25.
    x = torch.tensor([[[[0.5, 0.25], [0.5, 0.25]]]], dtype=torch.float64)
    detail = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]], dtype=torch.float64)
    assert slopes(Wavelet(0.25), x, detail) == [0] * 4
    assert slopes(Wavelet(0.2), x, detail) == pytest.approx([1, -1, 1, -1])
    assert slopes(Wavelet(0.25), 1 - x, detail) == [0] * 4  # the coefficient is -0.25
    assert slopes(Wavelet(0.0), torch.zeros_like(x), detail) == [0] * 4  # no threshold, and a coefficient at it


def test_wavelet_without_threshold_is_the_identity(device):
    x = torch.rand(2, 3, 9, 7, dtype=torch.float64, device=device)
    torch.testing.assert_close(Wavelet(0)(x), x, rtol=0, atol=1e-15)


@every_attacker
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -7.0, 1e9, 1e15])
def test_views_and_slopes_of_constant_images_are_finite(name, value, device):
    attacker, _ = ATTACKERS[name]
    x = torch.full((1, 1, 8, 8), value, device=device)
    assert attacker(x).isfinite().all()
    assert grad(attacker, x).isfinite().all()


def test_flat_images_keep_the_floors_of_the_denominators():
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    x[..., 0, 0] = 1e-10
    assert minmax(x).amax() == pytest.approx(1e-2)
    assert standardize(torch.full((1, 1, 4, 4), 0.25)).unique().tolist() == [0.5]
    z = 1e-10 * 0.75 / 1e-6
    assert standardize(x).amax().item() == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-12)
    assert sobel(torch.full((1, 1, 4, 4), 0.3)).amax().item() == pytest.approx(1e-3)


def test_a_huge_outlier_is_scored_alone_and_leaves_finite_slopes(device):
    x = torch.rand(2, 1, 8, 8, device=device)
    x[1, 0, 4, 4] = 1e15
    for name, (attacker, _) in ATTACKERS.items():
        view = attacker(x)
        assert view.isfinite().all(), name
        assert torch.equal(view[:1], attacker(x[:1])), name
        assert grad(attacker, x).isfinite().all(), name
    assert minmax(x)[1].flatten().topk(2).values.tolist() == [1, pytest.approx(0, abs=1e-14)]


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf])
def test_blur_refuses_a_sigma_that_is_not_positive(sigma):
    with pytest.raises(ValueError, match=rf"blur_sigma must be a positive number of pixels, got {sigma}"):
        Blur(sigma)


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf])
def test_gamma_refuses_an_exponent_that_is_not_positive(value):
    with pytest.raises(ValueError, match=rf"gamma_values must be a positive number, got {value}"):
        Gamma(value)


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf])
def test_wavelet_refuses_a_negative_threshold(threshold):
    with pytest.raises(ValueError, match=rf"wavelet_threshold must be at least 0, got {threshold}"):
        Wavelet(threshold)


@pytest.mark.parametrize(("sigma", "radius"), [(2.0, 6), (1.0, 3), (0.3, 1), (2.01, 7)])
def test_blur_needs_sides_above_ceil_three_sigma(sigma, radius):
    assert Blur(sigma)(torch.rand(1, 1, radius + 1, radius + 1)).isfinite().all()
    for size in ((radius, 50), (50, radius)):
        with pytest.raises(
            ValueError, match=rf"{size[0]} x {size[1]} pixels .* ceil\(3 \* blur_sigma\) = {radius}\. Resize"
        ):
            Blur(sigma)(torch.rand(1, 1, *size))


def test_attackers_with_equal_settings_are_equal_so_that_views_are_shared():
    assert Blur(1.0) == Blur(1.0) != Blur(2.0)
    assert len({Gamma(2.0), Gamma(2.0), Gamma(0.5), Wavelet(), Wavelet(0.1), Blur(), Blur(2.0)}) == 4
