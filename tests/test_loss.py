"""The training losses: numbers, weights, gradients that stay alive, precisions, and how they sit in a training loop."""

import copy
import math
import pickle

import numpy as np
import pytest
import reference
import torch
from conftest import SMALL, deliver_warnings, in_one_graph, photo_pair, pictures, spoil, warns_once
from torch import nn

import attacker_metrics as am

WEIGHTS = {"ms_ssim": 0.5, "pearson": 2.0, "sobel_gray": 3.0, "rgb_clamp": 0.0, "pearson_rgb": 0.25, "inverted_gray": 0.7}


def small_loss(**settings):
    return am.MultiAttackerPrivacyLoss(**{"betas": SMALL, **settings})


def gradient(loss, noisy, clean):
    leaf = noisy.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, clean), leaf)[0]


def path(clean, t):
    """From the picture, t = 0, over grey to its negative, t = 1."""
    return (1 - t) * clean + t * (1 - clean)


@pytest.mark.parametrize("families", [{}, {"compute_ms_ssim": False}, {"compute_pearson": False}])
def test_by_default_it_is_the_sum_of_the_two_means(families, device):
    noisy, clean = pictures(3, device=device)
    settings = {"gamma_values": (0.7,), "blur_sigma": 1.0, "wavelet_threshold": 0.2, "betas": SMALL, **families}
    loss = am.MultiAttackerPrivacyLoss(**settings)
    wanted = am.multi_attacker_privacy_loss(noisy, clean, **settings)
    assert loss(noisy, clean).item() == pytest.approx(
        sum(float(wanted.get(mean, 0)) for mean in ("ms_ssim", "pearson")), abs=1e-6
    )
    assert list(loss.components) == list(wanted)
    assert all(torch.equal(loss.components[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("normalize", ["relu", "fold", "simple"])
def test_weights_of_families_components_and_the_inverted_view_against_the_reference(normalize):
    noisy, clean = photo_pair("noise")
    noisy[2] = 1 - noisy[2]
    loss = am.MultiAttackerPrivacyLoss(weights=WEIGHTS, normalize=normalize)
    value = loss(torch.tensor(noisy), torch.tensor(clean))
    totals = []
    for x, y in zip(noisy, clean, strict=True):
        score = {
            name: np.mean(
                [
                    reference.ms_ssim(*pair, normalize=normalize)
                    if name in reference.MS_SSIM_NAMES
                    else reference.pearson_sq(*pair)
                    for pair in pairs
                ]
            )
            for name, pairs in reference.views(x, y).items()
        }
        inverted = reference.ms_ssim(1 - np.clip(reference.luma(x), 0, 1), reference.luma(y), normalize=normalize)
        means = [
            np.average([score[name] for name in names], weights=[WEIGHTS.get(name, 1.0) for name in names])
            for names in (reference.MS_SSIM_NAMES, reference.PEARSON_NAMES)
        ]
        totals.append(np.dot([0.5, 2.0, 0.7], [*means, inverted]))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(np.mean(totals), abs=1e-11)
    assert list(loss.components) == [*reference.NAMES, "inverted_gray"]


def test_images_as_the_network_sees_them_are_denormalised():
    noisy, clean = pictures(2, dtype=torch.float64)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = [
        (x - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1) for x in (noisy, clean)
    ]
    loss = small_loss(mean=mean, std=std)
    assert loss(*normalised).item() == pytest.approx(small_loss()(noisy, clean).item(), abs=1e-7)
    found = gradient(loss, *normalised)
    wanted = gradient(small_loss(), noisy, clean) * torch.tensor(std).double().view(3, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("side", [0, 1])
def test_a_pixel_that_is_not_finite_makes_it_zero_with_zero_gradients_and_one_warning(side, device):
    images = list(pictures(2, device=device))
    images[side] = spoil(images[side], 1)
    leaf = images[0].requires_grad_()
    loss = small_loss(weights=WEIGHTS)
    with warns_once("1 of 2 pairs .* NaN or infinite"):
        value = loss(leaf, images[1])
        deliver_warnings(device)
    value.backward()
    assert value.item() == 0
    assert leaf.grad.abs().max() == 0
    assert set(loss.components) == {*reference.NAMES, "inverted_gray"}
    assert all(score == 0 for score in loss.components.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"edges": 1}}, "'edges' is not evaluated; choose from ms_ssim, pearson, rgb_clamp"),
        ({"weights": {"pearson": 1}, "compute_pearson": False}, "'pearson' is not evaluated"),
        ({"weights": {"pearson": -1}}, "'pearson' must be a number >= 0, got -1"),
        ({"weights": {"sobel_gray": math.nan}}, "'sobel_gray' must be a number >= 0, got nan"),
        ({"weights": {"ms_ssim": 0, "pearson": 0}}, "nothing is left"),
        (
            {"weights": dict.fromkeys(reference.PEARSON_NAMES, 0)},
            "every component of 'pearson' has weight 0; pass .'pearson': 0",
        ),
        ({"compute_ms_ssim": False, "compute_pearson": False}, "both False"),
        ({"normalize": None}, "normalize=None makes a negative MS-SSIM term NaN"),
        ({"normalize": "abs"}, "'fold'.*got 'abs'"),
        ({"mean": (0.5,) * 3}, "mean and std go together"),
        ({"mean": (0.5,) * 3, "std": (0.5,)}, "three numbers each"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0, 0.5)}, "std positive"),
        ({"betas": ()}, "betas"),
        ({"weights": {"pearson": "much"}}, "'pearson' must be a number >= 0, got 'much'"),
        ({"weights": {"pearson": None}}, "'pearson' must be a number >= 0, got None"),
        ({"mean": 0.5, "std": 0.5}, "three numbers each, got mean=0.5"),
        ({"mean": "rgb", "std": (1, 1, 1)}, "mean must be finite"),
    ],
)
def test_unusable_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        am.MultiAttackerPrivacyLoss(**settings)


