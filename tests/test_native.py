"""The compiled CPU kernel beside the engine in torch: built here, same numbers, same gradients, chosen as asked."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import in_one_graph, photo_pair, pictures, spoil

from attacker_metrics import (
    MSSSIM,
    AttackerMetricsWarning,
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
from attacker_metrics.attackers.filters import JPEG, AffineFit, Equalize, Unsharp, Wiener, invert, median
from attacker_metrics.attackers.standard import Blur, clamp, luma, minmax
from attacker_metrics.engine import evaluate, native
from attacker_metrics.engine.native import recipe, trust
from attacker_metrics.scoring.components import program_of
from attacker_metrics.scoring.suites import added_components

NOTHING_SHIPPED = """
from pathlib import Path
import attacker_metrics as am
from attacker_metrics.engine import native
native.SHIPPED = Path("nothing")
"""
SETTINGS = {"betas": (0.3, 0.3, 0.4), "gamma_values": (0.5, 2.0, 1.3), "blur_sigma": 1.7, "wavelet_threshold": 0.05}


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch, tmp_path):
    """The package as if it had come without the compiled kernel, which has tests of its own below."""
    monkeypatch.setattr(native, "SHIPPED", tmp_path / "nothing")
    native.loaded.cache_clear()
    yield
    native.loaded.cache_clear()


@pytest.fixture(scope="module")
def cache(tmp_path_factory, remembering):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", remembering)
        yield tmp_path_factory.mktemp("cache")


@pytest.fixture(params=recipe.variants())
def kernel(request, cache, monkeypatch):
    """The kernel in each of its variants, built once in a folder of the tests' own, and chosen."""
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(cache))
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", "native")
    monkeypatch.delenv("ATTACKER_METRICS_ISA", raising=False)
    build_native()
    monkeypatch.setenv("ATTACKER_METRICS_ISA", request.param)
    native.loaded.cache_clear()
    try:
        assert str(backend()) == f"native ({request.param})"
    except ValueError as error:
        pytest.skip(f"this processor: {error}")
    return monkeypatch


def scores_of(noisy, clean, components):
    return torch.stack(Pair(noisy, clean, channels=None).scores(components))


def both_gradients(scores, inputs):
    weights = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
    return torch.autograd.grad((scores * weights.to(scores)).sum(), inputs)


EXACT = {}
"""Images and components -> scores and gradients in float64, which are the same for every variant of the kernel."""


def by_torch_in_float64(noisy, clean, components, *, slopes):
    key = (noisy.numpy().tobytes(), clean.numpy().tobytes(), noisy.shape, tuple(components), slopes)
    if key not in EXACT:
        assert backend(dtype=torch.float64) == "torch"
        exact = [image.double().requires_grad_(slopes) for image in (noisy, clean)]
        wanted = scores_of(*exact, components)
        EXACT[key] = wanted.detach(), both_gradients(wanted.mT, exact) if slopes else None
    return EXACT[key]


def assert_like_torch_in_float64(noisy, clean, components, tolerance=1e-5, slope_tolerance=1e-4):
    """Scores and the gradients of float32 images, together and alone, against the engine in torch in float64."""
    components = list(components)
    inputs = [image.clone().requires_grad_() for image in (noisy, clean)]
    reached = scores_of(*inputs, components).mT
    wanted, slopes = by_torch_in_float64(noisy, clean, components, slopes=True)
    assert reached.dtype == torch.float32
    torch.testing.assert_close(reached.double(), wanted.mT, rtol=0, atol=tolerance, equal_nan=True)
    together = both_gradients(reached, inputs)
    for one, other in zip(together, slopes, strict=True):
        assert one.isfinite().all()
        assert (one - other).norm() <= slope_tolerance * other.norm() + 1e-12
    for side in (0, 1):
        pair = [image if i == side else image.detach() for i, image in enumerate(inputs)]
        alone = both_gradients(scores_of(*pair, components).mT, pair[side])[0]
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


