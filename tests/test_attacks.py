"""Attacks: what is shared, the parts against plain references, and the published behaviour at small budgets."""

import copy
import json
import math
import sys
from collections import OrderedDict
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from reference import photographs
from torch import nn

from attacker_metrics import AttackerMetricsWarning
from attacker_metrics.attacks import (
    ATTACKS,
    DLG,
    IDLG,
    ConvNet,
    GradientInversion,
    GradInversion,
    InvertingGradients,
    Normalize,
    SigmoidLeNet,
    digest,
    first_layer_closed_form,
    infer_labels,
    share_gradients,
)
from attacker_metrics.attacks.costs import cosine_distance, layer_distances, squared_distance
from attacker_metrics.attacks.optimizers import LBFGS, Adam
from attacker_metrics.attacks.priors import LayerInput, batch_norm_statistics, image_norm, total_variation
from attacker_metrics.defenses import Compose, GaussianNoise, LowBitQuantization, MagnitudePruning, SignQuantization

LABELS = torch.tensor([3, 1, 7, 2])


def photos(size, dtype=torch.float64):
    return torch.tensor(photographs(size, size)).to(dtype)


def psnr(found, original):
    return [float(-10 * torch.log10((a - b).square().mean())) for a, b in zip(found, original, strict=True)]


def lenet(size=8, dtype=torch.float64, **settings):
    return SigmoidLeNet(size=size, **settings).to(dtype)


def convnet(size=9, width=2):
    """Double precision, with running statistics that are not those of an untrained network."""
    network = ConvNet(width=width, size=size).double()
    network(torch.rand(16, 3, size, size, dtype=torch.float64))
    return network


def autograd(network, images, labels):
    """Gradients of one client, the plain way."""
    loss = F.cross_entropy(network(images), labels)
    parameters = dict(network.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


# Sharing


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("clients", [1, 2])
def test_what_is_shared_is_each_clients_own_gradient(train, group, clients):
    network = convnet()
    images = torch.rand(clients, group, 3, 9, 9, dtype=torch.float64)
    labels = torch.randint(10, (clients, group))
    before = copy.deepcopy(network.state_dict())
    shared = share_gradients(network, images, labels, train=train)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for client in range(clients):
        plain = autograd(copy.deepcopy(network).train(train), images[client], labels[client])
        for name, gradient in plain.items():
            torch.testing.assert_close(shared.gradients[name][client], gradient, rtol=1e-9, atol=1e-12)
    assert shared.threat_model.batch_norm == ("batch statistics" if train else "running statistics")


def test_dropout_is_off_and_frozen_parameters_are_not_shared():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Dropout(0.9), nn.Linear(8, 3)).train()
    network[1].weight.requires_grad_(False)
    first, second = (share_gradients(network, torch.ones(1, 3, 4, 4), torch.tensor([1])) for _ in range(2))
    assert set(first.gradients) == {"1.bias", "3.weight", "3.bias"}
    assert all(torch.equal(first.gradients[name], second.gradients[name]) for name in first.gradients)
    assert first.threat_model.batch_norm == "none"
    with pytest.raises(ValueError, match="nothing to share"):
        share_gradients(network.requires_grad_(False), torch.ones(1, 3, 4, 4), torch.tensor([1]))


def test_a_defended_gradient_does_not_depend_on_who_else_shares():
    network, images = lenet(), photos(8)
    settings = {"defenses": [Compose(MagnitudePruning(0.3), GaussianNoise(0.1))], "seed": 4}
    together = share_gradients(network, images, LABELS, **settings)
    alone = share_gradients(network, images[2:3], LABELS[2:3], clients=[2], **settings)
    for name in together.gradients:
        torch.testing.assert_close(together[2:3].gradients[name], alone.gradients[name], rtol=1e-9, atol=1e-9)
    other = share_gradients(network, images, LABELS, defenses=settings["defenses"], seed=5)
    assert not torch.equal(other.gradients["1.weight"], together.gradients["1.weight"])