@pytest.mark.parametrize("settings", [{}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}], ids=["plain", "denormalising"])
def test_wrong_images_are_named_as_everywhere(settings):
    loss = small_loss(**settings)
    for noisy, clean, error, message in (
        (torch.rand(1, 1, 22, 22), torch.rand(1, 1, 22, 22), ValueError, "3 channels"),
        (torch.rand(3, 22, 22), torch.rand(3, 22, 22), ValueError, "batch dimension"),
        (torch.rand(1, 3, 21, 22), torch.rand(1, 3, 21, 22), ValueError, "too small"),
        (torch.ones(1, 3, 22, 22).byte(), torch.rand(1, 3, 22, 22), TypeError, "uint8"),
    ):
        with pytest.raises(error, match=message):
            loss(noisy, clean)


def test_it_has_no_state_and_survives_copies_and_pickling():
    noisy, clean = pictures()
    loss = am.PrivacyRegularizedLoss(nn.MSELoss(), small_loss(weights=WEIGHTS, mean=(0.1,) * 3, std=(0.9,) * 3), alpha=0.3)
    value = loss(noisy, clean, noisy, clean)
    assert list(loss.parameters()) == list(loss.buffers()) == []
    assert loss.state_dict() == {}
    assert not any(score.requires_grad for score in loss.components.values())
    for other in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss), loss.half(), loss.to("cpu")):
        assert torch.equal(other(noisy, clean, noisy, clean), value)


def test_components_keep_no_graph_alive():
    noisy, clean = pictures()
    loss = small_loss()
    loss(noisy.requires_grad_(), clean)
    assert all(score.grad_fn is None and score.shape == () for score in loss.components.values())


@in_one_graph
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")  # of torch's own tracing
@pytest.mark.parametrize("settings", [{}, {"weights": WEIGHTS, "normalize": "fold", "mean": (0.1,) * 3, "std": (0.9,) * 3}])
def test_compiled_in_one_graph_it_gives_the_same(settings):
    noisy, clean = pictures()
    loss = am.PrivacyRegularizedLoss(nn.MSELoss(), small_loss(**settings), alpha=0.3)
    wanted, wanted_gradient = loss(noisy, clean, noisy, clean), gradient(loss.privacy, noisy, clean)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert compiled(noisy, clean, noisy, clean).item() == pytest.approx(wanted.item(), abs=1e-5)
    assert set(loss.components) >= {"total", "task", "privacy", "ms_ssim"}
    again = torch.compile(loss.privacy, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient(again, noisy, clean), wanted_gradient, rtol=1e-4, atol=1e-7)


# Gradients that stay alive.