def assert_views_like_torch_in_float64(noisy, clean, components, tolerance=2e-5):
    """Scores of attackers without pull-back in the kernel, by it and by torch, both with and without a graph."""
    components = list(components)
    wanted, _ = by_torch_in_float64(noisy, clean, components, slopes=False)
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


@in_one_graph
@pytest.mark.parametrize("kernel", list(recipe.variants())[:1], indirect=True)  # the graph is the same for all
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
    kernel.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    assert backend() == "native"  # because it was built


def test_a_variant_that_there_is_not_is_refused_with_those_that_there_are(cache, monkeypatch):
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(cache))
    build_native()
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    best = backend().isa
    assert best in recipe.variants()
    native.loaded.cache_clear()
    monkeypatch.setenv("ATTACKER_METRICS_ISA", "sse9")
    with pytest.raises(ValueError, match=rf"ATTACKER_METRICS_ISA must be unset or .* can run, '{best}'.*, got 'sse9'"):
        multi_attacker_scores(*pictures(), betas=(0.5, 0.5))


def test_without_a_built_kernel_the_default_is_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(tmp_path))
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    native.loaded.cache_clear()
    assert backend() == "torch"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")  # of torch's own tracing
@pytest.mark.skipif(sys.platform == "win32", reason="torch.compile wants another compiler there")
def test_a_compiled_call_builds_the_kernel_if_it_can_and_runs_in_torch_if_not(remembering, monkeypatch, tmp_path):
    noisy, clean = pictures(1, 24, 24)
    wanted = multi_attacker_scores(noisy, clean, betas=(0.5, 0.5))
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    for compiler, chosen in (("absent", "torch"), (remembering, "native")):
        monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(tmp_path / chosen))
        monkeypatch.setenv("CXX", compiler)
        for cached in (native.loaded, native.try_to_build):
            cached.cache_clear()
        torch._dynamo.reset()
        reached = torch.compile(multi_attacker_scores, backend="aot_eager")(noisy, clean, betas=(0.5, 0.5))
        assert backend() == chosen
        assert all((reached[name] - wanted[name]).abs().max() <= 1e-5 for name in wanted)


posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes of files, and shells, are POSIX's")

PLANTED = """
#include <stdint.h>
#include <stdio.h>
__attribute__((constructor)) static void run(void) { fclose(fopen("%s", "w")); }
const char* attacker_metrics_isas(void) { return "planted"; }
int attacker_metrics_forward_planted(void* i, void* d, void* n, void* c, void* f, int64_t batch, int64_t channels, int64_t h,
                                     int64_t w, int threads, float* scores, float* s0, float* s1, void* given) {
  for (int64_t k = 0; k < batch; ++k) scores[k] = 2e35f;
  return 0;
}
int attacker_metrics_backward_planted() { return 0; }
"""


def compiled(folder, source):
    """A library of a C source."""
    (folder / "planted.c").write_text(source)
    command = [
        *recipe.compiler(),
        "-x",
        "c",
        "-shared",
        "-fPIC",
        str(folder / "planted.c"),
        "-o",
        str(folder / "planted.so"),
    ]
    subprocess.run(command, check=True)
    return (folder / "planted.so").read_bytes()


@pytest.fixture
def found(cache, monkeypatch, tmp_path):
    """A genuine library in a private folder of its own, not loaded yet, and nothing asked for."""
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(cache))
    made = build_native()
    folder = tmp_path / "above" / "cache"
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(folder))
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    trust.make_private(folder)
    shutil.copy(made, native.library())
    native.loaded.cache_clear()
    return native.library()


def assert_torch_with_one_warning(reason):
    noisy, clean = pictures()
    with pytest.warns(AttackerMetricsWarning, match=reason) as warned:  # noqa: PT031 - one warning for all three
        assert backend() == "torch"
        scores = multi_attacker_scores(noisy, clean, betas=(0.5, 0.5))
        assert backend() == "torch"
    assert len(warned) == 1
    assert "build_native()" in str(warned[0].message)
    exact = multi_attacker_scores(noisy.double(), clean.double(), betas=(0.5, 0.5))
    assert all((scores[name] - exact[name]).abs().max() <= 2e-5 for name in exact)