def test_the_threat_model_says_what_was_attacked_and_holds_no_pixel():
    network, images = lenet(), photos(8)
    shared = share_gradients(network, images, LABELS, defenses=[MagnitudePruning(0.5)], epoch=7)
    found = InvertingGradients(iterations=2, knows_defenses=True)(network, shared[[1, 3]])
    told = json.loads(json.dumps(found.threat_model.to_dict()))
    assert told["views"] == [digest(images[1:2]), digest(images[3:4])]
    assert told["view_shape"] == [1, 3, 8, 8]
    assert (told["epoch"], told["labels"], told["batch_norm"]) == (7, "known", "none")
    assert told["defenses"] == ["MagnitudePruning(share=0.5)"]
    assert (told["knows_defenses"], told["knows_checkpoint"], told["attack"]) == (True, True, "InvertingGradients")
    assert told["settings"]["priors"] == [[InvertingGradients().total_variation, "total_variation"]]
    assert told["settings"]["cost"] == "cosine_distance"
    assert len(json.dumps(told)) < 3000
    assert shared.threat_model.labels is None
    another = lenet()
    assert InvertingGradients(iterations=1)(another, shared).threat_model.knows_checkpoint is False


@pytest.mark.parametrize(
    ("error", "words", "images", "labels"),
    [
        (TypeError, "images / 255", torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([1])),
        (TypeError, "labels must be integers", torch.zeros(1, 3, 8, 8), torch.tensor([1.0])),
        (ValueError, r"got \(3, 8, 8\)", torch.zeros(3, 8, 8), torch.tensor([1])),
        (ValueError, "N at least 1", torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64)),
        (ValueError, "N at least 1", torch.zeros(2, 0, 3, 8, 8), torch.zeros(2, 0, dtype=torch.int64)),
        (ValueError, "from 0 to 9, the model's classes; got 1 to 10", torch.zeros(2, 3, 8, 8), torch.tensor([1, 10])),
        (ValueError, "got -100 to -100", torch.zeros(1, 3, 8, 8), torch.tensor([-100])),
        (ValueError, r"must be \(2, 1\), got \(2,\)", torch.zeros(2, 1, 3, 8, 8), torch.tensor([1, 1])),
        (ValueError, r"\[0, 1\], got \[0, 2\]", torch.linspace(0, 2, 192).view(1, 3, 8, 8), torch.tensor([1])),
        (ValueError, "normalisation belongs", torch.full((1, 3, 8, 8), float("nan")), torch.tensor([1])),
    ],
)
def test_mistakes_in_sharing_are_named(error, words, images, labels):
    with pytest.raises(error, match=words):
        share_gradients(SigmoidLeNet(size=8), images, labels)


def test_gradients_that_are_not_finite_or_clients_without_numbers_are_told():
    network = SigmoidLeNet(size=8)
    with pytest.raises(ValueError, match="number each of the 2 clients"):
        share_gradients(network, torch.zeros(2, 3, 8, 8), torch.tensor([1, 2]), clients=[1])
    network[1].weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        share_gradients(network, torch.zeros(1, 3, 8, 8), torch.tensor([1]))