def test_folded_terms_are_the_defaults_where_all_terms_are_at_least_a_hundredth():
    seen = 0
    for obfuscation in reference.OBFUSCATIONS:
        for x, y in zip(*(side[:2] for side in photo_pair(obfuscation)), strict=True):
            if min(reference.ms_ssim_terms(x, y)) >= 0.01:
                seen += 1
                pair = torch.tensor(x)[None], torch.tensor(y)[None]
                one, other = (am.MSSSIM(normalize=normalize) for normalize in ("relu", "fold"))
                assert abs(one(*pair) - other(*pair)) <= 1e-12
                torch.testing.assert_close(gradient(one, *pair), gradient(other, *pair), rtol=1e-12, atol=0)
    assert seen >= 8


def test_the_fold_is_smooth_and_positive():
    terms = torch.linspace(-0.05, 0.05, 2001, dtype=torch.float64)
    ms_ssim = am.engine.eager.ms_ssim._product_of_powers
    values, slopes = ms_ssim(terms[None, None], (1.0,), "fold")
    values, slopes = values[0], slopes[0, 0]
    assert values.min() == pytest.approx(0.005)
    assert torch.equal(values.flip(0), values)
    numeric = (values[2:] - values[:-2]) / (terms[2:] - terms[:-2])
    assert (numeric - slopes[1:-1]).abs().max() <= 2e-3  # its slope has a corner at 0.01, of steps of 5e-5
    assert (slopes.diff().abs() <= 5e-3 + 1e-9).all()
    for beta in am.DEFAULT_BETAS:
        assert ms_ssim(terms[None, None], (beta,), "fold")[1].abs().max() < 8


@pytest.mark.parametrize("normalize", ["fold", "relu"])
def test_from_a_picture_to_its_negative_the_gradient_of_folded_ms_ssim_lives(normalize):
    clean = torch.tensor(reference.photographs()[:3])
    steps = (0.001, 0.1, 0.3, 0.49, 0.5, 0.505, 0.51, *(0.54 + i / 50 for i in range(10)), 0.8, 0.9, 1)
    norms, values = [], []
    for t in steps[-3:] if normalize == "relu" else steps:
        noisy = path(clean, t).requires_grad_()
        scores = am.MSSSIM(normalize=normalize)(noisy, clean)
        norms.append(torch.autograd.grad(scores.sum(), noisy)[0].flatten(1).norm(dim=1))
        values.append(scores.detach())
    norms, values = torch.stack(norms), torch.stack(values)
    if normalize == "relu":
        assert (norms == 0).all()  # dead, on a picture that an inversion gives back
        return
    assert norms.min() >= 1e-6
    assert norms.max() <= 1e2
    assert (values[:5].diff(dim=0) < 0).all()  # while every contrast is positive
    assert (values[-3:].diff(dim=0) > 0).all()  # once every contrast is negative


def test_from_a_picture_to_its_negative_the_gradient_of_the_whole_loss_lives():
    clean = torch.tensor(reference.photographs()[1:3]).float()
    loss = am.MultiAttackerPrivacyLoss(normalize="fold", weights={"inverted_gray": 1})
    values = {}
    for t in (0, 1e-4, 0.25, 0.49, 0.499, 0.5, 0.501, 0.51, 0.6, 0.75, 1):
        noisy = path(clean, t).requires_grad_()
        value = loss(noisy, clean)
        values[t] = value.item()
        if t != 0.5:  # plain grey, which minmax cannot stretch: the minimum
            norms = len(clean) * torch.autograd.grad(value, noisy)[0].flatten(1).norm(dim=1)
            assert norms.min() >= 1e-6
            assert norms.max() <= 1e2
    assert min(values, key=values.get) == 0.5


def test_gradients_of_every_weighting_per_image_pass_gradcheck():
    noisy, clean = pictures(2, dtype=torch.float64)
    noisy[1] = 0.9 - 0.8 * noisy[1]  # terms of both signs
    weights = torch.tensor([0.3, -2.0], dtype=torch.float64)

    def weighted(x, y):
        return (am.MSSSIM(SMALL, normalize="fold")(x, y) * weights).sum()

    terms = [reference.ms_ssim_terms(x, y, SMALL) for x, y in zip(noisy.numpy(), clean.numpy(), strict=True)]
    assert min(terms[0]) > 0.01
    assert max(terms[1][:1]) < -0.01
    assert torch.autograd.gradcheck(weighted, (noisy.requires_grad_(), clean.requires_grad_()), fast_mode=True)
    loss = small_loss(normalize="fold", weights=WEIGHTS)
    assert torch.autograd.gradcheck(loss, (noisy, clean), fast_mode=True)


