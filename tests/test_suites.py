"""The versioned suite: frozen, in order, with the numbers that its parts give alone."""

import pickle

import numpy as np
import pytest
import torch
from conftest import NAMES, SMALL, photo_pair, pictures, spoil

import attacker_metrics as am
from attacker_metrics import AttackerMetric, MultiAttackerPrivacy, Pair
from attacker_metrics.scoring.suites import STANDARD_V1, added_components

GOLDEN = {
    "identity_gray": 0.637603,
    "invert_gray": 0.0,
    "equalize_gray": 0.61516,
    "median_gray": 0.731278,
    "unsharp_gray": 0.542793,
    "wiener_gray": 0.467498,
    "jpeg_gray": 0.646654,
    "affine_gray": 0.620356,
    "pearson_identity": 0.46156,
    "pearson_equalize": 0.431417,
    "pearson_median": 0.784128,
    "pearson_unsharp": 0.251594,
    "pearson_wiener": 0.355274,
    "pearson_jpeg": 0.434843,
    "pearson_affine": 0.46952,
}
"""Mean scores of four photographs under noise, in float64: they change only with a new suite."""


def suite(**kwargs):
    return MultiAttackerPrivacy(suite="standard-v1", **{"betas": SMALL, **kwargs})


def test_the_suite_stands_behind_the_fifteen_in_its_order():
    assert tuple(suite().keys()) == (*NAMES, *STANDARD_V1.added)
    assert tuple(MultiAttackerPrivacy(betas=SMALL).keys()) == NAMES


def test_its_numbers_are_frozen():
    noisy, clean = (torch.tensor(images) for images in photo_pair("noise"))
    metric = suite(betas=am.DEFAULT_BETAS)
    metric.update(noisy, clean)
    values = {name: float(value) for name, value in metric.compute().items() if name in STANDARD_V1.added}
    assert values == pytest.approx(GOLDEN, abs=2e-5)


def test_every_component_is_the_one_that_is_scored_alone():
    noisy, clean = (torch.tensor(images, dtype=torch.float32) for images in photo_pair("noise", 61, 90))
    together = Pair(noisy, clean)
    table = added_components("standard-v1", betas=SMALL)
    scores = together.scores(table.values())
    for component, score in zip(table.values(), scores, strict=True):
        (views,) = Pair(noisy, clean).views(component)
        torch.testing.assert_close(score, component.similarity(*views), rtol=0, atol=1e-6)
        metric = AttackerMetric(component)
        metric.update(noisy, clean)
        assert float(metric.compute()) == pytest.approx(float(score.mean()), abs=1e-6)
    one_by_one = [Pair(noisy[i : i + 1], clean[i : i + 1]).scores(table.values()) for i in range(len(noisy))]
    for k, score in enumerate(scores):
        torch.testing.assert_close(score, torch.cat([single[k] for single in one_by_one]), rtol=0, atol=1e-6)


def test_a_clean_picture_scores_1_unless_the_attacker_bends_it():
    clean = torch.tensor(photo_pair()[1], dtype=torch.float32)
    metric = suite()
    metric.update(clean, clean)
    values = metric.compute()
    bending = {"invert_gray", "unsharp_gray", "wiener_gray", "pearson_unsharp", "pearson_wiener"}
    for name in STANDARD_V1.added:
        assert (float(values[name]) > 0.999) is (name not in bending), name


def test_forward_has_finite_gradients_and_leaves_broken_pairs_out():
    noisy, clean = pictures(batch=3)
    metric = suite(nan_strategy="ignore")
    noisy = spoil(noisy, 1).requires_grad_()
    values = metric(noisy, clean)
    sum(values[name] for name in STANDARD_V1.added).backward()
    assert noisy.grad.isfinite().all()
    assert noisy.grad[1].abs().sum() == 0
    assert noisy.grad[0].abs().sum() > 0
    expected = suite()
    expected.update(noisy.detach()[[0, 2]], clean[[0, 2]])
    for name, value in expected.compute().items():
        assert float(metric.compute()[name]) == pytest.approx(float(value), abs=1e-6)
        assert int(metric[name].skipped) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "standard-v0"}, "suite must be one of 'standard-v1', 'standard-v2', got 'standard-v0'"),
        ({"blur_sigma": 1.0}, r"'standard-v1' is frozen, .* got blur_sigma=1\.0"),
        ({"gamma_values": (2.0,)}, r"frozen, .* got gamma_values=\(2\.0,\)"),
        ({"wavelet_threshold": 0.2}, r"frozen, .* got wavelet_threshold=0\.2"),
        ({"compute_pearson": False}, "frozen, .* got a family switched off"),
    ],
)
def test_settings_that_are_not_the_suites_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiAttackerPrivacy(**{"suite": "standard-v1", **settings})


def test_it_survives_pickling_and_cloning():
    noisy, clean = pictures()
    metric = suite()
    metric.update(noisy, clean)
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert {name: float(value) for name, value in copy.compute().items()} == {
            name: float(value) for name, value in metric.compute().items()
        }


def test_images_may_come_to_want_a_gradient_after_they_were_paired():
    noisy, clean = (torch.tensor(images[:1, :, :48, :48]).float() for images in photo_pair("dimmed"))
    pair = Pair(noisy, clean)
    noisy.requires_grad_()
    pair.score(added_components("standard-v1", betas=SMALL)["wiener_gray"]).sum().backward()
    assert noisy.grad.abs().sum() > 0


def test_gradients_through_the_filters_are_those_of_the_views():
    """Away from roundings, a small step along the gradient changes the score by the gradient's square."""
    noisy, clean = (torch.tensor(images[:1, :, :48, :48]) for images in photo_pair("dimmed"))
    for name in ("identity_gray", "invert_gray", "median_gray", "unsharp_gray", "wiener_gray", "pearson_median"):
        component = added_components("standard-v1", betas=SMALL)[name]
        moving = (noisy + 0.01 * torch.rand(noisy.shape, dtype=noisy.dtype)).requires_grad_()
        score = Pair(moving, clean).score(component).sum()
        if score.item() == 0:  # a negative: MS-SSIM has no slope there
            continue
        (gradient,) = torch.autograd.grad(score, moving)
        step = 1e-5 / gradient.norm()
        ahead, behind = (Pair(moving + sign * step * gradient, clean).score(component).sum() for sign in (1, -1))
        np.testing.assert_allclose(
            ((ahead - behind) / (2 * step)).item(), gradient.square().sum().item(), rtol=1e-3, err_msg=name
        )
