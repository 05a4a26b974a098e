"""What a pair hands out is protected; what it is given is looked at: in-place writes, conventions, swapped sides."""

import math

import numpy as np
import pytest
import torch
from conftest import SMALL, pictures, warns_once

import attacker_metrics as am
from attacker_metrics import MSSSIM, AttackerMetric, Component, Pair, SquaredPearson
from attacker_metrics.attackers.standard import luma
from attacker_metrics.reading.strongest import attackers_of

RIGHT = Component("right", SquaredPearson(), (luma, lambda x: x + 0.0), (luma, lambda x: x + 0.0))


def subtract(x):
    x -= x.mean(dim=(1, 2, 3), keepdim=True)
    return x


def detached(x):
    x.detach().mul_(0)
    return x


def through_numpy(x):
    x.detach().numpy()[...] = 0.5
    return x


_BUFFER = torch.empty(2, 1, 22, 22)


def reusing_a_buffer(x):
    return torch.mul(x, 1.0, out=_BUFFER)


def writing_later(x):
    view = x[:, :, ::2]
    view.zero_()
    return x


def score(pair, component):
    return pair.score(component).tolist()


@pytest.mark.parametrize("attacker", [subtract, detached, through_numpy, reusing_a_buffer, writing_later])
@pytest.mark.parametrize("chain", [(luma,), ()], ids=["a shared view", "the image itself"])
def test_an_attacker_that_writes_in_place_changes_nobody_elses_view(attacker, chain):
    if chain == () and attacker is reusing_a_buffer:
        pytest.skip("the buffer of this attacker is grey")
    noisy, clean = pictures()
    before = noisy.clone(), clean.clone()
    own = Component("own", SquaredPearson(), (*chain, attacker), (*chain, attacker))
    wanted = score(Pair(noisy, clean), RIGHT)
    pair = Pair(noisy, clean)
    alone = score(pair, own)
    assert score(pair, RIGHT) == wanted
    assert score(pair, Component("gray", SquaredPearson(), (luma,), (luma,))) == pytest.approx(wanted, abs=1e-6)
    assert score(Pair(noisy, clean), own) == alone
    if attacker is reusing_a_buffer:
        assert alone == pytest.approx(wanted, abs=1e-6)  # not 1: the two sides are not the same tensor
    assert torch.equal(noisy, before[0])
    assert torch.equal(clean, before[1])


def test_an_extra_that_writes_in_place_leaves_the_collection_as_it_was():
    class Centred(AttackerMetric):
        def __init__(self):
            super().__init__(Component("centred", SquaredPearson(), (subtract,), (subtract,)))

    class Plain(AttackerMetric):
        def __init__(self):
            super().__init__(Component("plain", SquaredPearson(), (lambda x: x + 0.0,), ()))

    noisy, clean = pictures()
    together = am.MultiAttackerPrivacy(betas=SMALL, extra=[Centred(), Plain()])(noisy, clean)
    alone = Plain()(noisy, clean)
    assert together["plain"].item() == pytest.approx(alone.item(), abs=1e-6)


def test_a_similarity_that_writes_in_place_changes_nobody_elses_view():
    def similarity(noisy, clean):
        noisy -= clean
        clean.zero_()
        return noisy.square().mean(dim=(1, 2, 3))

    noisy, clean = pictures()
    wanted = score(Pair(noisy, clean), RIGHT)
    pair = Pair(noisy, clean)
    pair.score(Component("own", similarity, RIGHT.noisy, RIGHT.clean))
    assert score(pair, RIGHT) == wanted


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_what_a_pair_returns_is_the_callers_own(mode):
    noisy, clean = pictures()
    with mode():
        pair = Pair(noisy, clean)
        wanted = score(pair, RIGHT)
        pair.score(RIGHT).zero_()
        pair.scores([RIGHT, RIGHT])[0].zero_()
        for views in pair.views(RIGHT):
            for view in views:
                view.zero_()
        assert score(pair, RIGHT) == wanted
        assert score(pair, Component("again", MSSSIM(SMALL), RIGHT.noisy, RIGHT.clean)) == score(
            Pair(noisy, clean), Component("again", MSSSIM(SMALL), RIGHT.noisy, RIGHT.clean)
        )


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("component", [RIGHT, am.standard_components()["pearson_rgb"]], ids=["by views", "by the engine"])
def test_images_that_change_under_a_pair_are_an_error(side, component):
    images = pictures()
    pair = Pair(*images)
    images[side].zero_()
    with pytest.raises(RuntimeError, match=r"changed in place after the Pair was made.*clone"):
        pair.score(component)