def test_training_against_one_ms_ssim_parks_on_a_negative_unless_terms_are_folded():
    clean = torch.tensor(reference.photographs()[:2, :, ::2, ::2]).float()
    leak = {}
    for normalize in ("relu", "fold"):
        weights = {name: float(name == "rgb_clamp") for name in reference.MS_SSIM_NAMES}
        loss = am.MultiAttackerPrivacyLoss(
            betas=(0.3, 0.3, 0.4), compute_pearson=False, weights=weights, normalize=normalize
        )
        noisy = (0.95 - 0.9 * clean).requires_grad_()
        optimizer = torch.optim.Adam([noisy], lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            loss(noisy, clean).backward()
            optimizer.step()
        with torch.no_grad():
            leak[normalize] = am.safe_ms_ssim(1 - noisy, clean, betas=(0.3, 0.3, 0.4)).item()
    assert leak["relu"] > 0.95
    assert leak["fold"] < 0.5


# In a training loop.


class Cloak(nn.Module):
    """A residual convolution that starts as the identity."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, clean):
        return clean + self.convolutions(clean)


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", ["relu", "fold"])
def test_autocast_with_a_gradient_scaler(dtype, normalize):
    clean = pictures(2, 44, 44)[1]
    loss, model = small_loss(normalize=normalize, weights={"inverted_gray": 1}), Cloak()
    loss(model(clean), clean).backward()
    exact = gradients(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=dtype == torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype):
        noisy = model(clean)
        value = loss(noisy.to(dtype), clean.to(dtype))
    assert value.dtype == torch.float32
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    for got, wanted in zip(gradients(model), exact, strict=True):
        assert got.isfinite().all()
        assert (got - wanted).norm() <= 0.15 * wanted.norm()
    before = copy.deepcopy(model.state_dict())
    scaler.step(optimizer)  # skipped if a gradient were not finite
    scaler.update()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert scaler.get_scale() == (2.0**16 if dtype == torch.float16 else 1.0)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    clean = pictures(4)[1]
    loss, model = small_loss(weights=WEIGHTS), Cloak()
    loss(model(clean), clean).backward()
    whole = gradients(model)
    model.zero_grad()
    for part in clean.split(2):
        (loss(model(part), part) / 2).backward()
    for got, wanted in zip(gradients(model), whole, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)


def test_channels_last_gives_the_same():
    clean = pictures(3)[1]
    loss, model = small_loss(weights=WEIGHTS, mean=(0.1,) * 3, std=(0.9,) * 3), Cloak()
    wanted = loss(model(clean), clean)
    wanted.backward()
    plain = gradients(model)
    model = model.to(memory_format=torch.channels_last)
    model.zero_grad()
    value = loss(model(clean.contiguous(memory_format=torch.channels_last)), clean)
    value.backward()
    assert value.item() == pytest.approx(wanted.item(), abs=1e-6)
    for got, expected in zip(gradients(model), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.6, 0.7)}], ids=["plain", "normalised"])
def test_a_prepared_clean_batch_serves_several_steps(settings):
    noisy, clean = pictures(2)
    if settings:
        mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("mean", "std"))
        noisy, clean = (noisy - mean) / std, (clean - mean) / std
    loss = small_loss(**settings, weights=WEIGHTS)
    prepared = loss.prepare(clean)
    for step in range(3):
        here = noisy + 0.1 * step
        torch.testing.assert_close(loss(here, prepared), loss(here, clean), rtol=0, atol=0)
        assert torch.equal(gradient(loss, here, prepared), gradient(loss, here, clean))


def test_preparing_refuses_what_is_not_a_clean_batch():
    loss = small_loss()
    with pytest.raises(ValueError, match=r"lie in \[0, 1\].*mean and std.*span \[-2"):
        loss.prepare(torch.full((1, 3, 22, 22), -2.0))
    with pytest.raises(ValueError, match="must be finite"):
        loss.prepare(spoil(pictures()[1], 0))
    with pytest.raises(TypeError, match="uint8"):
        loss.prepare(torch.zeros(1, 3, 22, 22).byte())
    with pytest.raises(ValueError, match="too small"):
        loss.prepare(torch.rand(1, 3, 21, 22))


@pytest.mark.parametrize("settings", [{}, {"mean": (0.1,) * 3, "std": (0.9,) * 3}], ids=["plain", "denormalising"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_prepared_clean_batch_stays_what_it_was_when_the_batch_changes(settings, dtype):
    noisy, clean = (image.to(dtype) for image in pictures())
    loss = small_loss(**settings)
    prepared = loss.prepare(clean)
    wanted = loss(noisy, prepared)
    clean.zero_()
    assert torch.equal(loss(noisy, prepared), wanted)


def test_a_prepared_clean_batch_does_not_share_the_memory_of_an_array():
    _, clean = pictures()
    array = clean.numpy().copy()
    prepared = small_loss().prepare(torch.from_numpy(array))
    array[...] = 0
    assert torch.equal(prepared.images, clean)


def test_what_is_logged_does_not_change_with_the_returned_loss():
    noisy, clean = pictures()
    leaf = noisy.requires_grad_()
    loss = am.PrivacyRegularizedLoss(nn.MSELoss(), small_loss())
    for of in (loss, loss.privacy):
        value = loss(leaf, clean, leaf, clean) if of is loss else of(leaf, clean)
        logged = {name: score.item() for name, score in of.components.items()}
        value /= 4  # as when gradients are accumulated
        assert {name: score.item() for name, score in of.components.items()} == logged


def test_a_prepared_clean_batch_does_not_show_its_pixels():
    assert repr(small_loss().prepare(pictures()[1])) == "PreparedClean()"


def test_a_family_without_weight_may_have_components_without_weight():
    noisy, clean = pictures()
    loss = small_loss(weights={**dict.fromkeys(reference.PEARSON_NAMES, 0), "pearson": 0})
    assert torch.equal(loss(noisy, clean), loss.components["ms_ssim"])


# Task and privacy in one.


@pytest.mark.parametrize("alpha", [0, 0.25, 1])
def test_the_two_parts_are_interpolated_and_logged(alpha):
    noisy, clean = pictures()
    logits, labels = torch.randn(2, 5), torch.tensor([1, 4])
    loss = am.PrivacyRegularizedLoss(nn.CrossEntropyLoss(), small_loss(), alpha=alpha)
    leaf, head = noisy.requires_grad_(), logits.requires_grad_()
    value = loss(leaf, clean, head, labels)
    task, privacy = nn.functional.cross_entropy(logits, labels), loss.privacy(noisy, clean)
    assert value.item() == pytest.approx(float(((1 - alpha) * task + alpha * privacy).detach()), abs=1e-6)
    assert list(loss.components) == ["total", "task", "privacy", *reference.NAMES]
    split = [loss.components[name].item() for name in ("total", "task", "privacy")]
    assert split == pytest.approx([value.item(), task.item(), privacy.item()], abs=1e-6)
    value.backward()
    assert (leaf.grad.abs().max() > 0) == (alpha > 0)
    assert (head.grad.abs().max() > 0) == (alpha < 1)  # a gradient either way, as DDP wants


def test_alpha_may_follow_a_schedule_of_the_training_step():
    noisy, clean = pictures()
    loss = am.PrivacyRegularizedLoss(nn.MSELoss(), small_loss(), alpha=lambda step: step / 10)
    for step in (0, 5, 10):
        value = loss(noisy, clean, noisy, clean, step=step)
        split = loss.components
        assert value.item() == pytest.approx(float((1 - step / 10) * split["task"] + step / 10 * split["privacy"]), abs=1e-6)
    with pytest.raises(ValueError, match="pass the training step"):
        loss(noisy, clean, noisy, clean)
    with pytest.raises(ValueError, match=r"\[0, 1\].*got 1.1"):
        loss(noisy, clean, noisy, clean, step=11)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_an_alpha_outside_zero_and_one_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]"):
        am.PrivacyRegularizedLoss(nn.MSELoss(), alpha=alpha)


def test_weights_take_both_spellings_of_a_name_but_not_at_once():
    clean = torch.rand(1, 3, 22, 22)
    losses = [
        am.MultiAttackerPrivacyLoss(betas=SMALL, weights={name: 3})(0.7 * clean, clean)
        for name in ("standardize_gray", "standardise_grey")
    ]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="twice, in two spellings"):
        am.MultiAttackerPrivacyLoss(weights={"gray_clamp": 1, "grey_clamp": 2})
