"""The engine against the plain composition: autograd through the written-out formula, block by block or in one go."""

import math

import pytest
import torch
import torch.nn.functional as F

import attacker_metrics.engine as engine
from attacker_metrics import multi_attacker_scores
from attacker_metrics.engine import ms_ssim_scores

SMALL = (
    ((3, 1, 1), 2, 50, 47, (0.3, 0.3, 0.4)),
    ((1,), 3, 23, 31, (0.5, 0.5)),
    ((1,), 1, 11, 12, (1.0,)),
    ((2,), 1, 12, 11, (0.7,)),
)
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
        value = value * {"relu": term.relu(), "simple": (term + 1) / 2, None: term}[normalize] ** beta
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return value


def views(channels, batch, height, width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(height)
    clean = [torch.rand(batch, count, height, width, generator=generator, dtype=dtype) for count in channels]
    noisy = [0.6 * view + 0.3 * torch.rand(view.shape, generator=generator, dtype=dtype) for view in clean]
    return [view.requires_grad_() for view in noisy], [view.requires_grad_() for view in clean]


@pytest.mark.parametrize(
    ("channels", "batch", "height", "width", "betas", "normalize", "block"),
    [
        *((*case, normalize, block) for normalize in ("relu", "simple", None) for block in (64, 2**19) for case in SMALL),
        ((3, 1), 1, 176, 181, FIVE, "relu", 2**12),
    ],
)
def test_scores_and_both_gradients_are_those_of_the_plain_formula(
    monkeypatch, channels, batch, height, width, betas, normalize, block
):
    monkeypatch.setattr(engine, "_BLOCK", block)  # 64: one image at a time, in strips
    noisy, clean = views(channels, batch, height, width)
    scores = ms_ssim_scores(noisy, clean, betas, normalize)
    wanted = torch.stack([plain_ms_ssim(x, y, betas, normalize) for x, y in zip(noisy, clean, strict=True)], dim=1)
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-12)
    weights = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0), dtype=scores.dtype)
    reached = torch.autograd.grad((scores * weights).sum(), noisy + clean)
    for one, other in zip(reached, torch.autograd.grad((wanted * weights).sum(), noisy + clean), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * float(other.abs().max()) + 1e-14)


@pytest.mark.parametrize("side", [0, 1])
def test_the_gradient_of_one_side_alone_is_the_same(side):
    pair = views((3, 1), 2, 30, 26)
    both = torch.autograd.grad(ms_ssim_scores(*pair, (0.5, 0.5), "relu").sum(), pair[side])
    pair[1 - side][:] = [view.detach() for view in pair[1 - side]]
    alone = torch.autograd.grad(ms_ssim_scores(*pair, (0.5, 0.5), "relu").sum(), pair[side])
    for one, other in zip(alone, both, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


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
    (noisy,), (clean,) = views((1,), 1, 22, 22)
    (slope,) = torch.autograd.grad(ms_ssim_scores([noisy], [clean], (0.5, 0.5), "relu").sum(), noisy, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once only"):
        slope.square().sum().backward()


def test_the_registered_operator_keeps_its_contract():
    noisy, clean = views((3, 1), 2, 24, 25, dtype=torch.float32)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # the rest differentiates the slopes
    torch.library.opcheck(engine._scores, (noisy, clean, [0.5, 0.5], "relu", True, False), test_utils=checks)
    torch.library.opcheck(engine._scores, (noisy, clean, [0.5, 0.5], "", True, True), test_utils=checks)


def test_inputs_are_left_alone():
    noisy, clean = torch.rand(1, 1, 30, 30), torch.rand(1, 1, 30, 30)
    before = noisy.clone(), clean.clone()
    ms_ssim_scores([noisy], [clean], (0.5, 0.5), "relu")
    assert torch.equal(noisy, before[0])
    assert torch.equal(clean, before[1])