class Odd(nn.Module):
    """Attention, batch norm with and without statistics, and a layer that nothing goes into."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.bare = (
            nn.Conv2d(3, 8, 4, 4),
            nn.BatchNorm2d(8),
            nn.BatchNorm2d(8, track_running_stats=False),
        )
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.auxiliary, self.head = nn.BatchNorm2d(4), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.attention(self.bare(self.norm(self.patches(x))).flatten(2).transpose(1, 2)).mean(1))


def test_networks_of_attention_and_of_several_kinds_of_batch_norm_are_attacked():
    torch.manual_seed(0)
    network, images, labels = Odd().eval(), photos(8, torch.float32)[:2], LABELS[:2]
    shared = share_gradients(network, images, labels)
    expected = torch.autograd.grad(F.cross_entropy(network(images[:1]), labels[:1]), network.head.weight)[0]
    torch.testing.assert_close(shared.gradients["head.weight"][0], expected)
    assert shared.threat_model.batch_norm == "running statistics, and batch statistics in layers that keep none"
    found = GradInversion(iterations=2)(network, shared)
    assert found.loss.isfinite().all()
    for clients in (shared, shared[:1]):
        assert InvertingGradients(iterations=2)(network, clients).loss.isfinite().all()


def test_bfloat16_pictures_have_digests_and_small_integers_are_labels():
    network, image = SigmoidLeNet(size=8), torch.full((1, 3, 8, 8), 0.5)
    shared = share_gradients(network, image.bfloat16(), torch.tensor([1], dtype=torch.uint8))
    assert shared.threat_model.views == (digest(image.bfloat16()),)
    assert digest(image.bfloat16()) != digest(image)
    found = InvertingGradients(iterations=1)(network, shared)
    assert found.labels.tolist() == [1]


# Parts


def gradients(seed):
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=draws, dtype=torch.float64) for name, shape in {"w": (3, 2), "b": (3,)}.items()
    }


def test_costs_are_the_formulas_on_the_flat_vector():
    a, b = gradients(0), gradients(1)
    flat_a, flat_b = (torch.cat([g[name].flatten() for name in g]) for g in (a, b))
    assert float(squared_distance(a, b)) == pytest.approx(float((flat_a - flat_b).norm() ** 2))
    assert float(cosine_distance(a, b)) == pytest.approx(1 - float(F.cosine_similarity(flat_a, flat_b, dim=0)))
    assert float(layer_distances(a, b)) == pytest.approx(sum(float((a[name] - b[name]).norm()) for name in a))


@pytest.mark.parametrize("cost", [squared_distance, cosine_distance, layer_distances])
def test_costs_have_finite_slopes_where_gradients_agree_or_vanish(cost):
    for shared in (gradients(0), {name: torch.zeros_like(value) for name, value in gradients(0).items()}):
        candidate = {name: value.clone().requires_grad_() for name, value in shared.items()}
        slopes = torch.autograd.grad(cost(candidate, shared), list(candidate.values()))
        assert all(slope.isfinite().all() for slope in slopes)
    assert abs(float(cost(gradients(0), gradients(0)))) < 1e-12


def test_batch_norm_prior_is_zero_at_the_running_statistics_and_counts_both():
    features = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    mean, variance = features.mean(dim=(0, 2, 3)), features.var(dim=(0, 2, 3), unbiased=False)
    assert float(batch_norm_statistics(features, [LayerInput(features, mean, variance)])) < 1e-12
    off = batch_norm_statistics(
        features, [LayerInput(features, mean + 1, variance), LayerInput(features, mean, variance - 1)]
    )
    assert float(off) == pytest.approx(2 + 2)


def test_picture_priors_are_the_formulas():
    images = photos(8)[:2]
    down, across = images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]
    assert float(total_variation(images)) == pytest.approx(float(down.abs().mean() + across.abs().mean()))
    assert float(image_norm(images)) == pytest.approx(float((images - 0.5).flatten(1).norm(dim=1).mean()))


def quartic(rows):
    """Independent problems, one per row; smooth, not quadratic."""
    scale = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype)
    return ((rows - 1).pow(2) * scale).sum(dim=1) + 0.1 * rows.pow(4).sum(dim=1)


@pytest.mark.parametrize("history", [3, 100])
def test_rows_of_lbfgs_are_the_iterates_of_torchs(history):
    start = torch.randn(3, 6, dtype=torch.float64)
    rows = start.clone()
    run = LBFGS(learning_rate=0.3, history=history).start(rows, 12)
    for step in range(12):
        variable = rows.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(quartic(variable).sum(), variable)
        rows = run.step(rows, gradient)
        if step == 5:
            run.keep(torch.tensor([0, 2]))
            rows = rows[[0, 2]]
    for row, begin in zip(rows, start[[0, 2]], strict=True):
        plain = begin.clone().requires_grad_()
        reference = torch.optim.LBFGS(
            [plain], lr=0.3, history_size=history, max_iter=12, max_eval=100, tolerance_grad=0, tolerance_change=0
        )

        def closure(plain=plain, reference=reference):
            reference.zero_grad()
            loss = quartic(plain[None]).sum()
            loss.backward()
            return loss

        reference.step(closure)
        torch.testing.assert_close(row, plain.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("signed", [False, True])
def test_rows_of_adam_are_those_of_torchs_with_its_schedule(signed):
    start = torch.randn(2, 5, dtype=torch.float64)
    run = Adam(0.1, signed=signed, schedule="steps").start(start, 16)
    plain = start.clone().requires_grad_()
    reference = torch.optim.Adam([plain], lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(reference, [6, 10, 14], gamma=0.1)
    rows = start
    for step in range(16):
        variable = rows.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(quartic(variable).sum(), variable)
        rows = run.step(rows, gradient)
        reference.zero_grad()
        quartic(plain).sum().backward()
        if signed:
            plain.grad.sign_()
        reference.step()
        schedule.step()
        torch.testing.assert_close(rows, plain.detach()[-len(rows) :], rtol=1e-9, atol=1e-9)
        if step == 7:
            run.keep(torch.tensor([1]))
            rows = rows[1:]


def test_labels_are_read_off_the_last_layer():
    network = lenet()
    assert torch.equal(infer_labels(network, share_gradients(network, photos(8), LABELS).gradients), LABELS[:, None])
    groups = share_gradients(network, photos(8).view(2, 2, 3, 8, 8), LABELS.view(2, 2))
    assert torch.equal(infer_labels(network, groups.gradients, 2).sort().values, LABELS.view(2, 2).sort().values)


def test_labels_of_a_group_are_read_where_inputs_of_the_last_layer_have_both_signs():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.Tanh(), nn.Flatten(), nn.Linear(784, 100))
    labels = torch.stack([torch.randperm(100)[:4] for _ in range(6)])
    shared = share_gradients(network, photos(32, torch.float32)[torch.randint(4, (6, 4))], labels)
    assert torch.equal(infer_labels(network, shared.gradients, 4).sort().values, labels.sort().values)
    by_sums = shared.gradients["3.weight"].sum(dim=2).argsort(dim=1)[:, :4]
    assert not torch.equal(by_sums.sort().values, labels.sort().values)


ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "relu": nn.ReLU, "softplus-like": nn.LogSigmoid}
DEFENDED = {
    "nothing": [],
    "noise": [GaussianNoise(1e-2)],
    "pruning": [MagnitudePruning(0.9)],
    "signs": [SignQuantization()],
    "few bits": [LowBitQuantization(3)],
}


def smooth(activation, classes, *, bias=True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 4), ACTIVATIONS[activation](), nn.Flatten(), nn.Linear(8 * 49, classes, bias=bias)
    )


@pytest.mark.parametrize("defended", list(DEFENDED))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_bias_tells_every_label_whatever_the_activation(activation, defended):
    images = torch.rand(24, 3, 32, 32) * torch.rand(24, 3, 1, 1)
    for classes in (2, 3, 20):
        labels = torch.arange(24) % classes
        network = smooth(activation, classes)
        shared = share_gradients(network, images, labels, defenses=DEFENDED[defended])
        assert infer_labels(network, shared.gradients, classes=classes)[:, 0].tolist() == labels.tolist()


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh"])
def test_without_a_bias_the_odd_row_tells_the_label_of_three_classes_or_more(activation):
    images = torch.rand(24, 3, 32, 32) * torch.rand(24, 3, 1, 1)
    for classes in (3, 20):
        labels = torch.arange(24) % classes
        network = smooth(activation, classes, bias=False)
        shared = share_gradients(network, images, labels)
        assert infer_labels(network, shared.gradients)[:, 0].tolist() == labels.tolist()
        by_sums = shared.gradients["3.weight"].sum(dim=2).argmin(dim=1)
        assert by_sums.tolist() != labels.tolist()
        frozen = smooth(activation, classes)
        frozen[-1].bias.requires_grad_(False)
        told = infer_labels(frozen, share_gradients(frozen, images, labels).gradients)
        assert told[:, 0].tolist() == labels.tolist()
        frozen = smooth(activation, classes)
        frozen[-1].weight.requires_grad_(False)
        told = infer_labels(frozen, share_gradients(frozen, images, labels).gradients)
        assert told[:, 0].tolist() == labels.tolist()


def test_what_a_defence_did_to_the_bias_does_not_hide_the_label():
    torch.manual_seed(1)
    images, labels = torch.rand(12, 3, 32, 32), torch.arange(12) % 6
    network = smooth("gelu", 6)
    shared = share_gradients(network, images, labels).gradients
    # Noise on one of the two only: the other is whole.
    withheld = {name: torch.zeros_like(value) if name == "3.bias" else value for name, value in shared.items()}
    drowned = {name: 5 * torch.randn_like(value) if name == "3.bias" else value for name, value in shared.items()}
    flooded = {name: 3 * torch.randn_like(value) if name == "3.weight" else value for name, value in shared.items()}
    for gradients in (withheld, drowned, flooded):
        assert infer_labels(network, gradients)[:, 0].tolist() == labels.tolist()


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_labels_of_a_group_may_repeat_where_there_is_a_bias(activation):
    network = smooth(activation, 10)
    labels = torch.tensor([[1, 1, 1, 1], [2, 2, 5, 5], [9, 0, 9, 9], [3, 4, 5, 6]])
    shared = share_gradients(network, torch.rand(4, 4, 3, 32, 32), labels)
    assert torch.equal(infer_labels(network, shared.gradients, 4).sort().values, labels.sort().values)


def test_labels_that_are_guesses_are_told():
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    network = smooth("tanh", 2, bias=False)
    with pytest.warns(AttackerMetricsWarning, match="of 4 clients cannot be told"):
        infer_labels(network, share_gradients(network, images, labels).gradients)
    network = smooth("relu", 2, bias=False)  # inputs of one sign: no guess
    assert infer_labels(network, share_gradients(network, images, labels).gradients)[:, 0].tolist() == labels.tolist()
    network = smooth("relu", 5)
    nothing = {name: torch.zeros(3, *value.shape) for name, value in network.named_parameters()}
    with pytest.warns(AttackerMetricsWarning, match="3 of 3 clients"):
        assert infer_labels(network, nothing, 2).shape == (3, 2)


def test_idlg_and_gradinversion_take_the_labels_of_smooth_networks():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 49, 7))
    labels = torch.tensor([6, 0, 3])
    shared = share_gradients(network, torch.rand(3, 3, 32, 32), labels)
    for attack in (IDLG(iterations=1, restarts=1), GradInversion(iterations=1)):
        assert attack(network, shared).labels.tolist() == labels.tolist()


class Wrapped(nn.Module):
    """A network whose output is put into something."""

    def __init__(self, network, wrap):
        super().__init__()
        self.network, self.wrap = network, wrap

    def forward(self, x):
        return self.wrap(self.network(x))


class Outputs(NamedTuple):
    """As some of torchvision's networks return."""

    logits: torch.Tensor
    aux_logits: torch.Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x,),
        lambda x: [x],
        lambda x: (x, [x.sum(), x.square()]),
        lambda x: {"logits": x, "aux": x * 2},
        lambda x: {"out": x},
        lambda x: OrderedDict(features=x[:, :, None], out=x),
        lambda x: Outputs(x, x * 2),
        lambda x: SimpleNamespace(logits=x, loss=None),
    ],
)
def test_logits_are_found_in_what_networks_of_other_libraries_return(wrap):
    plain, labels = lenet(), LABELS[:2]
    expected = share_gradients(plain, photos(8)[:2], labels)
    wrapped = Wrapped(plain, wrap)
    shared = share_gradients(wrapped, photos(8)[:2], labels)
    for name, gradient in expected.gradients.items():
        assert torch.equal(shared.gradients[f"network.{name}"], gradient)
    for attack in (IDLG(iterations=2, restarts=1), InvertingGradients(iterations=2), DLG(iterations=2, restarts=1)):
        torch.testing.assert_close(attack(wrapped, shared).images, attack(plain, expected).images)
    one = share_gradients(wrapped, photos(8)[:1], labels[:1])
    torch.testing.assert_close(one.gradients["network.8.bias"], shared.gradients["network.8.bias"][:1])


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        (lambda x: (x, x * 2), r"tuple of 0: \(1, 10\), 1: \(1, 10\)"),
        (lambda x: {"a": x, "b": x}, r"dict of a: \(1, 10\), b: \(1, 10\)"),
        (lambda x: {}, "dict, not logits"),
        (lambda x: None, "NoneType, not logits"),
        (lambda x: SimpleNamespace(scores=x), "SimpleNamespace, not logits"),
        (lambda x: x[:, :, None, None], r"shape \(1, 10, 1, 1\)"),
        (lambda x: x[:, :1], r"shape \(1, 1\)"),
        (lambda x: x[0], r"shape \(10,\)"),
    ],
)
def test_outputs_without_clear_logits_are_told(wrap, told):
    with pytest.raises(ValueError, match=told):
        share_gradients(Wrapped(lenet(), wrap), photos(8)[:1], LABELS[:1])


