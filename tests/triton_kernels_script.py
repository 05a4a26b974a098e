"""The Triton kernels against the torch implementation in float64: ``test_triton.py`` runs this file in a process.

With ``TRITON_INTERPRET=1`` it needs no CUDA device, and an operation takes as long on one number as on thousands: the tests
of whole tables and of many scales are slow there.
"""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attacker_metrics import Pair, multi_attacker_privacy_loss, standard_components
from attacker_metrics.attackers.standard import Blur, Gamma, clamp, luma, minmax
from attacker_metrics.engine import operators as engine
from attacker_metrics.engine import self_check, triton_kernels
from attacker_metrics.engine.program import MSSSIMMeasurement, PearsonMeasurement, Program
from attacker_metrics.scoring.components import program_of
from attacker_metrics.scoring.similarity import DEFAULT_BETAS

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")  # of numpy, on values never used
DEVICE = "cpu" if INTERPRETED else "cuda"
TWO = (0.5, 0.5)
PEARSON = tuple(name for name in standard_components() if name.startswith("pearson"))


@pytest.fixture(autouse=True)
def large_programs(monkeypatch):
    """In the interpreter an operation costs the same whatever its size."""
    if INTERPRETED:
        monkeypatch.setattr(triton_kernels, "_PACK", 64)
        monkeypatch.setattr(triton_kernels, "_STEP", 1024)
        monkeypatch.setattr(triton_kernels, "_BLOCK", 1024)


def pictures(batch, channels, height, width):
    generator = torch.Generator().manual_seed(height)
    clean, other = torch.rand(2, batch, channels, height, width, generator=generator).unbind()
    return 1.5 * (0.7 * clean + 0.3 * other) - 0.3, clean


def table(height, width, betas, names=None, **settings):
    components = standard_components(betas=betas, **settings)
    return program_of([c for name, c in components.items() if names is None or name in names], 3, height, width)


def raw(betas, normalize="relu"):
    return Program((), (MSSSIMMeasurement(0, 1, 0, 1, betas, normalize),), (), 1)


def evaluate(noisy, clean, finite, program, weights, wanted):
    """Scores and gradients by the kernels; every output begins as NaN."""
    noisy, clean, finite = noisy.to(DEVICE), clean.to(DEVICE), finite.to(DEVICE)
    batch, channels, height, width = noisy.shape
    planes = sum(program.channels(channels)[m.noisy] for m in program.ms_ssim)

    def nan(*shape):
        return torch.full(shape, torch.nan, device=DEVICE)

    scores = nan(batch, program.components)
    slopes = [nan(batch, planes, height, width) if want else nan(0) for want in wanted]
    triton_kernels.forward(noisy, clean, finite, program, scores, slopes)
    totals = [nan(*noisy.shape) if want else nan(0) for want in wanted]
    triton_kernels.backward(weights.to(DEVICE), noisy, clean, finite, slopes, program, totals)
    return scores.cpu(), [total.cpu() for total in totals]


def reference(noisy, clean, finite, program, weights):
    """The same by autograd through the torch implementation in float64."""
    inputs = [torch.where(finite[:, None, None, None], x.double(), 0.0).requires_grad_() for x in (noisy, clean)]
    scores = engine.evaluate(*inputs, torch.ones_like(finite), program)
    kept = torch.where(finite[:, None], scores * weights, 0.0)
    return scores.detach(), torch.autograd.grad(kept.nansum(), inputs)


def assert_same(noisy, clean, program, wanted=(True, True), finite=None, scores_within=2e-6, gradients_within=1e-5):
    finite = torch.ones(len(noisy), dtype=torch.bool) if finite is None else finite
    weights = torch.rand(len(noisy), program.components, generator=torch.Generator().manual_seed(1))
    before = triton_kernels.launches
    scores, totals = evaluate(noisy, clean, finite, program, weights, wanted)
    assert triton_kernels.launches - before <= 40
    right, gradients = reference(noisy, clean, finite, program, weights.double())
    torch.testing.assert_close(scores.double()[finite], right[finite], rtol=0, atol=scores_within, equal_nan=True)
    assert scores[~finite].isnan().all()
    for total, gradient, want in zip(totals, gradients, wanted, strict=True):
        if want:
            assert total.isfinite().all()
            apart = (total.double() - gradient).flatten(1).norm(dim=1)
            assert (apart <= gradients_within * gradient.flatten(1).norm(dim=1) + 1e-12).all(), apart
            assert (total[~finite] == 0).all()
    return scores, totals


