"""Means over a batch, written out once more in plain autograd."""

import pytest
import torch
from conftest import pictures, spoil

from attacker_metrics import multi_attacker_privacy_loss, multi_attacker_scores
from attacker_metrics.scoring.batch_means import batch_means

FAMILIES = (slice(0, 2), slice(2, 5))
YES, NO = torch.tensor(True), torch.tensor(False)


def plain(scores):
    means = scores.mean(0)
    return [*means, *(means[members].mean() for members in FAMILIES)]


@pytest.mark.parametrize("used", [[0], [1, 5], [6], list(range(7))])
def test_values_and_slopes_are_those_of_plain_means(used):
    scores = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    found, wanted = batch_means(scores, YES, FAMILIES, torch.float64), plain(scores)
    torch.testing.assert_close(list(found), wanted, rtol=0, atol=1e-15)
    slopes = [torch.autograd.grad(sum((k + 1) * means[k] for k in used), scores)[0] for means in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(lambda s: batch_means(s, YES, FAMILIES, torch.float64), scores)


def test_a_batch_that_is_not_usable_gives_zeros_with_zero_slopes():
    scores = torch.full((3, 5), torch.nan, requires_grad=True)
    found = batch_means(scores, NO, FAMILIES, torch.bfloat16)
    assert all(mean == 0 and mean.dtype == torch.bfloat16 for mean in found)
    sum(found).backward()
    assert torch.equal(scores.grad, torch.zeros(3, 5))


def test_what_scores_nan_in_a_usable_batch_stays_nan():
    scores = torch.rand(3, 5)
    scores[1, 2] = torch.nan  # MS-SSIM with normalize=None
    assert [bool(mean.isnan()) for mean in batch_means(scores, YES, FAMILIES, torch.float32)] == [
        *(False, False, True, False, False),
        *(False, True),
    ]


def test_each_mean_may_be_changed_in_place_alone():
    scores = torch.rand(3, 5, requires_grad=True)
    found, before = batch_means(scores, YES, FAMILIES, torch.float32), plain(scores.detach())
    first = found[0]
    first += 1
    first *= 2
    torch.testing.assert_close([first.detach(), *found[1:]], [2 * (before[0] + 1), *before[1:]])
    first.backward()
    torch.testing.assert_close(scores.grad[:, 0], torch.full((3,), 2 / 3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    scores = torch.rand(3, 5)
    with mode():
        torch.testing.assert_close(list(batch_means(scores, YES, FAMILIES, torch.float32)), plain(scores))


@pytest.mark.parametrize("weight", [1.0, torch.nan, torch.inf])
@pytest.mark.parametrize("backend", ["torch", "native"])
def test_a_pair_without_scores_gets_no_slope_whatever_is_asked_of_them(monkeypatch, weight, backend):
    if backend == "native":
        from attacker_metrics.engine import native

        if native.loaded() is None:
            pytest.skip("the native kernel is not built here")
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", backend)
    noisy, clean = pictures(3, 22, 24)
    noisy = spoil(noisy, 1).requires_grad_()
    scores = torch.stack(list(multi_attacker_scores(noisy, clean, betas=(0.5, 0.5)).values()), dim=1)
    assert scores.isnan().all(dim=1).tolist() == [False, True, False]
    weights = torch.ones_like(scores)
    weights[1] = weight
    (slope,) = torch.autograd.grad(scores, noisy, weights)
    assert slope.isfinite().all()
    assert [bool(s.any()) for s in slope] == [True, False, True]


def test_the_losss_scalars_are_independent_in_memory_order_and_graph():
    noisy, clean = pictures(2, 22, 24)
    loss = multi_attacker_privacy_loss(noisy.requires_grad_(), clean, betas=(0.5, 0.5))
    kept = {name: float(value.detach()) for name, value in loss.items()}
    loss["pearson"] *= 0
    assert {name: float(value.detach()) for name, value in loss.items()} == {**kept, "pearson": 0.0}
    assert torch.equal(torch.autograd.grad(loss["pearson"], noisy)[0], torch.zeros_like(noisy))
