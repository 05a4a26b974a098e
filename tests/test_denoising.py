"""The blind attacker against noise: the level is estimated as PyWavelets would, total variation as scikit-image has it."""

import numpy as np
import pytest
import torch
from reference import photographs
from skimage.restoration import denoise_tv_chambolle, estimate_sigma

from attacker_metrics import SquaredPearson
from attacker_metrics.attackers import luma
from attacker_metrics.attackers.denoising import Denoise, noise_level, total_variation

CLEAN = luma(torch.from_numpy(photographs(96, 80)))


def noisy(level):
    return CLEAN + level * torch.from_numpy(np.random.default_rng(0).standard_normal(CLEAN.shape))


@pytest.mark.parametrize("level", [0.05, 0.2, 1.0])
def test_the_level_of_noise_is_known_from_the_picture_alone(level):
    found = noise_level(noisy(level)).flatten()
    assert ((found - level).abs() < 0.1 * level + 0.01).all()
    theirs = torch.tensor([estimate_sigma(image[0].numpy()) for image in noisy(level)])
    assert ((found - theirs).abs() < 0.1 * level + 0.01).all()


def test_total_variation_is_that_of_scikit_image():
    x = noisy(0.2)
    for weight in (0.1, 0.5):
        ours = total_variation(x, torch.full((len(x), 1, 1, 1), weight, dtype=x.dtype), 200)
        for mine, image in zip(ours, x, strict=True):
            theirs = denoise_tv_chambolle(image[0].numpy(), weight=weight, eps=0, max_num_iter=201)
            assert np.abs(mine[0].numpy() - theirs).max() < 1e-4


@pytest.mark.parametrize(("level", "least"), [(0.15, 0.75), (0.3, 0.6), (0.6, 0.4)])
def test_noisy_photographs_come_back(level, least):
    x = noisy(level)
    before, after = SquaredPearson()(x, CLEAN), SquaredPearson()(Denoise()(x), CLEAN)
    assert (after > before).all()
    assert after.median() >= least


@pytest.mark.parametrize("level", [0.1, 0.3, 1.0])
def test_more_steps_read_no_more(level):
    x = noisy(level)
    few, many = (SquaredPearson()(Denoise(*steps)(x), CLEAN).mean() for steps in ((), (100,)))
    assert few > many


def test_a_picture_without_noise_stays_and_so_does_a_constant_one():
    synthetic = torch.zeros(1, 3, 16, 17)
    synthetic[..., 8:] = 1  # its finest details are 0
    assert torch.allclose(Denoise()(synthetic), synthetic, atol=1e-9)
    assert torch.equal(Denoise()(torch.full((2, 3, 9, 9), 0.3)), torch.full((2, 3, 9, 9), 0.3))


def test_every_image_is_denoised_by_itself_at_any_scale():
    x = noisy(0.3)
    one_by_one = torch.cat([Denoise()(image[None]) for image in x])
    assert torch.allclose(Denoise()(x), one_by_one, atol=1e-12)
    assert torch.allclose(Denoise()(100 * x) / 100, Denoise()(x), atol=1e-6)


def test_gradients_are_finite_and_bad_input_is_named():
    x = noisy(0.3).requires_grad_()
    Denoise(10)(x).square().sum().backward()
    assert x.grad.isfinite().all()
    flat = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    Denoise(10)(flat).sum().backward()
    assert flat.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"2 x 2 pixels at least, got images of \(1, 8\)"):
        Denoise()(torch.rand(1, 1, 1, 8))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Denoise(0)