def test_batch_norm_of_one_value_is_told():
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"one value per channel.*batch_norm: eval"):
        share_gradients(network, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), train=True)
    share_gradients(network, torch.rand(2, 2, 3, 8, 8), torch.tensor([[0, 1], [2, 0]]), train=True)


def test_labels_that_cannot_be_read_are_told():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shared = share_gradients(network, torch.rand(1, 3, 8, 8), torch.tensor([1]))
    with pytest.raises(ValueError, match="labels='known'"):
        IDLG(iterations=1)(network, shared)
    network = lenet()
    network[-1].requires_grad_(False)  # a frozen head's gradient is not shared: no other layer speaks for it
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Sigmoid(), network)
    with pytest.raises(ValueError, match="labels='known'"):
        infer_labels(hidden, {"1.weight": torch.rand(1, 16, 192)})
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(3, 4, 8), nn.Flatten())
    with pytest.raises(ValueError, match="8 outputs, the network 4 logits"):
        IDLG(iterations=1)(network, share_gradients(network, torch.rand(1, 3, 8, 8), torch.tensor([1])))
    network = lenet(classes=2)
    shared = share_gradients(network, photos(8)[None, :3], torch.tensor([[0, 1, 1]]))
    with pytest.raises(ValueError, match="3 different labels"):
        IDLG(iterations=1)(network, shared)