def test_a_pair_may_be_made_outside_a_transform_that_it_is_scored_in():
    noisy, clean = pictures()
    pair = Pair(noisy, clean)
    wanted = score(Pair(noisy, clean), RIGHT)
    found = torch.func.vmap(lambda weight: weight * pair.score(RIGHT))(torch.tensor([1.0, 2.0]))
    assert found[0].tolist() == wanted


def test_an_attacker_that_answers_with_something_else_is_named():
    noisy, clean = pictures()
    for answer, got in (
        (lambda x: x.numpy(), "a ndarray"),
        (lambda x: x[0], r"torch.float32 of shape \(3, 22, 22\)"),
        (lambda x: x.to(torch.complex64), "torch.complex64 of shape"),
        (lambda _: None, "a NoneType"),
    ):
        with pytest.raises(
            TypeError, match=rf"the attacker .*lambda.* must return a real tensor .* \(2, C, H, W\), got {got}"
        ):
            Pair(noisy, clean).score(Component("own", SquaredPearson(), (answer,), (answer,)))


# Conventions.


def natural(batch=2):
    """Pictures with a spread like a photograph's, and a noisy version that leaves [0, 1] a little."""
    clean = torch.rand(batch, 3, 30, 30).square()
    return clean + 0.1 * torch.randn_like(clean), clean


def update(noisy, clean):
    am.RGBPearson().update(noisy, clean)


def update_collection(noisy, clean):
    am.MultiAttackerPrivacy(betas=SMALL).update(noisy, clean)


def loss(noisy, clean):
    am.multi_attacker_privacy_loss(noisy, clean, betas=SMALL)


def scores(noisy, clean):
    am.multi_attacker_scores(noisy, clean, betas=SMALL)


def module(noisy, clean):
    am.MultiAttackerPrivacyLoss(betas=SMALL)(noisy, clean)


PATHS = pytest.mark.parametrize("path", [update, update_collection, loss, scores, module])
BYTES = {
    "float": lambda noisy: 255 * noisy,
    "whole": lambda noisy: (255 * noisy).clamp(0, 255).round(),
    "half": lambda noisy: (255 * noisy).half(),
    "much noise": lambda noisy: 255 * (noisy + 0.5 * torch.randn_like(noisy)),
    "dim": lambda noisy: 255 * (0.6 * noisy),
}
OBFUSCATIONS = {
    "none": lambda clean: clean,
    "noise": lambda clean: clean + 0.5 * torch.randn_like(clean),
    "huge noise": lambda clean: clean + 100 * torch.randn_like(clean),
    "shift": lambda clean: clean + 100,
    "contrast": lambda clean: 20 * clean,
    "shrunk": lambda clean: 1e-3 * clean,
    "inverted": lambda clean: 1 - clean,
    "centred": lambda clean: 2 * clean - 1,
    "speckle": lambda clean: clean * torch.randn_like(clean).exp(),
    "heavy tails": lambda clean: clean + torch.distributions.Laplace(0.0, 30.0).sample(clean.shape),
    "a lone pixel": lambda clean: clean + 1e3 * (torch.arange(clean[0].numel()) == 777).view(clean[0].shape),
}


@PATHS
@pytest.mark.parametrize("kind", BYTES)
def test_noisy_images_in_0_to_255_are_told_once_with_the_fix(path, kind):
    noisy, clean = natural()
    with warns_once(r"2 of 2 noisy images look like values from 0 to 255.*noisy / 255"):
        path(BYTES[kind](noisy), clean.half() if kind == "half" else clean)


