"""The compiled CPU kernel beside the engine in torch: built here, same numbers, same gradients, chosen as asked."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import photo_pair, pictures, spoil

from attacker_metrics import (
    MSSSIM,
    Component,
    MultiAttackerPrivacy,
    Pair,
    SquaredPearson,
    backend,
    build_native,
    multi_attacker_privacy_loss,
    multi_attacker_scores,
    standard_components,
)
from attacker_metrics.attackers import Blur, clamp, luma, minmax
from attacker_metrics.backends import native
from attacker_metrics.components import program_of
from attacker_metrics.engine import evaluate
from attacker_metrics.filters import JPEG, AffineFit, Equalize, Unsharp, Wiener, invert, median
from attacker_metrics.suites import added_components

SETTINGS = {"betas": (0.3, 0.3, 0.4), "gamma_values": (0.5, 2.0, 1.3), "blur_sigma": 1.7, "wavelet_threshold": 0.05}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    try:
        native._compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def kernel(cache, monkeypatch):
    """The kernel, built once in a folder of the tests' own, and chosen."""
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(cache))
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", "native")
    native.loaded.cache_clear()
    build_native()
    assert backend() == "native"
    yield monkeypatch
    native.loaded.cache_clear()


def both_gradients(scores, inputs):
    weights = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
    return torch.autograd.grad((scores * weights.to(scores)).sum(), inputs)


def assert_like_torch_in_float64(noisy, clean, components, tolerance=1e-5, slope_tolerance=1e-4):
    """Scores and the gradients of float32 images, together and alone, against the engine in torch in float64."""
    components = list(components)
    inputs = [image.clone().requires_grad_() for image in (noisy, clean)]
    exact = [image.double().requires_grad_() for image in (noisy, clean)]
    assert backend(dtype=exact[0].dtype) == "torch"
    reached, wanted = (torch.stack(Pair(*pair, channels=None).scores(components), dim=1) for pair in (inputs, exact))
    assert reached.dtype == torch.float32
    torch.testing.assert_close(reached.double(), wanted, rtol=0, atol=tolerance, equal_nan=True)
    together = both_gradients(reached, inputs)
    for one, other in zip(together, both_gradients(wanted, exact), strict=True):
        assert one.isfinite().all()
        assert (one - other).norm() <= slope_tolerance * other.norm() + 1e-12
    for side in (0, 1):
        pair = [image if i == side else image.detach() for i, image in enumerate(inputs)]
        alone = both_gradients(torch.stack(Pair(*pair, channels=None).scores(components), dim=1), pair[side])[0]
        assert torch.equal(alone, together[side])


@pytest.mark.parametrize("obfuscation", ["noise", "pixelation", "out of range"])
@pytest.mark.parametrize("size", [(176, 176), (181, 203)])
def test_photographs(kernel, obfuscation, size):
    noisy, clean = (torch.tensor(x, dtype=torch.float32) for x in photo_pair(obfuscation, *size))
    # Float32 resolves ties of an extreme that float64 keeps apart or the other way round: torch in float32 errs by 8e-4.
    assert_like_torch_in_float64(noisy, clean, standard_components().values(), slope_tolerance=1e-3)