# The loop


@pytest.mark.parametrize("name", list(ATTACKS))
def test_a_client_fares_the_same_whoever_is_attacked_along_with_it(name):
    network = convnet(12)
    shared = share_gradients(network, photos(12), LABELS)
    attack = ATTACKS[name](iterations=5, restarts=2, seed=1)
    together, alone = attack(network, shared), attack(network, shared[2:3])
    torch.testing.assert_close(together.images[2:3], alone.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(together.loss[2:3], alone.loss, rtol=1e-6, atol=1e-9)
    other = ATTACKS[name](iterations=5, restarts=2, seed=2)(network, shared[2:3])
    assert not torch.allclose(other.images, alone.images, atol=1e-3)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_groups_come_back_as_groups(name):
    network = convnet(12)
    images, labels = photos(12).view(2, 2, 3, 12, 12), LABELS.view(2, 2)
    shared = share_gradients(network, images, labels, train=True)
    found = ATTACKS[name](iterations=3, restarts=1)(network, shared)
    assert found.images.shape == images.shape
    assert found.labels.shape == labels.shape
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.loss.isfinite().all()
    assert found.iterations.tolist() == [3, 3]


def test_more_restarts_never_leave_a_higher_loss():
    network, images = lenet(), photos(8)
    shared = share_gradients(network, images, LABELS)
    losses = [IDLG(iterations=20, restarts=restarts)(network, shared).loss for restarts in (1, 2, 4)]
    assert (losses[1] <= losses[0]).all()
    assert (losses[2] <= losses[1]).all()
    assert (losses[2] < losses[0]).any()


def test_the_loss_is_that_of_the_images_that_came_back():
    network, images = lenet(), photos(8)
    shared = share_gradients(network, images, LABELS)
    attack = InvertingGradients(iterations=15, total_variation=1e-2)
    found = attack(network, shared)
    again = share_gradients(network, found.images, found.labels)
    for client in range(4):
        one = ({name: g[client] for name, g in s.gradients.items()} for s in (again, shared))
        expected = cosine_distance(*one) + 1e-2 * total_variation(found.images[client])
        assert float(found.loss[client]) == pytest.approx(float(expected), rel=1e-9)


def test_clients_whose_loss_is_on_a_plateau_stop_and_others_go_on():
    network, images = lenet(), photos(8)
    shared = share_gradients(network, images, LABELS)
    for gradient in shared.gradients.values():
        gradient[0] = 0  # nothing can be learnt of it: its cost is 1 everywhere
    found = InvertingGradients(iterations=60, patience=10, total_variation=0.0)(network, shared)
    assert found.iterations[0] < found.iterations[1:].min()
    unlimited = InvertingGradients(iterations=60, total_variation=0.0)(network, shared)
    assert unlimited.iterations.tolist() == [60] * 4


def test_a_client_below_the_tolerance_is_not_attacked_again():
    network, images = lenet(), photos(8)[2:]
    shared = share_gradients(network, images, LABELS[2:])
    once, thrice = (IDLG(iterations=300, restarts=restarts, tolerance=1.0)(network, shared) for restarts in (1, 3))
    assert once.loss.max() <= 1.0
    assert torch.equal(once.iterations, thrice.iterations)
    assert torch.equal(once.images, thrice.images)


def test_a_client_that_diverges_keeps_its_best_and_stops():
    network = lenet()
    shared = share_gradients(network, photos(8), LABELS)
    found = DLG(iterations=100, learning_rate=1e6)(network, shared)
    assert found.images.isfinite().all()
    assert found.loss.isfinite().all()


def test_an_attacker_who_knows_of_pruning_reconstructs_better():
    network, images = lenet(), photos(8)[:2]
    shared = share_gradients(network, images, LABELS[:2], defenses=[MagnitudePruning(0.5)])
    unaware = IDLG(iterations=150)(network, shared)
    aware = IDLG(iterations=150, restarts=4, knows_defenses=True)(network, shared)
    assert min(psnr(aware.images, images)) > max(psnr(unaware.images, images)) + 15


def test_bfloat16_passes_leave_images_and_loss_in_their_type():
    network, images = lenet(dtype=torch.float32), photos(8, torch.float32)
    shared = share_gradients(network, images, LABELS)
    full, half = (InvertingGradients(iterations=40, precision=p)(network, shared) for p in ("as given", "bf16"))
    assert half.images.dtype == half.loss.dtype == torch.float32
    assert half.loss.max() < 1.5 * full.loss.max() + 0.05


def test_a_progress_bar_is_shown_on_request(capsys):
    pytest.importorskip("rich", reason="needs rich")
    network = lenet()
    InvertingGradients(iterations=3)(network, share_gradients(network, photos(8), LABELS), progress=True)
    InvertingGradients(iterations=3)(network, share_gradients(network, photos(8), LABELS))
    assert capsys.readouterr().out.count("InvertingGradients") <= 1


def test_a_missing_rich_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    network = lenet()
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e .*\[cli\]"):
        InvertingGradients(iterations=3)(network, share_gradients(network, photos(8), LABELS), progress=True)


def test_mistakes_in_attacks_are_named():
    network, other = lenet(), lenet(classes=4)
    shared = share_gradients(network, photos(8), LABELS)
    with pytest.raises(ValueError, match="not of this network"):
        DLG()(other, shared)
    with pytest.raises(ValueError, match="use InvertingGradients"):
        GradInversion()(network, shared)
    for settings, words in (
        ({"iterations": 0}, "iterations is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"labels": "guessed"}, "'known', 'inferred' or 'optimised'"),
        ({"precision": "fp8"}, "'as given' or 'bf16'"),
        ({"start": (0.5, -1.0)}, "start is"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"priors": ((-1.0, total_variation),)}, "weight of total_variation is -1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            GradientInversion(**settings)
    for attack, settings in (
        (GradInversion, {"gradient": 0.0}),
        (InvertingGradients, {"learning_rate": -1.0}),
        (DLG, {"learning_rate": math.nan}),
    ):
        with pytest.raises(ValueError, match="above 0"):
            attack(**settings)
    with pytest.raises(ValueError, match="no client"):
        InvertingGradients(iterations=1)(network, shared[4:])


def test_networks_refuse_sizes_they_cannot_take():
    with pytest.raises(ValueError, match="multiples of 4"):
        SigmoidLeNet(size=30)
    with pytest.raises(ValueError, match="width is 0"):
        ConvNet(width=0)
    with pytest.raises(ValueError, match="9 x 9"):
        ConvNet(size=8)
    with pytest.raises(ValueError, match="'max' or 'average'"):
        ConvNet(pooling="mean")
    with pytest.raises(ValueError, match="std above 0"):
        Normalize(std=(0.0, 1.0, 1.0))


# Published behaviour


@pytest.mark.parametrize("normalize", [None, Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))])
def test_the_closed_form_is_exact(normalize):
    images = photos(32, torch.float32)
    first = [normalize] if normalize else []
    network = nn.Sequential(*first, nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 10))
    found = first_layer_closed_form(network, share_gradients(network, images, LABELS))
    assert (found - images).abs().max() < 1e-4