@posix
@pytest.mark.parametrize("which", ["file", "folder", "above"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777])
def test_a_library_that_others_could_have_written_is_not_loaded(found, which, mode):
    place = {"file": found, "folder": found.parent, "above": found.parent.parent}[which]
    place.chmod(mode)
    if (which, mode) == ("above", 0o1777):  # as /tmp is: there nobody can replace what is another's
        assert backend() == "native"
        return
    assert_torch_with_one_warning(rf"others can write to {place} \(mode {mode:o}\); chmod go-w")
    place.chmod(0o755)
    native.loaded.cache_clear()
    assert backend() == "native"


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["file", "folder", "above"])
def test_a_library_that_belongs_to_another_user_is_not_loaded(found, which):
    place = {"file": found, "folder": found.parent, "above": found.parent.parent}[which]
    os.chown(place, 12345, -1)
    assert_torch_with_one_warning(f"{place} belongs to another user, number 12345")


@posix
@pytest.mark.parametrize("mode", [0o777, 0o700])
def test_a_planted_library_is_never_run(found, tmp_path, mode):
    found.write_bytes(compiled(tmp_path, PLANTED % (tmp_path / "it ran")))
    found.parent.chmod(mode)
    assert_torch_with_one_warning("others can write to" if mode == 0o777 else "its checksum is missing or wrong")
    assert not (tmp_path / "it ran").exists()
    if mode == 0o777:
        with pytest.raises(RuntimeError, match="others can write to"):
            build_native()


def damaged(library, damage):
    whole = library.read_bytes()
    library.unlink()  # the old one may be mapped
    library.write_bytes(damage(whole))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:20_000] + bytes([whole[20_000] ^ 1]) + whole[20_001:],
        lambda whole: whole + b"\n",
        lambda whole: whole[:100] + whole[-len(whole) // 4 :],
    ],
    ids=["empty", "half", "a byte less", "a bit", "a byte more", "a hole"],
)
def test_a_damaged_library_is_not_loaded(found, damage):
    damaged(found, damage)
    assert_torch_with_one_warning("its checksum is missing or wrong, so it is damaged or not from here; delete it")


def test_a_library_that_cannot_be_used_is_built_anew(found):
    damaged(found, lambda whole: whole[:-1])
    assert build_native() == found
    assert backend() == "native"


def test_a_library_of_other_sources_or_flags_is_not_loaded(found, monkeypatch):
    other = found.read_bytes()
    native._fingerprint.cache_clear()
    monkeypatch.setattr(recipe, "FLAGS", (*recipe.FLAGS, "-ffast-math"))
    try:
        native.library().write_bytes(other)
        assert native.library() != found
        assert_torch_with_one_warning("its checksum is missing or wrong")
    finally:
        native._fingerprint.cache_clear()


@posix
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("int unrelated;", "it lacks a function, .*attacker_metrics_isas"),
        (PLANTED, r"its functions fail their check, their scores are off by (nan|2e\+35)"),
        (None, "it cannot be loaded"),
    ],
    ids=["no functions", "wrong numbers", "no library"],
)
def test_a_library_with_a_checksum_is_checked_before_use_all_the_same(found, tmp_path, source, reason):
    found.unlink()
    found.write_bytes(b"text" if source is None else compiled(tmp_path, source.replace("%s", str(tmp_path / "it ran"))))
    trust.seal(found, native._fingerprint())
    assert_torch_with_one_warning(reason)


@posix
@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder"])
def test_what_is_no_file_is_not_opened(found, tmp_path, kind):
    aside = found.rename(tmp_path / "aside.so")
    {"a link": lambda: found.symlink_to(aside), "a pipe": lambda: os.mkfifo(found), "a folder": found.mkdir}[kind]()
    assert_torch_with_one_warning("it is a symbolic link" if kind == "a link" else "it is not a file")


