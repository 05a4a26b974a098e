"""The engine against the plain composition: autograd through the written-out formulas, block by block or in one go."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import in_one_graph
from torch.autograd import forward_ad

import attacker_metrics.attackers.moments as moments
import attacker_metrics.engine.eager.ms_ssim as ms_ssim
import attacker_metrics.engine.operators as engine
from attacker_metrics import MSSSIM, Component, Pair, multi_attacker_privacy_loss, multi_attacker_scores, standard_components
from attacker_metrics.attackers.standard import Blur, Gamma, Wavelet, clamp, luma, minmax, sobel, standardize
from attacker_metrics.engine.eager import scores as eager
from attacker_metrics.engine.program import from_numbers
from attacker_metrics.scoring.components import program_of
from attacker_metrics.scoring.similarity import SquaredPearson

SMALL = ((5, 2, 50, 47, (0.3, 0.3, 0.4)), (1, 3, 23, 31, (0.5, 0.5)), (1, 1, 11, 12, (1.0,)), (2, 1, 12, 11, (0.7,)))
FIVE = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def plain_ms_ssim(x, y, betas, normalize):
    """MS-SSIM (B,) as one writes it down, left to autograd."""
    weights = torch.tensor([math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)], dtype=x.dtype)
    window = torch.outer(weights, weights) / weights.sum() ** 2
    window = window.expand(x.shape[1], 1, 11, 11)
    value = 1.0
    for scale, beta in enumerate(betas):
        last = scale == len(betas) - 1
        a, b = (F.pad(v, (5, 5, 5, 5), mode="reflect") if last else v for v in (x, y))
        mean_a, mean_b, aa, bb, ab = (F.conv2d(v, window, groups=x.shape[1]) for v in (a, b, a * a, b * b, a * b))
        term = (2 * (ab - mean_a * mean_b) + 9e-4) / (aa - mean_a**2 + bb - mean_b**2 + 9e-4)
        if last:
            term = term * (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        term = term.mean(dim=(1, 2, 3))
        value = value * {"relu": term.relu(), "simple": (term + 1) / 2, "fold": folded(term), None: term}[normalize] ** beta
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return value


def folded(term):
    """The term's magnitude; below 0.01 a parabola."""
    return torch.where(term.abs() < 0.01, 50 * term * term + 0.005, term.abs())


def plain_scores(noisy, clean, betas, gammas, sigma, threshold):
    """The fifteen components (B, 15) as SPEC writes them down, left to autograd."""
    raw, clean_gray = luma(noisy), luma(clean)
    gray = clamp(raw)
    edges = sobel(raw), sobel(clean_gray)
    blurred, denoised = ([attacker(gray), attacker(clean_gray)] for attacker in (Blur(sigma), Wavelet(threshold)))
    bent = [(Gamma(gamma)(gray), Gamma(gamma)(clean_gray)) for gamma in gammas]
    pairs = [
        (clamp(noisy), clean),
        (minmax(noisy), clean),
        (gray, clean_gray),
        (minmax(raw), clean_gray),
        (minmax(edges[0]), minmax(edges[1])),
        blurred,
        (standardize(raw), standardize(clean_gray)),
        bent,
        denoised,
    ]

    def of(similarity, pair):
        branches = pair if isinstance(pair[0], tuple) else [pair]
        return torch.stack([similarity(*branch) for branch in branches]).mean(dim=0)

    columns = [of(lambda x, y: plain_ms_ssim(x, y, betas, "relu"), pair) for pair in pairs]
    columns += [of(plain_pearson, pair) for pair in (pairs[0], pairs[2], edges, blurred, bent, denoised)]
    return torch.stack(columns, dim=1)


def plain_pearson(x, y, eps=1e-12):
    x, y = (v.flatten(1) - v.flatten(1).mean(dim=1, keepdim=True) for v in (x, y))
    return (x * y).mean(dim=1) ** 2 / (x.square().mean(dim=1) * y.square().mean(dim=1)).clamp(min=eps)


