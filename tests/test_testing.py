"""The public tester: our classes and a user's own attacker pass; every broken one fails, in words that name the fault."""

import copy
import io
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CASES, SMALL, pictures
from PIL import Image
from torch import nn

import attacker_metrics as am
from attacker_metrics import AttackerMetric, Component, SquaredPearson
from attacker_metrics.attackers import clamp, luma
from attacker_metrics.attackers.filters import Equalize, invert
from attacker_metrics.reading.learned import LinearAttacker, LinearAttackerMSSSIM, LinearAttackerPearson
from attacker_metrics.testing import CHECKS, check_attacker


def metric_of(*noisy, similarity=None, clean=(), **settings):
    return AttackerMetric(Component("own", similarity or SquaredPearson(), noisy=noisy, clean=clean), **settings)


def fitted(metric, seed=0, factor=1.0):
    noisy, clean = pictures(6, 24, 24, seed=seed)
    metric.fit_update(factor * noisy, clean, ids=range(6))
    metric.fit_compute()
    return metric


# --- what passes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_classes_pass(case):
    check_attacker(case.make())


def as_jpeg(images):
    def compressed(image):
        file = io.BytesIO()
        Image.fromarray(image.clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()).save(file, "jpeg", quality=60)
        return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255

    return torch.stack([compressed(image) for image in images.detach()]).to(images)


class JPEGPearson(AttackerMetric):
    is_differentiable = False

    def __init__(self, **kwargs):
        super().__init__(Component("jpeg", SquaredPearson(), noisy=(as_jpeg,), clean=(as_jpeg,)), **kwargs)


class Inverting(AttackerMetric):
    """A method of the metric as its attacker, and a score of its own."""

    def __init__(self, power=1.0, **kwargs):
        super().__init__(Component("inverting", am.MSSSIM(SMALL), noisy=(clamp, self.invert)), **kwargs)
        self.power = power

    @staticmethod
    def invert(x):
        return x.neg_().add_(1)  # it may write to what it is given, which is a copy

    def scores(self, pair):
        return super().scores(pair).clamp_min(1e-3) ** self.power


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 1))


@pytest.mark.parametrize(
    "make",
    [
        JPEGPearson,
        Inverting,
        lambda: metric_of(network()),
        lambda: metric_of(clamp, Equalize(), clean=(clamp,)),
        lambda: metric_of(luma, clamp, invert, clean=(luma,)),
        lambda: fitted(LinearAttackerMSSSIM(LinearAttacker(3), betas=SMALL)),
    ],
    ids=["JPEG", "inverting", "network", "equalize", "invert", "linear"],
)
def test_attackers_of_ones_own_pass(make):
    check_attacker(make())


def test_the_metric_is_left_as_it_was():
    metric = metric_of(torch.negative)
    noisy, clean = pictures(3, 24, 24, seed=1)
    metric.update(noisy, clean)
    before, value = copy.deepcopy(metric.metric_state), metric.compute()
    check_attacker(metric)
    assert metric.metric_state == before
    assert metric.compute() == value


def test_pictures_of_ones_own_are_taken():
    def only_this_size(images):
        if images.shape[2:] != (30, 33):
            raise ValueError("30 x 33 only.")
        return images

    globals()["only_this_size"] = only_this_size
    only_this_size.__qualname__ = "only_this_size"
    metric = metric_of(only_this_size)
    check_attacker(metric, noisy=torch.rand(6, 3, 30, 33), clean=torch.rand(6, 3, 30, 33))
    with pytest.raises(AssertionError, match=r"pictures: raised ValueError: 30 x 33 only\. Pass pictures that"):
        check_attacker(metric)


