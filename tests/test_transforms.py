"""The functions and losses inside ``torch.func``: derivatives, maps over a further dimension, and what is refused."""

import pytest
import torch
from conftest import SMALL, spoil, warns_once
from torch.func import grad, grad_and_value, hessian, jacfwd, jacrev, vjp, vmap

import attacker_metrics as am
from attacker_metrics import MSSSIM, Component, Pair
from attacker_metrics.attackers.filters import JPEG, Equalize, Unsharp, Wiener, invert, median
from attacker_metrics.attackers.standard import Blur, Gamma, Wavelet, clamp, luma, minmax, sobel, standardize

ATTACKERS = (luma, clamp, minmax, sobel, standardize, Blur(), Gamma(0.5), Wavelet(), invert, Equalize(16), median)
ATTACKERS += (Unsharp(), Wiener(), JPEG())


def images(dtype=torch.float64):
    clean = torch.rand(3, 3, 24, 23, dtype=torch.float64)
    return (0.7 * clean + 0.5 * torch.rand_like(clean) - 0.1).to(dtype), clean.to(dtype)


def privacy_loss(noisy, clean):
    means = am.multi_attacker_privacy_loss(noisy, clean, betas=SMALL)
    return means["ms_ssim"] + 0.5 * means["pearson"]


def total_score(noisy, clean):
    scores = am.multi_attacker_scores(noisy, clean, betas=SMALL)
    return (scores["sobel_gray"] + 2 * scores["gamma_gray"] + scores["pearson_wavelet"]).sum()


def own_attacker(noisy, clean):
    component = Component("mine", MSSSIM(SMALL), (luma, lambda x: x * 0.9, Blur(1.0)), (luma,))
    return Pair(noisy, clean).score(component).sum()


WEIGHTED = {"weights": {"inverted_gray": 0.5, "blur_gray": 2}, "betas": SMALL}
NUMBERS = {
    "loss": privacy_loss,
    "scores": total_score,
    "pearson_sq_mean": am.pearson_sq_mean,
    "safe_ms_ssim": lambda x, y: am.safe_ms_ssim(x, y, betas=SMALL),
    "fold": am.MultiAttackerPrivacyLoss(**WEIGHTED, normalize="fold"),
    "denormalising": am.MultiAttackerPrivacyLoss(**WEIGHTED, mean=(0.1,) * 3, std=(0.8,) * 3),
    "own attacker": own_attacker,
    "regularized": lambda x, y: am.PrivacyRegularizedLoss(torch.nn.MSELoss(), NUMBERS["fold"])(x, y, x, y),
}
every_number = pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)


def by_autograd(number, noisy, clean):
    inputs = [image.clone().requires_grad_() for image in (noisy, clean)]
    return torch.autograd.grad(number(*inputs), inputs)