@pytest.fixture
def shipped(found, monkeypatch, tmp_path):
    """The library as part of the package, nothing in the cache; owners and modes are those of the code beside it."""
    place = tmp_path / "package" / recipe.SHIPPED
    place.parent.mkdir()
    place.parent.chmod(0o777)
    found.rename(place)
    monkeypatch.setattr(native, "SHIPPED", place)
    return place


@pytest.mark.parametrize("linked", [False, True])
def test_the_library_that_came_with_the_package_is_the_default(shipped, tmp_path, linked):
    if linked:  # as some installers do
        shipped.symlink_to(shipped.rename(tmp_path / "of an installer's cache"))
    assert backend() == "native"
    assert str(backend()) == f"native ({backend().isa})"
    assert backend().isa in recipe.variants()
    assert build_native() == shipped
    assert list(native.library().parent.iterdir()) == []


@pytest.mark.parametrize("made_from", ["", "other sources"])
def test_a_shipped_library_that_is_damaged_or_of_other_sources_is_not_used(shipped, made_from):
    if made_from:
        content = shipped.read_bytes()[: -trust._LENGTH]
        shipped.unlink()
        shipped.write_bytes(content)
        trust.seal(shipped, made_from)
    else:
        damaged(shipped, lambda whole: whole[: len(whole) // 2])
    assert_torch_with_one_warning("so it is damaged or of other sources; install the package again")
    before = shipped.read_bytes()
    built = build_native()
    assert built == native.library()
    assert backend() == "native"
    assert shipped.read_bytes() == before


@posix
def test_a_shipped_library_with_wrong_numbers_is_not_used(shipped, tmp_path):
    shipped.unlink()
    shipped.write_bytes(compiled(tmp_path, PLANTED % (tmp_path / "it ran")))
    trust.seal(shipped, native._fingerprint())
    assert_torch_with_one_warning(r"their scores are off by (nan|2e\+35); install the package again")


def test_the_digest_of_a_library_follows_its_sources_and_not_their_line_ends(monkeypatch, tmp_path):
    shutil.copytree(recipe._FOLDER, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    monkeypatch.setattr(recipe, "_FOLDER", tmp_path / "copy")
    assert recipe.fingerprint() == native._fingerprint()
    for name in ("kernel.cpp", "dispatch.cpp", "ms_ssim.h"):
        file = tmp_path / "copy" / name
        content = file.read_bytes()
        file.write_bytes(content.replace(b"\n", b"\r\n"))
        assert recipe.fingerprint() == native._fingerprint()
        file.write_bytes(content + b"//\n")
        assert recipe.fingerprint() != native._fingerprint()
        file.write_bytes(content)


def test_the_check_does_not_depend_on_what_the_caller_has_switched_on(found):
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert backend() == "native"
    finally:
        torch.set_default_dtype(default)


def test_a_folder_that_is_none_leaves_the_default_with_torch(found, monkeypatch):
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(found))
    native.loaded.cache_clear()
    assert backend() == "torch"
    with pytest.raises(OSError, match=found.name):
        build_native()


@posix
def test_the_folder_is_made_for_its_user_alone_whatever_the_umask_and_found_again_by_a_relative_name(
    cache, monkeypatch, tmp_path
):
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", "a/b")
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        made = build_native()
    finally:
        os.umask(before)
    assert made == tmp_path / "a" / "b" / made.name
    assert [place.stat().st_mode & 0o777 for place in (made, made.parent, made.parent.parent)] == [0o755, 0o700, 0o700]
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    assert backend() == "native"
    monkeypatch.chdir(made.parent)
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", ".")
    native.loaded.cache_clear()
    assert backend() == "native"


@posix
def test_without_a_home_directory_torch_runs_and_building_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in (("ATTACKER_METRICS_CACHE", ""), ("XDG_CACHE_HOME", "relative"), ("HOME", "relative")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    native.loaded.cache_clear()
    assert backend() == "torch"
    with pytest.raises(RuntimeError, match=r"no home directory .* set ATTACKER_METRICS_CACHE"):
        build_native()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", "fortran")
    with pytest.raises(
        ValueError, match=r"ATTACKER_METRICS_BACKEND must be 'torch', 'native' or 'triton' or unset, got 'fortran'"
    ):
        multi_attacker_scores(*pictures(), betas=(0.5, 0.5))


def script(folder, text):
    """A compiler that does what a shell script says."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@posix
@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("no-such-compiler", "no C\\+\\+ compiler: no-such-compiler not found"),
        ("false", "exit status 1"),
        ("echo half > $out; echo No space left on device; exit 4", "exit status 4:\nNo space left"),
        ("sleep 1000 & sleep 1000", "did not end within 1 s"),
        ("cat", "ended without an error and made nothing"),  # it reads its input
        ("echo text > $out", "The check of what .* made failed with exit status 1:\n(.*\n)*.*it cannot be loaded"),
        ("cp PLANTED $out", "The check of what .* made failed with exit status 1:\n(.*\n)*.*scores are off"),
        ("cp CRASHING $out", "The check of what .* made failed with exit status -11"),
    ],
)
def test_a_compiler_that_fails_is_a_clear_error_and_leaves_nothing_behind(cache, monkeypatch, tmp_path, compiler, message):
    for name, source in (("PLANTED", PLANTED % (tmp_path / "it ran")), ("CRASHING", PLANTED.replace("2e35f", "*(float*)8"))):
        if name in compiler:
            (tmp_path / name).write_bytes(compiled(tmp_path, source.replace("%s", "/dev/null")))
            compiler = compiler.replace(name, str(tmp_path / name))
    if " " in compiler or compiler == "cat":
        compiler = script(tmp_path, "for out; do :; done\n" + compiler)
    if "within" in message:
        monkeypatch.setattr(recipe, "PATIENCE", 1)
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(folder))
    monkeypatch.setenv("ATTACKER_METRICS_BACKEND", "native")
    monkeypatch.setenv("CXX", compiler)
    native.loaded.cache_clear()
    with pytest.raises(RuntimeError, match=message):
        multi_attacker_scores(*pictures(), betas=(0.5, 0.5))
    assert list(folder.iterdir()) == []


@posix
def test_an_interrupted_build_leaves_nothing_behind_and_a_killed_one_nothing_for_long(cache, monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    compiler = script(tmp_path, f"echo $$ >> {tmp_path}/numbers; exec sleep 1000")
    environment = {**os.environ, "ATTACKER_METRICS_CACHE": str(folder), "CXX": compiler}
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background jobs do not
    command = [sys.executable, "-c", f"{listening}\n{NOTHING_SHIPPED}am.build_native()"]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "numbers").exists() or not (tmp_path / "numbers").read_text():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in running.communicate()[1]
    assert list(folder.iterdir()) == []
    for number in (tmp_path / "numbers").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)
    for name, age in (("building-old", 86_400), ("building-new", 0), ("theirs", 86_400)):
        (folder / name).mkdir()
        os.utime(folder / name, (time.time() - age,) * 2)
    monkeypatch.setenv("ATTACKER_METRICS_CACHE", str(folder))
    made = build_native()
    assert {place.name for place in folder.iterdir()} == {"building-new", "theirs", made.name}


@posix
def test_a_compiler_may_come_with_words_of_its_own(cache, monkeypatch):
    command = recipe.compiler()
    monkeypatch.setenv("CXX", f"env {' '.join(command)} -pipe")
    assert recipe.compiler() == [shutil.which("env"), *command, "-pipe"]


def test_processes_that_build_at_once_both_succeed(cache, tmp_path):
    environment = {**os.environ, "ATTACKER_METRICS_CACHE": str(tmp_path), "ATTACKER_METRICS_BACKEND": "native"}
    command = [sys.executable, "-c", f"{NOTHING_SHIPPED}am.build_native(); print(am.backend())"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert all(process.communicate()[0].startswith("native") for process in running)
    assert len(list(tmp_path.iterdir())) == 1
