"""Modules with weights of their own do not depend on torch's default dtype."""

import pytest
import torch
from torch import nn

from attacker_metrics.attacks import ConvNet, InvertingGradients, Normalize, SigmoidLeNet, share_gradients
from attacker_metrics.reading.learned import CNNAttacker, LinearAttacker
from attacker_metrics.semsim import Encoder, Preprocessing, SemSim


@pytest.fixture(params=[torch.float64, torch.bfloat16, torch.float16])
def default(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def fitted(attacker) -> torch.Tensor:
    clean = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    attacker.fit_update(1 - clean, clean)
    attacker.fit_compute()
    return attacker(1 - clean)


CNN, LINEAR = fitted(CNNAttacker(steps=20)), fitted(LinearAttacker())


def test_learned_attackers_are_the_same(default):
    cnn = CNNAttacker(steps=20)
    assert torch.equal(fitted(cnn), CNN)
    assert {value.dtype for value in cnn.state_dict().values() if isinstance(value, torch.Tensor)} == {torch.float32}
    assert torch.equal(fitted(LinearAttacker()), LINEAR)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_cnn_attacker_may_be_cast(dtype):
    attacker = CNNAttacker(steps=20)
    assert fitted(attacker.double()).dtype == torch.float32
    attacker.to(dtype)
    assert attacker(torch.rand(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_encoders_take_any_image(default, dtype):
    encoder = Encoder(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), Preprocessing(16, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)))
    assert encoder.mean.flatten().tolist() == torch.tensor([0.4, 0.5, 0.6], dtype=torch.float32).tolist()
    images = torch.rand(2, 3, 24, 24, dtype=torch.float32).to(dtype)
    assert encoder(images).dtype == default
    metric = SemSim(encoder)
    metric.update(images, images)
    assert float(metric.compute()) == pytest.approx(0, abs=0.05)


def test_networks_are_attacked_and_keep_their_colours(default):
    assert Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).mean.flatten()[0] == pytest.approx(0.485, abs=1e-6)
    for network in (
        SigmoidLeNet(size=12),
        ConvNet(width=2, size=12),
        nn.Sequential(Normalize(), ConvNet(width=2, size=12).float()),
    ):
        shared = share_gradients(network, torch.rand(2, 3, 12, 12, dtype=torch.float32), torch.tensor([1, 2]))
        assert InvertingGradients(iterations=2)(network, shared).images.isfinite().all()


def test_a_studys_classifiers_are_float32(default):
    pytest.importorskip("pydantic", reason="needs pydantic")
    from attacker_metrics.study.classifiers import build
    from attacker_metrics.study.config import Model

    network = build(Model(name="a", network="convnet", options={"width": 2}), 3, 16)
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert network(torch.rand(2, 3, 16, 16, dtype=torch.float32)).dtype == torch.float32