def test_the_closed_form_refuses_what_it_cannot_invert():
    images = photos(8, torch.float32)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 10))
    with pytest.raises(ValueError, match="gradient of 2 images"):
        first_layer_closed_form(network, share_gradients(network, images.view(2, 2, 3, 8, 8), LABELS.view(2, 2)))
    shared = share_gradients(SigmoidLeNet(size=8), images, LABELS)
    with pytest.raises(ValueError, match="begins with a fully connected layer"):
        first_layer_closed_form(SigmoidLeNet(size=8), shared)
    network[1] = nn.Linear(192, 8, bias=False)
    with pytest.raises(ValueError, match="both must be shared"):
        first_layer_closed_form(network, share_gradients(network, images, LABELS))


def test_dlg_recovers_pictures_to_near_identity_from_the_sigmoid_network():
    images, network = photos(12), lenet(12)
    found = DLG(iterations=600)(network, share_gradients(network, images, LABELS))
    assert min(psnr(found.images, images)) > 40
    assert torch.equal(found.labels, LABELS)


def test_idlg_infers_the_label_and_recovers_the_picture():
    images, network = photos(12)[:2], lenet(12)
    found = IDLG(iterations=600)(network, share_gradients(network, images, LABELS[:2]))
    assert min(psnr(found.images, images)) > 40
    assert torch.equal(found.labels, LABELS[:2])