@pytest.mark.slow
def test_all_components_and_both_gradients_of_all_kinds_of_pictures():
    some, clean = pictures(1, 3, 22, 26)
    kinds = {
        "out of range": 3 * some - 0.7,
        "inverted": 1 - clean + 0.1 * some,
        "constant": torch.full_like(clean, 0.3),
        "the same": clean,
        "1e15": torch.where(some > 1, 1e15, some),
        "beyond 1e15": torch.where(some > 1, 1e20, -1e20 * some),
        "not finite": torch.where(some > 1, torch.nan, torch.inf * some),
    }
    noisy = torch.cat(list(kinds.values()))
    finite = torch.tensor([kind != "not finite" for kind in kinds])
    # Scores near 0 magnify the rounding of their terms.
    assert_same(noisy, clean.expand_as(noisy), table(22, 26, TWO), finite=finite, gradients_within=2e-4)


@pytest.mark.slow
def test_other_settings_odd_sizes_and_programs_that_overlap(monkeypatch):
    monkeypatch.setattr(triton_kernels, "_CHUNK", 12)
    monkeypatch.setattr(triton_kernels, "_WIDTHS", (32,))
    settings = {"gamma_values": (0.5, 1.3, 2.0), "blur_sigma": 1.3, "wavelet_threshold": 0.05}
    assert_same(*pictures(1, 3, 23, 47), table(23, 47, TWO, **settings), (True, False))


@pytest.mark.slow
def test_three_scales():
    assert_same(*pictures(1, 3, 44, 47), table(44, 47, (0.3, 0.3, 0.4), ("gray_clamp",)), (True, False))


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)], ids=str)
def test_half_precision_is_read_as_it_is(dtypes):
    noisy, clean = (x.to(dtype) for x, dtype in zip(pictures(1, 3, 22, 22), dtypes, strict=True))
    assert_same(noisy, clean, table(22, 22, TWO, ("rgb_minmax", "pearson_sobel", "pearson_wavelet")))


@pytest.mark.parametrize(("channels", "normalize"), [(1, "relu"), (3, "simple"), (1, "fold"), (5, None)])
def test_ms_ssim_of_images_as_they_are(channels, normalize):
    noisy, clean = pictures(2, channels, 12, 11)
    noisy[1] = 0.1 - noisy[1]
    assert_same(noisy, clean, raw((0.7,), normalize))


@pytest.mark.slow
def test_five_scales(monkeypatch):
    monkeypatch.setattr(triton_kernels, "_PACK", 1)
    monkeypatch.setattr(triton_kernels, "_WIDTHS", (256,))
    monkeypatch.setattr(triton_kernels, "_CHUNK", 256)
    assert_same(*pictures(1, 1, 176, 181), raw(DEFAULT_BETAS))


def test_squared_pearson_of_long_lines():
    noisy, clean = pictures(2, 1, 1, 5000)
    assert_same(noisy, clean, Program((), (), (PearsonMeasurement(0, 1, 0, 1, 1e-12),), 1))
    assert_same(1e-4 * noisy, clean, Program((), (), (PearsonMeasurement(0, 1, 0, 1, 1e-3),), 1))


@pytest.mark.parametrize("names", [PEARSON, *((name,) for name in PEARSON), ("standardize_gray",)], ids=str)
def test_subsets(names):
    assert_same(*pictures(1, 3, 22, 23), table(22, 23, TWO, names), (True, False))


@pytest.mark.slow
def test_memory_layout_and_groups_of_images_do_not_matter(monkeypatch):
    noisy, clean = pictures(2, 3, 12, 13)
    program = table(12, 13, (1.0,), ("gray_clamp", "pearson_blur"))
    arguments = (torch.ones(2, dtype=torch.bool), program, torch.ones(2, 2), (True, True))
    scores, totals = evaluate(noisy, clean, *arguments)
    monkeypatch.setattr(triton_kernels, "_VALUES", 1)
    noisy, clean = noisy.contiguous(memory_format=torch.channels_last), clean.mT.contiguous().mT
    again, of_again = evaluate(noisy, clean, *arguments)
    assert torch.equal(scores, again)
    assert all(map(torch.equal, totals, of_again))