@pytest.mark.parametrize("size", [(44, 44), (51, 47), (45, 90)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_small_pictures_of_any_size_and_settings(kernel, batch, size):
    noisy, clean = pictures(batch, *size)
    assert_like_torch_in_float64(noisy, clean, standard_components(**SETTINGS).values())


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("normalize", ["relu", "simple", "fold", None])
def test_images_of_any_number_of_channels_without_attackers(kernel, channels, normalize):
    generator = torch.Generator().manual_seed(channels)
    clean, other = torch.rand(2, 3, channels, 25, 33, generator=generator).unbind()
    similarity = MSSSIM((0.5, 0.5), normalize=normalize)
    assert_like_torch_in_float64(0.6 * clean + 0.4 * other, clean, [Component("a", similarity)])
    assert_like_torch_in_float64(0.6 * clean + 0.4 * other, clean, [Component("a", SquaredPearson(1e-2))])


def test_components_with_different_settings_and_chains(kernel):
    components = [
        Component("a", MSSSIM((0.5, 0.5)), (luma, minmax, Blur(1.0)), (luma,)),
        Component("b", MSSSIM((0.2, 0.3, 0.1), normalize="simple"), (minmax,), (minmax,)),
        Component("c", SquaredPearson(1e-3), (luma, minmax, Blur(1.0)), (luma,)),
    ]
    assert_like_torch_in_float64(*pictures(2, 44, 50), components)


def scores_of(noisy, clean, components):
    return torch.stack(Pair(noisy, clean, channels=None).scores(components))


def assert_views_like_torch_in_float64(noisy, clean, components, tolerance=2e-5):
    """Scores of attackers without pull-back in the kernel, by it and by torch, both with and without a graph."""
    components = list(components)
    wanted = scores_of(noisy.double(), clean.double(), components)
    with_graph = scores_of(noisy.clone().requires_grad_(), clean, components)
    assert with_graph.requires_grad
    for reached in (scores_of(noisy, clean, components), with_graph):
        torch.testing.assert_close(reached.detach().double(), wanted, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("obfuscation", ["noise", "out of range", "blend"])
@pytest.mark.parametrize("size", [(176, 176), (181, 203)])
def test_the_suite(kernel, obfuscation, size):
    noisy, clean = (torch.tensor(x, dtype=torch.float32) for x in photo_pair(obfuscation, *size))
    assert_views_like_torch_in_float64(noisy, clean, added_components("standard-v1").values())


@pytest.mark.parametrize("size", [(11, 11), (13, 50), (47, 45)])
@pytest.mark.parametrize(
    "attacker",
    [Equalize(2), Equalize(1000), median, Unsharp(0.7, 3.0), Wiener(1.3, 1e-3), JPEG(20), JPEG(95), invert],
    ids=lambda attacker: getattr(attacker, "__name__", str(attacker)),
)
def test_filters_of_any_setting_and_place_in_a_chain(kernel, attacker, size):
    noisy, clean = pictures(2, *size)
    ms_ssim, pearson = MSSSIM((1.0,)), SquaredPearson()
    components = [
        Component("colours", ms_ssim, (attacker,), (attacker,)),
        Component("before another", pearson, (luma, attacker, Blur(1.0)), (luma,)),
        Component("behind another", ms_ssim, (luma, minmax, attacker), (luma, clamp, attacker)),
        Component("in variants", pearson, (luma, clamp), (luma,), variants=(attacker, median)),
        Component("fitted", AffineFit(ms_ssim), (attacker,), (clamp,)),
    ]
    assert_views_like_torch_in_float64(noisy, clean, components)


@pytest.mark.parametrize("contrast", [1e-2, 1e-4, 1e-6])
def test_the_affine_fit_finds_contrast_that_float32_hardly_holds(kernel, contrast):
    clean = torch.tensor(photo_pair()[1], dtype=torch.float32)
    affine = [Component("affine", AffineFit(MSSSIM())), Component("correlated", AffineFit(SquaredPearson()))]
    assert_views_like_torch_in_float64(0.7 + contrast * clean, clean, affine)


def test_a_gradient_through_an_attacker_without_pull_back_is_refused(kernel):
    noisy, clean = pictures()
    program = program_of([Component("a", SquaredPearson(), (luma, median), (luma,))], *noisy.shape[1:])
    with pytest.raises(NotImplementedError, match="without pull-backs"):
        evaluate(noisy.requires_grad_(), clean, torch.ones(2, dtype=torch.bool), program)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -7.0, 1e9, 1e15, 3e38])
def test_flat_and_huge_pictures_stay_finite(kernel, value):
    clean = pictures(2, 44, 44)[1]
    flat = torch.full_like(clean, value).requires_grad_()
    spiked = clean.clone()
    spiked[1, 2, 20, 20] = value
    for noisy in (flat, spiked.requires_grad_()):
        scores = multi_attacker_scores(noisy, clean, betas=(0.3, 0.3, 0.4))
        assert all(((s >= 0) & (s <= 1)).all() for s in scores.values())
        suite = scores_of(noisy.detach(), clean, added_components("standard-v1", betas=(0.3, 0.3, 0.4)).values())
        assert ((suite >= 0) & (suite <= 1)).all()
        (slope,) = torch.autograd.grad(scores["ms_ssim"].sum() + scores["pearson"].sum(), noisy)
        assert slope.isfinite().all()


def test_a_picture_that_is_not_finite_reads_nan_and_leaves_the_others_alone(kernel):
    noisy, clean = pictures(3)
    spoilt = spoil(noisy, 1).requires_grad_()
    scores = multi_attacker_scores(spoilt, clean, betas=(0.5, 0.5))
    alone = multi_attacker_scores(noisy[[0, 2]], clean[[0, 2]], betas=(0.5, 0.5))
    for name in scores:
        assert scores[name].isnan().tolist() == [False, True, False]
        assert torch.equal(scores[name][[0, 2]], alone[name])
    suite = added_components("standard-v1", betas=(0.5, 0.5)).values()
    both = [scores_of(*pair, suite) for pair in ((spoilt.detach(), clean), (noisy[[0, 2]], clean[[0, 2]]))]
    assert both[0][:, 1].isnan().all()
    assert torch.equal(both[0][:, [0, 2]], both[1])
    sum(scores[name][[0, 2]].sum() for name in scores).backward()
    assert spoilt.grad[1].abs().max() == 0
    assert spoilt.grad[[0, 2]].abs().amax(dim=(1, 2, 3)).min() > 0


def test_threads_and_neighbours_change_no_bit(kernel):
    noisy, clean = pictures(5, 48, 45)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, part in ((1, slice(0, 5)), (2, slice(0, 5)), (3, slice(0, 5)), (3, slice(2, 3))):
            torch.set_num_threads(threads)
            leaf = noisy[part].clone().requires_grad_()
            table = standard_components(betas=(0.5, 0.5)).values()
            scores = torch.stack(Pair(leaf, clean[part]).scores(table))
            suite = scores_of(noisy[part], clean[part], added_components("standard-v1", betas=(0.5, 0.5)).values())
            found.append((torch.cat((scores, suite)).detach(), *torch.autograd.grad(scores.sum(), leaf)))
    finally:
        torch.set_num_threads(before)
    for scores, slope in found[1:3]:
        assert torch.equal(scores, found[0][0])
        assert torch.equal(slope, found[0][1])
    assert torch.equal(found[3][0], found[0][0][:, 2:3])
    assert torch.equal(found[3][1], found[0][1][2:3])


def test_slopes_that_come_back_in_another_memory_layout_are_read_right(kernel):
    noisy, clean = pictures(2)
    slopes = []
    for unpack in (lambda kept: kept, lambda kept: kept.mT.contiguous().mT if kept.ndim == 4 else kept):
        leaf = noisy.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda given: given, unpack):
            multi_attacker_scores(leaf, clean, betas=(0.5, 0.5))["ms_ssim"].sum().backward()
        slopes.append(leaf.grad)
    assert torch.equal(*slopes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_other_memory_layouts(kernel, dtype):
    noisy, clean = pictures(2, 44, 46)
    halves = noisy.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    scores = multi_attacker_scores(halves, clean, betas=(0.5, 0.5))
    wanted = multi_attacker_scores(noisy.to(dtype).double(), clean.double(), betas=(0.5, 0.5))
    assert all((scores[name] - wanted[name]).abs().max() <= 5e-3 for name in scores)
    (slope,) = torch.autograd.grad(scores["ms_ssim"].sum(), halves)
    assert slope.dtype == dtype
    assert slope.isfinite().all()


def test_metrics_and_the_compiled_loss_use_it_too(kernel):
    noisy, clean = pictures(2, 24, 24)
    privacy = MultiAttackerPrivacy(betas=(0.5, 0.5))
    privacy.update(noisy, clean)
    wanted = multi_attacker_privacy_loss(noisy.double(), clean.double(), betas=(0.5, 0.5))
    for name, value in privacy.compute().items():
        assert abs(value - wanted[name]) <= 1e-5, name
    torch._dynamo.reset()
    compiled = torch.compile(multi_attacker_privacy_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    leaf = noisy.clone().requires_grad_()
    scores = compiled(leaf, clean, betas=(0.5, 0.5))
    assert all(abs(scores[name] - wanted[name]) <= 1e-5 for name in wanted)
    scores["ms_ssim"].backward()
    assert leaf.grad.isfinite().all()


def test_float64_and_other_devices_stay_with_torch(kernel):
    assert backend(dtype=torch.float64) == "torch"
    assert backend("meta") == "torch"
    kernel.setenv("ATTACKER_METRICS_BACKEND", "torch")
    assert backend() == "torch"
    kernel.delenv("ATTACKER_METRICS_BACKEND")
    assert backend() == "native"  # because it was built


def test_without_a_built_kernel_the_default_is_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(tmp_path))
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    native.loaded.cache_clear()
    assert backend() == "torch"
    assert list(tmp_path.iterdir()) == []
    native.loaded.cache_clear()


@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")  # of torch's own tracing
@pytest.mark.skipif(sys.platform == "win32", reason="torch.compile wants another compiler there")
def test_a_compiled_call_builds_the_kernel_if_it_can_and_runs_in_torch_if_not(cache, monkeypatch, tmp_path):
    noisy, clean = pictures(1, 24, 24)
    wanted = multi_attacker_scores(noisy, clean, betas=(0.5, 0.5))
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND")
    for compiler, chosen in (("absent", "torch"), (None, "native")):
        monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(tmp_path / chosen))
        monkeypatch.delenv("CXX", raising=False)
        if compiler:
            monkeypatch.setenv("CXX", compiler)
        for cached in (native.loaded, native.try_to_build):
            cached.cache_clear()
        torch._dynamo.reset()
        reached = torch.compile(multi_attacker_scores, backend="aot_eager")(noisy, clean, betas=(0.5, 0.5))
        assert backend() == chosen
        assert all((reached[name] - wanted[name]).abs().max() <= 1e-5 for name in wanted)
    native.loaded.cache_clear()


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid"), reason="asks for a POSIX home directory")
def test_a_cache_that_cannot_be_read_or_holds_rubbish_leaves_the_default_with_torch(cache, monkeypatch, tmp_path):
    noisy, clean = pictures()
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    file = tmp_path / "file"
    file.write_bytes(b"")
    for folder in (file, tmp_path):  # not a folder; a folder with an empty library
        monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(folder))
        native.loaded.cache_clear()
        if folder is tmp_path:
            native.library().write_bytes(b"")
        assert backend() == "torch"
        multi_attacker_scores(noisy, clean, betas=(0.5, 0.5))
    build_native()  # mends it
    assert backend() == "native"
    native.loaded.cache_clear()


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", "fortran")
    with pytest.raises(
        ValueError, match=r"ATTACKER_METRICS_BACKEND must be 'torch', 'native' or 'triton' or unset, got 'fortran'"
    ):
        multi_attacker_scores(*pictures(), betas=(0.5, 0.5))


@pytest.mark.skipif(os.name != "posix", reason="asks for a shell's false")
@pytest.mark.parametrize(
    ("compiler", "message"),
    [("no-such-compiler", "no C\\+\\+ compiler: no-such-compiler not found"), ("false", "exit status 1")],
)
def test_a_compiler_that_fails_is_a_clear_error_and_leaves_nothing_behind(monkeypatch, tmp_path, compiler, message):
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(tmp_path))
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", "native")
    monkeypatch.setenv("CXX", compiler)
    native.loaded.cache_clear()
    with pytest.raises(RuntimeError, match=message):
        multi_attacker_scores(*pictures(), betas=(0.5, 0.5))
    assert list(tmp_path.iterdir()) == []
    native.loaded.cache_clear()


def test_processes_that_build_at_once_both_succeed(cache, tmp_path):
    environment = {**os.environ, "ATTACKER_METRICS_CACHE": str(tmp_path), "ATTACKER_METRICS_BACKEND": "native"}
    command = [sys.executable, "-c", "import attacker_metrics as am; am.build_native(); print(am.backend())"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in running] == ["native\n", "native\n"]
    assert len(list(tmp_path.iterdir())) == 1