@PATHS
@pytest.mark.parametrize("kind", OBFUSCATIONS)
def test_obfuscations_that_leave_the_unit_range_are_not_suspected(path, kind):
    _, clean = natural()
    path(OBFUSCATIONS[kind](clean), clean)  # a warning would be an error here


def test_swapped_sides_are_suspected_where_it_can_be_told():
    noisy, clean = natural()
    for metric in (am.RGBPearson(), am.MultiAttackerPrivacy(betas=SMALL)):
        with pytest.raises(
            ValueError, match=r"clean images leave \[0, 1\].*All noisy ones lie in it: are the two swapped\?"
        ):
            metric.update(clean, 3 * noisy)
        with pytest.raises(ValueError, match=r"divide 0\.\.255 values by 255\.$"):
            metric.update(3 * noisy, 3 * clean)


def test_numpy_arrays_are_answered_with_their_conversion():
    array = np.zeros((2, 3, 22, 22), dtype=np.float32)
    for call in (
        lambda: Pair(array, array),
        lambda: am.pearson_sq_mean(array, array),
        lambda: am.safe_ms_ssim(array, array),
        lambda: am.MultiAttackerPrivacyLoss()(array, array),
        lambda: am.MultiAttackerPrivacyLoss(mean=(0.5,) * 3, std=(0.5,) * 3)(array, array),
        lambda: am.MultiAttackerPrivacyLoss().prepare(array),
        lambda: am.RGBPearson().update(array, array),
    ):
        with pytest.raises(TypeError, match=r"got ndarray; convert NumPy arrays \(B, H, W, C\) by torch.from_numpy"):
            call()


def test_one_picture_compared_with_many_is_seen_once_and_scores_as_its_copies_do():
    seen = []

    def halved(images):
        seen.append(len(images))
        return images / 2

    generator = torch.Generator().manual_seed(0)
    noisy, clean = torch.rand(1, 3, 64, 64, generator=generator), torch.rand(5, 3, 64, 64, generator=generator)
    clean[3, 0, 0, 0] = math.nan
    own = Component("own", SquaredPearson(), (halved,), (halved,))
    components = [
        own,
        *(c for m in attackers_of(am.MultiAttackerPrivacy(suite="standard-v2", betas=SMALL)).values() for c in m.components),
    ]
    with torch.no_grad():
        copies = Pair(noisy.repeat(5, 1, 1, 1), clean).scores(components)
        seen.clear()
        one = Pair(noisy.expand(5, -1, -1, -1), clean).scores(components)
    assert seen == [1, 5]  # the noisy side once
    for component, wanted, got in zip(components, copies, one, strict=True):
        assert torch.equal(wanted.isnan(), torch.arange(5) == 3)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0, equal_nan=True, msg=component.name)


def test_a_gradient_reaches_every_copy_of_an_expanded_picture():
    generator = torch.Generator().manual_seed(0)
    noisy, clean = torch.rand(1, 3, 32, 32, generator=generator), torch.rand(3, 3, 32, 32, generator=generator)
    component = Component("own", SquaredPearson(), (torch.sin,), (torch.sin,))
    slopes = []
    for make in (lambda x: x.expand(3, -1, -1, -1), lambda x: x.repeat(3, 1, 1, 1)):
        batch = make(noisy).requires_grad_()
        Pair(batch, clean).score(component).sum().backward()
        slopes.append(batch.grad)
    torch.testing.assert_close(*slopes)


def test_one_picture_with_an_infinity_has_no_score():
    noisy = torch.rand(1, 3, 32, 32)
    noisy[0, 0, 0, 0] = math.inf
    found = Pair(noisy.expand(3, -1, -1, -1), torch.rand(3, 3, 32, 32)).score(
        Component("own", SquaredPearson(), (torch.sin,), (torch.sin,))
    )
    assert found.isnan().all()