def equal(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@every_number
def test_gradients_are_those_of_autograd(number):
    noisy, clean = images()
    wanted = by_autograd(number, noisy, clean)
    equal(grad(number)(noisy, clean), wanted[0])
    equal(grad(number, argnums=(0, 1))(noisy, clean), wanted)
    slopes, value = grad_and_value(number)(noisy, clean)
    equal(slopes, wanted[0])
    equal(value, number(noisy, clean))
    output, pull_back = vjp(number, noisy, clean)
    equal(pull_back(2 * torch.ones_like(output)), tuple(2 * slope for slope in wanted))


@every_number
def test_a_mapped_dimension_gives_what_a_loop_gives(number):
    noisy, clean = images()
    pairs = [(a[None], b[None]) for a, b in zip(noisy, clean, strict=True)]

    def one(a, b):
        return number(a[None], b[None])

    wanted = torch.stack([by_autograd(number, *pair)[0][0] for pair in pairs])
    equal(vmap(one)(noisy, clean), torch.stack([number(*pair) for pair in pairs]))
    equal(vmap(grad(one))(noisy, clean), wanted)  # of every sample its own gradient
    equal(grad(lambda x: vmap(one)(x, clean).sum())(noisy), wanted)
    equal(vmap(grad(one), in_dims=(3, None))(noisy.movedim(0, 3), clean[0])[0], by_autograd(number, *pairs[0])[0][0])
    leaf = noisy.clone().requires_grad_()  # the gradient is wanted outside the map only
    vmap(one)(leaf, clean).sum().backward()
    equal(leaf.grad, wanted)


def test_two_mapped_dimensions():
    noisy, clean = images()
    stacked = torch.stack([noisy, noisy.flip(0)])
    found = vmap(vmap(lambda a, b: privacy_loss(a[None], b[None])), in_dims=(0, None))(stacked, clean)
    for row, batch in zip(found, stacked, strict=True):
        equal(row, torch.stack([privacy_loss(a[None], b[None]) for a, b in zip(batch, clean, strict=True)]))


def test_a_jacobian_holds_the_gradient_of_every_score():
    noisy, clean = images()
    found = jacrev(lambda x: am.multi_attacker_scores(x, clean, betas=SMALL)["ms_ssim"])(noisy)
    assert found.shape == (3, *noisy.shape)
    for k in range(3):
        leaf = noisy.clone().requires_grad_()
        equal(found[k], torch.autograd.grad(am.multi_attacker_scores(leaf, clean, betas=SMALL)["ms_ssim"][k], leaf)[0])
        assert found[k, [i for i in range(3) if i != k]].abs().max() == 0


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no rule for the histogram's sum
@pytest.mark.parametrize("attacker", ATTACKERS, ids=lambda attacker: getattr(attacker, "__name__", None) or repr(attacker))
def test_attackers_can_be_mapped_and_differentiated(attacker):
    noisy, _ = images()
    weights = torch.rand_like(attacker(noisy))

    def one(image, weight):
        return (attacker(image[None])[0] * weight).sum()

    leaf = noisy.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((attacker(leaf) * weights).sum(), leaf)
    equal(vmap(grad(one))(noisy, weights), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_keep_the_dtype_of_the_image(dtype):
    noisy, clean = images(dtype)
    (wanted, _) = by_autograd(privacy_loss, noisy, clean)
    found = grad(privacy_loss)(noisy, clean)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted)
    assert vmap(grad(lambda a, b: privacy_loss(a[None], b[None])))(noisy, clean).dtype == dtype


def test_a_mapped_image_that_is_not_finite_is_warned_of_once_and_leaves_the_others_alone():
    noisy, clean = images()
    one = vmap(grad_and_value(lambda a, b: privacy_loss(a[None], b[None])))
    wanted = one(noisy, clean)
    with warns_once("1 of 3 pairs of images hold NaN"):
        slopes, values = one(spoil(noisy, 1), clean)
    assert values[1] == 0
    assert slopes[1].abs().max() == 0
    equal(values[[0, 2]], wanted[1][[0, 2]])
    equal(slopes[[0, 2]], wanted[0][[0, 2]])


def test_a_loss_keeps_no_dead_tensors_of_a_transform():
    noisy, clean = images()
    loss = am.MultiAttackerPrivacyLoss(betas=SMALL)
    loss(noisy, clean)
    assert loss.components
    grad(loss)(noisy, clean)
    assert loss.components == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # of torch's own forward mode
@pytest.mark.parametrize("transform", [jacfwd, hessian], ids=["jacfwd", "hessian"])
def test_what_needs_forward_mode_says_what_to_use(transform):
    noisy, clean = images()
    with pytest.raises(NotImplementedError, match=r"jvp, jacfwd, hessian.*grad, vjp and jacrev"):
        transform(lambda x: privacy_loss(x, clean))(noisy)


def test_a_second_derivative_is_a_clear_error():
    noisy, clean = images()
    with pytest.raises(RuntimeError, match="differentiated once only"):
        grad(lambda x: grad(privacy_loss)(x, clean).square().sum())(noisy)


@pytest.mark.parametrize("metric", [am.RGBPearson(), am.MultiAttackerPrivacy(betas=SMALL)], ids=["one", "collection"])
def test_metrics_which_count_name_the_functions(metric):
    noisy, clean = images()
    for transformed in (grad(lambda x: metric(x, clean)), vmap(lambda x: metric(x[None], clean[:1]))):
        with pytest.raises(NotImplementedError, match="use multi_attacker_scores or multi_attacker_privacy_loss"):
            transformed(noisy)