def test_invgrad_recovers_photographs_from_an_untrained_convolutional_network():
    torch.manual_seed(0)
    images, network = photos(32, torch.float32), SigmoidLeNet()
    attack = InvertingGradients(iterations=800, total_variation=0.02)
    found = attack(network, share_gradients(network, images, LABELS))
    scores, flat = psnr(found.images, images), psnr(images.mean(dim=(2, 3), keepdim=True).expand_as(images), images)
    # Published: 18.0 dB on average. A flat picture of the right colour has 11.1, 19.1, 12.6 and 19.1 dB.
    assert sum(score > 20 for score in scores) >= 2, scores
    assert sum(scores) / 4 > 18, scores
    assert scores[0] > flat[0] + 5, scores  # the two of high contrast
    assert scores[2] > flat[2] + 5, scores


@pytest.mark.slow
def test_invgrad_recovers_photographs_from_an_untrained_convnet_with_average_pooling():
    images = photos(32, torch.float32)[2:]
    torch.manual_seed(0)
    network = ConvNet(width=16, pooling="average")
    attack = InvertingGradients(iterations=300, learning_rate=0.05, total_variation=1e-5)
    # All four measured one by one: 13.2, 22.2, 18.7 and 25.6 dB, of which a flat picture of the right colour has 11.1, 19.1,
    # 12.6 and 19.1. With max pooling the last has 15.9.
    for image, label, level in zip(images, LABELS[2:], (12.64, 19.06), strict=True):
        found = attack(network, share_gradients(network, image[None], label[None]))
        assert psnr(found.images, image[None])[0] > level + 4