def test_it_needs_no_test_framework():
    program = (
        "import sys; sys.modules['pytest'] = None; import torch, attacker_metrics as am;"
        " from attacker_metrics.testing import check_attacker;"
        " check_attacker(am.AttackerMetric(am.Component('negative', am.SquaredPearson(), noisy=(torch.negative,))))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- what fails -----------------------------------------------------------------------------------------------------------


def of_the_batch(images):
    return (images - images.mean()).relu()


def one_for_all(images):
    return images.mean(dim=0, keepdim=True)


def an_array(images):
    return images.numpy()


def noise(images):
    return images + torch.rand_like(images)


def noise_of_numpy(images):
    return images + torch.from_numpy(np.random.normal(size=images.shape)).to(images)  # noqa: NPY002


def noise_of_its_own(images):
    return images + torch.from_numpy(np.random.default_rng().normal(size=images.shape)).to(images)


def noise_of_python(images):
    return images * random.random()


def seeding(images):
    torch.manual_seed(0)
    return images + torch.rand_like(images)


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images.clamp(0, 1) ** self.calls


class RunningMean:
    """As batch normalisation by hand: what it has seen stays."""

    def __init__(self):
        self.mean = torch.zeros(())

    def __call__(self, images):
        self.mean = 0.5 * self.mean + 0.5 * images.detach().mean().to(self.mean)
        return (images - self.mean).square()


def half(images):
    return images.half()


def always_float32(images):
    return images.float()


def standardized(images):
    return (images - images.mean(dim=(1, 2, 3), keepdim=True)) / images.std(dim=(1, 2, 3), keepdim=True)


def rooted(images):
    return images.abs().sqrt()


def by_view(images):
    return images.view(len(images), -1).flip(1).view(images.shape)


def without_gradient(images):
    return images.detach() ** 2


def of_numpy(images):
    return torch.from_numpy(images.numpy() ** 2)


def constant(images):
    return torch.ones_like(images).requires_grad_()


def distance(noisy, clean):
    return 10 * (noisy - clean).abs().mean(dim=(1, 2, 3))


def batch_distance(noisy, clean):
    return (noisy - clean).abs().mean().expand(len(noisy))


class Own(AttackerMetric):
    def __init__(self, *noisy, **kwargs):
        super().__init__(Component("own", SquaredPearson(), noisy=noisy or (clamp,)), **kwargs)


class InPlace(Own):
    def update(self, preds, target=None):
        super().update(preds.clamp_(0, 1) if target is not None else preds, target)


class InPlaceScores(Own):
    def scores(self, pair):
        pair._given[0].mul_(0.5)
        return super().scores(am.Pair(*pair._given))


class MeanOfMeans(Own):
    """Averages the batches' means."""

    def __init__(self):
        super().__init__()
        self.add_state("means", torch.zeros(()), dist_reduce_fx="mean")
        self.add_state("batches", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds, target=None):
        super().update(preds, target)
        if len(preds):
            pair = preds if target is None else am.Pair(preds, target)
            self.means, self.batches = self.means + self.scores(pair).mean(), self.batches + 1

    def compute(self):
        return self.means / self.batches


class Listing(Own):
    """A list of scores, which no rank without pictures has, and which are never joined."""

    is_differentiable = False

    def __init__(self):
        super().__init__()
        self.add_state("values", [], dist_reduce_fx=None)

    def update(self, preds, target=None):
        super().update(preds, target)
        if len(preds):
            pair = preds if target is None else am.Pair(preds, target)
            self.values.append(self.scores(pair).detach()[pair.finite])

    def compute(self):
        super().compute()
        values = self.values if isinstance(self.values, list) else [self.values]
        return torch.cat(values).mean() if values else torch.tensor(torch.nan)


class ZeroOfNothing(Own):
    def compute(self):
        return super().compute().nan_to_num(0.0)


class KeepsBadPictures(Own):
    def scores(self, pair):
        scores = super().scores(pair)
        return scores * pair.finite.float().mean()


class SameForAll(Own):
    """Two of other settings count as one: its words leave the power out."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def scores(self, pair):
        return super().scores(pair) ** self.power

    def __metric_identity__(self):
        return "same"


class Holding(Own):
    def __init__(self):
        super().__init__()
        self.stream = (number for number in range(3))


class ForgetsOnPickle(Own):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.reset()


class WithHandle:
    """What pickle makes anew as something that cannot be told from others."""

    def __reduce__(self):
        return WithHandle, ()

    def __call__(self, images):
        return images

    def __metric_identity__(self):
        return id(self)


BROKEN = {
    "batch": (lambda: metric_of(of_the_batch), "image by image: a picture's score depends on the others in its batch"),
    "batch similarity": (
        lambda: metric_of(similarity=batch_distance),
        "image by image: a picture's score depends on the others in its batch",
    ),
    "one view for all": (lambda: metric_of(one_for_all), "attackers alone: .*one view per image"),
    "an array": (lambda: metric_of(an_array), "attackers alone: .*one view per image.*got a ndarray"),
    "random": (lambda: metric_of(noise), "repetition: it draws random numbers"),
    "random numpy": (lambda: metric_of(noise_of_numpy), "repetition: it draws random numbers"),
    "random python": (lambda: metric_of(noise_of_python), "repetition: it draws random numbers"),
    "random of its own": (
        lambda: metric_of(noise_of_its_own),
        "repetition: the same pictures score .* or draws random numbers",
    ),
    "seeding": (lambda: metric_of(seeding), "repetition: it draws random numbers from, or seeds, the generators"),
    "counting": (lambda: metric_of(Counting()), "repetition: the same pictures score .* keeps a state from call to call"),
    "running mean": (lambda: metric_of(RunningMean()), "repetition: the same pictures score .* keeps a state"),
    "lambda": (lambda: metric_of(lambda x: 1 - x), "pickle: it cannot be pickled.* at the top of a module"),
    "half": (
        lambda: metric_of(half),
        "attackers alone: the attacker .* changes the dtype: it returns torch.float16 for torch.f",
    ),
    "float32": (
        lambda: metric_of(always_float32),
        "attackers alone: .* changes the dtype: it returns torch.float32 for torch.f",
    ),
    "flat": (lambda: metric_of(standardized), "odd pictures: the score of flat sent pictures is nan"),
    "out of range": (lambda: metric_of(similarity=distance), r"odd pictures: the score of .* outside of \[0, 1\]"),
    "root": (lambda: metric_of(rooted), "gradients: the gradient of .* pictures is (nan|-?inf)"),
    "view": (lambda: metric_of(by_view), r"strides and half precision: .*channels_last raise RuntimeError.* use \.reshape"),
    "no gradient": (lambda: metric_of(without_gradient), "gradients: its value has no gradient, although is_differentiable"),
    "numpy": (lambda: metric_of(of_numpy), r"gradients: pictures that require a gradient raise RuntimeError.*x\.detach\(\)"),
    "constant": (lambda: metric_of(constant), "gradients: its value does not depend on"),
    "in place": (InPlace, "pictures: update writes to the noisy pictures in place"),
    "in place scores": (InPlaceScores, "pictures: scores writes to the noisy pictures in place"),
    "mean of means": (MeanOfMeans, "mean: the value depends on the batches"),
    "list": (Listing, "uneven ranks: processes with uneven shares would wait for ever"),
    "zero of nothing": (ZeroOfNothing, "empty batch: of no picture at all compute returns 0"),
    "bad pictures": (KeepsBadPictures, "non-finite pixels: a picture with a pixel that is nan makes the mean"),
    "generator": (Holding, "copy: copy.deepcopy raised TypeError"),
    "forgets": (ForgetsOnPickle, "pickle: a pickled copy has the value nan"),
    "another identity": (lambda: metric_of(WithHandle()), "pickle: a pickled copy counts as another metric"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_attacker_fails_in_the_right_words(fault):
    make, words = BROKEN[fault]
    with pytest.raises(AssertionError, match=words):
        check_attacker(make())


def test_settings_that_do_not_count_are_found_beside_others():
    check = {name: CHECKS[name] for name in ("merge", "compute groups")}
    assert len(check) == 2
    with pytest.raises(AssertionError, match="merge: metric 1 of the others counts as the same"):
        check_attacker(SameForAll(1.0), SameForAll(2.0))


def test_another_fit_and_other_settings_count_as_others():
    check_attacker(
        fitted(LinearAttackerPearson(LinearAttacker(3))),
        fitted(LinearAttackerPearson(LinearAttacker(3)), factor=0.5),
        am.BlurPearson(blur_sigma=3),
    )


def test_an_error_of_the_attacker_is_the_cause():
    class RaisingError(Exception):
        pass

    def attacker(_):
        raise RaisingError("out of order")

    with pytest.raises(AssertionError, match="attackers alone: raised RaisingError: out of order") as caught:
        check_attacker(metric_of(attacker))
    assert isinstance(caught.value.__cause__, RaisingError)


def test_an_attacker_that_has_not_been_fitted_is_told():
    with pytest.raises(AssertionError, match="raised NotFittedError"):
        check_attacker(LinearAttackerPearson())


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "words"),
    [
        ((torch.nn.Identity(),), {}, TypeError, "takes an AttackerMetric, got Identity"),
        ((am.BlurPearson,), {}, TypeError, "takes an AttackerMetric, got "),
        ((am.BlurPearson(), 3), {}, TypeError, "takes an AttackerMetric, got int"),
        ((am.BlurPearson(),), {"noisy": torch.rand(6, 3, 24, 24)}, ValueError, "give both or neither"),
        (
            (am.BlurPearson(),),
            dict.fromkeys(("noisy", "clean"), torch.rand(5, 3, 24, 24)),
            ValueError,
            "at least 6 .* got 5",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, settings, error, words):
    with pytest.raises(error, match=words):
        check_attacker(*arguments, **settings)