def pictures(channels, batch, height, width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(height)
    clean = torch.rand(batch, channels, height, width, generator=generator, dtype=dtype)
    noisy = 0.6 * clean + 0.3 * torch.rand(clean.shape, generator=generator, dtype=dtype)
    return noisy.requires_grad_(), clean.requires_grad_()


def assert_same_with_both_gradients(scores, wanted, inputs, atol=1e-12):
    torch.testing.assert_close(scores, wanted, rtol=0, atol=atol)
    weights = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0), dtype=scores.dtype)
    reached = torch.autograd.grad((scores * weights).sum(), inputs)
    for one, other in zip(reached, torch.autograd.grad((wanted * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * float(other.abs().max()) + 1e-14)


@pytest.fixture(params=["one image at a time, in tiles", "all at once"])
def blocks(request, monkeypatch):
    strip, tile, share = (64, 16, 1) if request.param.startswith("one") else (2**30, 2**30, 2**40)
    monkeypatch.setattr(ms_ssim, "STRIP", strip)
    monkeypatch.setattr(ms_ssim, "TILE", tile)
    monkeypatch.setattr(moments, "STRIP", strip)
    monkeypatch.setattr(eager, "_SHARE", share)


@pytest.mark.parametrize("normalize", ["relu", "simple", "fold", None])
@pytest.mark.parametrize(("channels", "batch", "height", "width", "betas"), [*SMALL, (3, 1, 176, 181, FIVE)])
def test_ms_ssim_and_both_gradients_are_those_of_the_plain_formula(blocks, channels, batch, height, width, betas, normalize):
    noisy, clean = pictures(channels, batch, height, width)
    wanted = plain_ms_ssim(noisy, clean, betas, normalize)
    assert_same_with_both_gradients(MSSSIM(betas, normalize=normalize)(noisy, clean), wanted, (noisy, clean))


@pytest.mark.parametrize(("height", "width"), [(44, 44), (51, 47)])
@pytest.mark.parametrize("kind", ["in range", "out of range", "inverted", "dark"])
def test_all_components_and_both_gradients_are_those_of_the_plain_formulas(blocks, kind, height, width):
    noisy, clean = (x.detach() for x in pictures(3, 3, height, width))
    noisy = {
        "in range": noisy,
        "out of range": 3 * noisy - 0.7,
        "inverted": 1 - clean + 0.1 * noisy,
        "dark": 1e-3 * noisy,
    }[kind]
    noisy, clean = noisy.requires_grad_(), clean.requires_grad_()
    settings = {"betas": (0.3, 0.3, 0.4), "gamma_values": (0.5, 2.0, 1.3), "blur_sigma": 1.7, "wavelet_threshold": 0.05}
    table = standard_components(**settings)
    scores = torch.stack(Pair(noisy, clean).scores(table.values()), dim=1)
    wanted = plain_scores(noisy, clean, *settings.values())
    assert_same_with_both_gradients(scores, wanted, (noisy, clean))


def test_components_with_different_settings_share_one_pass(blocks):
    noisy, clean = pictures(3, 2, 44, 46)
    components = [
        Component("a", MSSSIM((0.5, 0.5)), (luma, clamp), (luma,)),
        Component("b", MSSSIM((0.2, 0.3), normalize="simple"), (clamp,), ()),
        Component("c", SquaredPearson(1e-3), (luma, minmax, Blur(1.0)), (luma,)),
        Component("d", MSSSIM((0.5, 0.5)), (minmax,), ()),
    ]
    wanted = [
        plain_ms_ssim(clamp(luma(noisy)), luma(clean), (0.5, 0.5), "relu"),
        plain_ms_ssim(clamp(noisy), clean, (0.2, 0.3), "simple"),
        plain_pearson(Blur(1.0)(minmax(luma(noisy))), luma(clean), 1e-3),  # a floor above the variances
        plain_ms_ssim(minmax(noisy), clean, (0.5, 0.5), "relu"),
    ]
    scores = torch.stack(Pair(noisy, clean).scores(components), dim=1)
    assert_same_with_both_gradients(scores, torch.stack(wanted, dim=1), (noisy, clean))


@pytest.mark.parametrize("side", [0, 1])
def test_the_gradient_of_one_side_alone_is_the_same(side):
    pair = list(pictures(3, 2, 30, 26))
    both = torch.autograd.grad(multi_attacker_scores(*pair, betas=(0.5, 0.5))["ms_ssim"].sum(), pair[side])
    pair[1 - side] = pair[1 - side].detach()
    alone = torch.autograd.grad(multi_attacker_scores(*pair, betas=(0.5, 0.5))["ms_ssim"].sum(), pair[side])
    torch.testing.assert_close(alone[0], both[0], rtol=1e-12, atol=1e-15)


def test_programs_survive_their_numbers():
    table = standard_components(gamma_values=(0.3, 4.0, 2.0), blur_sigma=0.7, betas=(0.5, 0.5))
    program = program_of(list(table.values()), 3, 50, 50)
    assert from_numbers(*program.to_numbers()) == program
    assert len(program.made) == len(set(program.made))  # every view once
    assert program.components == 15


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_memory_layout_does_not_matter(layout):
    noisy, clean = torch.rand(2, 2, 3, 44, 60).unbind()
    change = {
        "channels_last": lambda v: v.contiguous(memory_format=torch.channels_last),
        "transposed": lambda v: v.mT.contiguous().mT,
        "strided": lambda v: torch.stack((v, -v), dim=-1)[..., 0],
        "expanded": lambda v: v[:1].expand(2, -1, -1, -1),
    }[layout]
    betas = (0.5, 0.5)
    reached = multi_attacker_scores(change(noisy), change(clean), betas=betas)
    wanted = multi_attacker_scores(change(noisy).clone().contiguous(), change(clean).clone().contiguous(), betas=betas)
    for name in wanted:
        torch.testing.assert_close(reached[name], wanted[name], rtol=0, atol=1e-6)


def test_a_second_derivative_is_a_clear_error():
    noisy, clean = pictures(1, 1, 22, 22)
    (slope,) = torch.autograd.grad(MSSSIM((0.5, 0.5))(noisy, clean).sum(), noisy, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once only"):
        slope.square().sum().backward()


def test_the_registered_operators_keep_their_contract():
    noisy, clean = pictures(3, 2, 24, 25, dtype=torch.float32)
    numbers = program_of(list(standard_components(betas=(0.5, 0.5)).values()), 3, 24, 25).to_numbers()
    finite = torch.ones(2, dtype=torch.bool)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # the rest differentiates the slopes
    for wanted in ((True, False, False), (True, True, True), (False, False, False)):
        torch.library.opcheck(engine._scores, (noisy, clean, finite, *numbers, *wanted), test_utils=checks)
        _, *slopes = engine._scores(noisy, clean, finite, *numbers, *wanted)
        gradient = torch.rand(2, 15)
        arguments = (gradient, noisy.detach(), clean.detach(), finite, *slopes, *numbers, *wanted)
        torch.library.opcheck(engine._scores_backward, arguments, test_utils=checks)


def test_inputs_are_left_alone():
    noisy, clean = torch.rand(1, 3, 30, 30, requires_grad=True), torch.rand(1, 3, 30, 30)
    before = noisy.detach().clone(), clean.clone()
    multi_attacker_scores(noisy, clean, betas=(0.5, 0.5))["ms_ssim"].sum().backward()
    assert torch.equal(noisy, before[0])
    assert torch.equal(clean, before[1])


def test_thousands_of_small_images_score_as_one_by_one():
    noisy, clean = torch.rand(2, 3000, 3, 13, 11).unbind()
    together = multi_attacker_scores(noisy, clean, betas=(1.0,))
    for i in (0, 1, 1499, 2999):
        alone = multi_attacker_scores(noisy[i : i + 1], clean[i : i + 1], betas=(1.0,))
        for name in together:
            assert abs(together[name][i] - alone[name][0]) <= 1e-6, name


def test_one_large_image_scores_as_its_repeated_quarter(device):
    side = 1024 if device.type == "cuda" else 512  # there a map of it is worked on in parts
    quarter = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    clean = quarter.repeat(1, 1, 4, 4)
    noisy = (0.5 * clean + 0.2).requires_grad_()
    scores = multi_attacker_scores(noisy, clean)
    small = multi_attacker_scores(0.5 * quarter + 0.2, quarter)
    for name in scores:  # but for windows across the seams
        assert abs(scores[name] - small[name]).item() <= 2e-3, name
    scores["ms_ssim"].sum().backward()
    assert noisy.grad.isfinite().all()
    assert noisy.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("component", "channels", "message"),
    [
        (Component("x", SquaredPearson(), (luma,), ()), 3, "component 'x': .* same shape, got 1 and 3 channels"),
        (Component("x", MSSSIM((1.0,)), (), (luma,)), 3, "component 'x': .* same shape, got 3 and 1 channels"),
        (Component("x", SquaredPearson(), (luma, luma), (luma,)), 3, "luma needs 3 channels, got 1"),
        (Component("x", MSSSIM((1.0,)), (luma,), (luma,)), 1, "luma needs 3 channels, got 1"),
    ],
)
def test_views_that_do_not_fit_are_refused(component, channels, message):
    noisy, clean = pictures(channels, 2, 22, 22)
    with pytest.raises(ValueError, match=message):
        Pair(noisy, clean, channels=None).score(component)


@pytest.mark.parametrize("similarity", [MSSSIM((1.0,)), SquaredPearson()])
def test_similarities_refuse_views_without_pixels_and_whole_numbers(similarity):
    with pytest.raises(ValueError, match="no pixels"):
        similarity(torch.rand(2, 0, 22, 22), torch.rand(2, 0, 22, 22))
    with pytest.raises(TypeError, match="must be float16"):
        similarity(torch.ones(2, 1, 22, 22, dtype=torch.int64), torch.ones(2, 1, 22, 22, dtype=torch.int64))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # of torch's own forward mode
def test_forward_mode_is_refused_instead_of_zero():
    noisy, clean = (image.detach() for image in pictures(3, 1, 22, 22))
    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        torch.func.jvp(lambda x: multi_attacker_scores(x, clean, betas=(1.0,))["pearson"], (noisy,), (noisy,))


@in_one_graph
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # of torch's own forward mode
def test_forward_mode_is_refused_by_a_compiler_too():
    noisy, clean = (image.detach() for image in pictures(3, 1, 22, 22))

    def score(x):
        return multi_attacker_scores(x, clean, betas=(1.0,))["pearson"]

    compiled = torch.compile(lambda x: torch.func.jvp(score, (x,), (x,)), backend="aot_eager", fullgraph=True)
    with pytest.raises((NotImplementedError, torch._dynamo.exc.Unsupported), match="forward-mode derivatives"):
        compiled(noisy)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(noisy, noisy)
        with pytest.raises((NotImplementedError, torch._dynamo.exc.Unsupported), match=r"forward-mode (derivat|AD)"):
            torch.compile(score, backend="aot_eager", fullgraph=True)(dual)


def test_results_can_be_added_to_in_place():
    noisy, clean = pictures(3, 1, 22, 22)
    for function in (multi_attacker_privacy_loss, multi_attacker_scores):
        scores = function(noisy, clean, betas=(1.0,))
        total = scores["ms_ssim"]
        total += scores["pearson"]
        total.sum().backward()


def test_clean_images_made_in_inference_mode_can_be_trained_against():
    noisy, clean = pictures(3, 1, 22, 22)
    with torch.inference_mode():
        target = clean.detach() * 1
    multi_attacker_privacy_loss(noisy, target, betas=(1.0,))["ms_ssim"].backward()
    wanted = torch.autograd.grad(multi_attacker_privacy_loss(noisy, clean, betas=(1.0,))["ms_ssim"], noisy)[0]
    torch.testing.assert_close(noisy.grad, wanted, rtol=0, atol=0)


def test_a_similarity_called_under_autocast_computes_in_full_precision():
    noisy, clean = pictures(1, 1, 30, 30, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = MSSSIM((0.5, 0.5))(noisy, clean)
    assert torch.equal(value, MSSSIM((0.5, 0.5))(noisy, clean))