def test_launches_of_the_whole_table(monkeypatch):
    monkeypatch.setattr(triton_kernels, "_launch", lambda kernel, *_, **__: launched.append(kernel))
    noisy, clean = torch.empty(2, 2, 3, 176, 176).unbind()
    program, ones = table(176, 176, DEFAULT_BETAS), torch.ones(2, dtype=torch.bool)
    for wanted, most in (((True, False), 20), ((True, True), 23)):
        launched = []
        evaluate(noisy, clean, ones, program, torch.ones(2, 15), wanted)
        assert len(launched) <= most


class Launches(TorchDispatchMode):
    """Counts operations of torch that are work for a device: neither views nor allocations."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        name = function.overloadpacket.__name__
        free = function.is_view or name.startswith(("empty", "promote", "_local"))
        ours = function.namespace == "attacker_metrics"  # counted kernel by kernel
        self.count += not (free or ours or name == "amin")  # a device finds both bounds at once, by aminmax
        return function(*arguments, **(settings or {}))


def test_launches_of_a_whole_step(monkeypatch):
    launched = []
    monkeypatch.setattr(triton_kernels, "_launch", lambda kernel, *_, **__: launched.append(kernel))
    monkeypatch.setattr(engine, "implementation", lambda *_, **__: triton_kernels)
    monkeypatch.setattr(Pair, "warn_of_convention", lambda pair: None)  # looks at images on a CPU only
    clean = torch.rand(2, 3, 176, 176, device=DEVICE)
    noisy = (1 - clean).requires_grad_()
    with Launches() as around:
        loss = multi_attacker_privacy_loss(noisy, clean)
        (loss["ms_ssim"] + loss["pearson"]).backward()
    assert len(launched) == 20
    assert 15 <= around.count <= 20, around.count


def test_what_is_supported():
    assert triton_kernels.supports(table(176, 176, DEFAULT_BETAS, gamma_values=(0.1, 0.2, 0.3)), 3)
    assert triton_kernels.supports(raw(TWO), 5)
    ms_ssim = MSSSIMMeasurement(0, 1, 2, 1, TWO, "relu")
    pearson = PearsonMeasurement(0, 1, 2, 1, 1e-12)
    assert triton_kernels.supports(Program(((Gamma(2.0), 0),), (ms_ssim,), (pearson,), 1), 4)
    for made in (((clamp, 0), (luma, 2)), ((Blur(1.0), 0), (Gamma(2.0), 2)), ((luma, 1),)):
        last = len(made) + 1
        assert not triton_kernels.supports(Program(made, (MSSSIMMeasurement(0, 1, last, 1, TWO, "relu"),), (), 1), 3)
    other = MSSSIMMeasurement(1, 1, 0, 1, TWO, "simple")
    assert not triton_kernels.supports(Program((), (raw(TWO).ms_ssim[0], other), (), 2), 3)
    assert not triton_kernels.supports(Program(((minmax, 0),), (), (pearson,), 1), 3)


class Once:
    """The kernels, each run once: the pictures of the self-check are always the same."""

    def __init__(self):
        self.made = {}

    def forward(self, *arguments):
        self._fill("forward", arguments, [arguments[4], *arguments[5]])

    def backward(self, *arguments):
        self._fill("backward", arguments, arguments[6])

    def _fill(self, name, arguments, outputs):
        if name not in self.made:
            getattr(triton_kernels, name)(*arguments)
            self.made[name] = [output.clone() for output in outputs]
        for output, made in zip(outputs, self.made[name], strict=True):
            output.copy_(made)


@pytest.fixture(scope="module")
def kernels():
    return Once()


def test_the_self_check_passes_right_kernels(kernels):
    assert self_check.disagreement(torch.device(DEVICE), kernels) == ""


@pytest.mark.parametrize(("function", "at", "reason"), [("forward", 4, "their scores"), ("backward", 6, "their gradients")])
def test_the_self_check_names_what_is_wrong(kernels, monkeypatch, function, at, reason):
    right = getattr(kernels, function)

    def wrong(*arguments):
        right(*arguments)
        made = arguments[at]
        (made if torch.is_tensor(made) else made[1]).mul_(1.05)

    monkeypatch.setattr(kernels, function, wrong)
    assert self_check.disagreement(torch.device(DEVICE), kernels).startswith(reason)


def test_the_self_check_survives_kernels_that_do_not_compile(monkeypatch):
    def broken(*_):
        raise RuntimeError("no such instruction\nat line 1")

    monkeypatch.setattr(triton_kernels, "forward", broken)
    assert self_check.disagreement(torch.device(DEVICE)) == "RuntimeError: no such instruction"
