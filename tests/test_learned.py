"""Learned attackers: exact fits, splits that cannot overlap, the same result however the fit split is dealt out."""

import pickle
import subprocess
import sys
from pathlib import Path

import learned_script
import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from conftest import SMALL, photo_pair, pictures, spoil
from torchmetrics import MetricCollection

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.reading.learned import (
    CNNAttacker,
    CNNAttackerMSSSIM,
    CNNAttackerPearson,
    FitOverlapError,
    LinearAttacker,
    LinearAttackerMSSSIM,
    LinearAttackerPearson,
    NormalEquations,
    NotFittedError,
    in_fit_split,
)

ATTACKERS = (lambda: LinearAttacker(3), lambda: LinearAttacker(4, 4), lambda: CNNAttacker(steps=5))
every_attacker = pytest.mark.parametrize("make", ATTACKERS, ids=["filter", "blocks", "cnn"])


def photographs(obfuscation, height=64, width=72):
    return tuple(torch.tensor(images, dtype=torch.float32) for images in photo_pair(obfuscation, height, width))


def fitted(attacker, noisy, clean, ids=None):
    attacker.fit_update(noisy, clean, ids)
    attacker.fit_compute()
    return attacker


def test_the_filter_is_the_least_squares_solution_of_numpy():
    noisy, clean = (images[:, :, :30, :26].double() for images in photographs("noise"))
    rows, targets = [], []
    for x, y in zip(noisy.numpy(), clean.numpy(), strict=True):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (3, 30, 26, 3, 3)
        rows.append(windows.transpose(1, 2, 0, 3, 4).reshape(-1, 27))
        targets.append(y.reshape(3, -1).T)
    x, y = np.concatenate(rows), np.concatenate(targets)
    expected, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)
    attacker = fitted(LinearAttacker(3), noisy, clean)
    np.testing.assert_allclose(attacker.weights[:-1], expected[:-1], rtol=0, atol=1e-6)
    predicted = (np.column_stack([x, np.ones(len(x))]) @ expected).reshape(4, 30, 26, 3).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(attacker(noisy), predicted, rtol=0, atol=1e-7)


def test_the_block_map_is_the_least_squares_solution_of_numpy():
    noisy, clean = (images[:, :, :33, :38].double() for images in photographs("noise"))  # sides that are no multiples of 4
    x, y = (
        image[:, :, :32, :36].unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 48).numpy()
        for image in (noisy, clean)
    )
    expected, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)
    attacker = fitted(LinearAttacker(4, 4), noisy, clean)
    np.testing.assert_allclose(attacker.weights[:-1], expected[:-1], rtol=0, atol=1e-6)
    assert attacker(noisy).shape == noisy.shape


@pytest.mark.parametrize("contrast", [1.0, -0.5, 1e-3, 1e-5])
def test_a_secret_filter_is_undone_at_any_contrast(contrast):
    _, clean = photographs("noise")
    kernel = torch.zeros(3, 3, 3, 3)
    kernel[:, :, 1, 1] = torch.tensor([[0.2, 0.5, -0.4], [1.0, 0.1, 0.3], [-0.3, 0.6, 0.9]])
    kernel += 0.02 * torch.randn(kernel.shape)
    hidden = 0.4 + contrast * F.conv2d(F.pad(clean, (1, 1, 1, 1), mode="reflect"), kernel)
    attacker = fitted(LinearAttacker(5), hidden[:2], clean[:2])
    restored = attacker(hidden[2:])
    assert (restored - clean[2:]).square().mean() < 1e-3 * clean[2:].var()


def test_a_permutation_within_blocks_is_undone_by_the_map_of_blocks():
    _, clean = photographs("noise", 176, 176)
    order = torch.randperm(16)
    blocks = F.unfold(clean.flatten(0, 1)[:, None], 4, stride=4)
    hidden = F.fold(blocks[:, order], (176, 176), 4, stride=4).view_as(clean)
    attacker = fitted(LinearAttacker(4, 4), hidden[:2], clean[:2])
    torch.testing.assert_close(attacker(hidden[2:]), clean[2:], rtol=0, atol=1e-3)


def test_noisy_pictures_without_colour_or_contrast_have_a_solution():
    _, clean = photographs("noise")
    gray = clean.mean(dim=1, keepdim=True).expand_as(clean)
    assert (fitted(LinearAttacker(3), gray, clean)(gray) - clean).square().mean() < clean.var()
    flat = torch.full_like(clean, 0.25)
    expected = clean.mean(dim=(0, 2, 3)).view(1, 3, 1, 1).expand_as(clean)
    torch.testing.assert_close(fitted(LinearAttacker(3), flat, clean)(flat), expected, rtol=0, atol=1e-5)


@every_attacker
def test_batches_and_their_order_do_not_matter(make):
    noisy, clean = photographs("noise")
    ids = ["a", "b", "c", "d"]
    whole, parts = fitted(make(), noisy, clean, ids), make()
    for i in (3, 1, 0, 2):
        parts.fit_update(noisy[i : i + 1], clean[i : i + 1], ids[i : i + 1])
    parts.fit_compute()
    torch.testing.assert_close(parts(noisy), whole(noisy), rtol=0, atol=1e-6)


@every_attacker
def test_pairs_with_a_non_finite_pixel_are_left_out_of_the_fit(make):
    noisy, clean = photographs("noise")
    attacker = fitted(make(), spoil(noisy, 1), clean, ["a", "b", "c", "d"])
    assert attacker.fit_count == 3
    rest = [0, 2, 3]
    torch.testing.assert_close(attacker(noisy), fitted(make(), noisy[rest], clean[rest], ["a", "c", "d"])(noisy))


@every_attacker
def test_a_finite_value_whose_square_is_not_leaves_finite_parameters(make):
    """Scoring cuts values at 1e15; the fit reads the same pictures."""
    noisy, clean = (images.double() for images in photographs("noise"))
    noisy[0, 0, 0, 0] = 1e200
    assert fitted(make(), noisy, clean)(noisy[1:]).isfinite().all()


@every_attacker
def test_it_survives_pickling_and_a_state_dict(make):
    noisy, clean = photographs("noise")
    attacker = fitted(make(), noisy, clean, [0, 1, 2, 3])
    loaded = make()
    loaded.load_state_dict(attacker.state_dict())
    for copy in (loaded, pickle.loads(pickle.dumps(attacker))):
        torch.testing.assert_close(copy(noisy), attacker(noisy), rtol=0, atol=0)
        with pytest.raises(FitOverlapError, match="1 images were in the fit split, such as '2'"):
            copy.check_unseen([2, 7])


@every_attacker
def test_the_gradient_flows_through_the_view(make):
    noisy, clean = photographs("noise")
    attacker = fitted(make(), noisy, clean)
    images = noisy.clone().requires_grad_()
    attacker(images).square().sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().amax() > 0
    assert not any(p.requires_grad for p in attacker.parameters())


def test_equations_merge_and_are_exact_sums():
    x, y = torch.rand(5, 400, dtype=torch.float64), torch.rand(2, 400, dtype=torch.float64)
    whole, left, right = (NormalEquations(5, 2) for _ in range(3))
    whole.update(x, y)
    left.update(x[:, :150], y[:, :150])
    right.update(x[:, 150:], y[:, 150:])
    left.merge_state(right)
    torch.testing.assert_close(left.compute(), whole.compute(), rtol=0, atol=1e-12)
    assert left.half().moments.dtype == torch.float64
    few = NormalEquations(5, 2)
    few.update(x[:, :4], y[:, :4])
    with pytest.raises(ValueError, match="4 samples are too few for 5 weights"):
        few.compute()


def test_metrics_score_what_the_attacker_restores():
    noisy, clean = photographs("inversion")
    attacker = fitted(LinearAttacker(3), noisy[:2], clean[:2], ["a", "b"])
    metrics = {m.name: m for m in (LinearAttackerMSSSIM(attacker, betas=SMALL), LinearAttackerPearson(attacker))}
    restored = attacker(noisy[2:]).double().numpy()
    for metric in metrics.values():
        metric.update(noisy[2:], clean[2:], ids=["c", "d"])
    views = [
        (reference.clamp(reference.luma(x)), reference.luma(y))
        for x, y in zip(restored, clean[2:].double().numpy(), strict=True)
    ]
    for name, function in (
        ("linear_gray", lambda x, y: reference.ms_ssim(x, y, SMALL)),
        ("pearson_linear", reference.pearson_sq),
    ):
        assert float(metrics[name].compute()) == pytest.approx(np.mean([function(*pair) for pair in views]), abs=2e-5)
        assert int(metrics[name].count) == 2
    together = MultiAttackerPrivacy(betas=SMALL, extra=list(metrics.values()))
    assert list(together(noisy[2:], clean[2:]))[-2:] == ["linear_gray", "pearson_linear"]
    copies = MetricCollection({"one": LinearAttackerMSSSIM(attacker, betas=SMALL)}).clone()
    copies.update(noisy[2:], clean[2:])
    assert float(copies.compute()["one"]) == pytest.approx(float(metrics["linear_gray"].compute()), abs=1e-6)


@pytest.mark.parametrize("cls", [LinearAttackerMSSSIM, LinearAttackerPearson, CNNAttackerMSSSIM, CNNAttackerPearson])
def test_scoring_before_the_fit_or_on_the_fit_split_is_an_error(cls):
    noisy, clean = photographs("noise")
    metric = cls(CNNAttacker(steps=2)) if cls.__name__.startswith("CNN") else cls()
    if hasattr(metric.components[0].similarity, "betas"):
        metric = cls(metric.attacker, betas=SMALL)
    with pytest.raises(NotFittedError, match=r"is not fitted: feed it .* by fit_update"):
        metric.update(noisy, clean)
    metric.fit_update(noisy[:2], clean[:2], ids=["a", "b"])
    metric.fit_compute()
    for call in (metric.update, metric):
        with pytest.raises(FitOverlapError, match="1 images were in the fit split, such as 'b'"):
            call(noisy[1:3], clean[1:3], ids=["b", "c"])
    assert int(metric.count) == 0
    metric.update(noisy[2:], clean[2:], ids=["c", "d"])
    metric.reset()
    assert metric.attacker.is_fitted


def test_bad_fits_are_named():
    noisy, clean = pictures(2, 40, 40)
    with pytest.raises(ValueError, match="ids must name each of the 2 pairs, got 1"):
        LinearAttacker(3).fit_update(noisy, clean, ["a"])
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got ndarray"):
        LinearAttacker(3).fit_update(noisy.numpy(), clean.numpy())
    with pytest.raises(ValueError, match=r"leave \[0, 1\] by more than 1e-3"):
        LinearAttacker(3).fit_update(noisy, 3 * clean)
    with pytest.raises(ValueError, match="0 samples are too few for 27 weights"):
        LinearAttacker(3).fit_compute()
    with pytest.raises(ValueError, match="saw no finite pair"):
        CNNAttacker().fit_compute()
    with pytest.raises(ValueError, match="sides of at least 32 pixels"):
        CNNAttacker().fit_update(noisy[..., :20], clean[..., :20])
    with pytest.raises(ValueError, match=r"hold no block of 8 x 8"):
        LinearAttacker(8, 8).fit_update(noisy[:, :, :7], clean[:, :, :7])
    with pytest.raises(ValueError, match="3 x 40 pixels are too small for a window of 7"):
        LinearAttacker(7).fit_update(noisy[:, :, :3], clean[:, :, :3])
    with pytest.raises(ValueError, match="kernel_size=4 and stride=1"):
        LinearAttacker(4, 1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        CNNAttacker(steps=0)
    with pytest.raises(ValueError, match=r"share must lie between 0 and 1, got 1\.0"):
        in_fit_split("a", share=1.0)
    attacker = fitted(LinearAttacker(3), noisy, clean)
    with pytest.raises(RuntimeError, match="is fitted; make a new one"):
        attacker.fit_update(noisy, clean)


def test_the_network_learns_what_no_filter_can_and_is_deterministic():
    """A tone curve that goes up and down: nothing linear in the noisy values restores it."""
    _, clean = photographs("noise", 176, 176)
    hidden = (2 * clean.flip(1) - 1).abs()
    first, again = (fitted(CNNAttacker(steps=10), hidden[:3], clean[:3]) for _ in range(2))
    torch.testing.assert_close(first(hidden), again(hidden), rtol=0, atol=0)
    network, linear = fitted(CNNAttacker(steps=150), hidden[:3], clean[:3]), fitted(LinearAttacker(5), hidden[:3], clean[:3])
    errors = [(attacker(hidden[:3]) - clean[:3]).square().mean() for attacker in (network, linear)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_a_training_too_short_to_learn_has_not_converged(steps):
    """Its rate falls to 0 within the few steps, so that the loss stands still though hardly anything was learned."""
    _, clean = photographs("noise", 176, 176)
    for hidden in (clean, 1 - clean.flip(1), torch.rand(clean.shape, generator=torch.Generator().manual_seed(0))):
        assert fitted(CNNAttacker(steps=steps), hidden, clean).converged is False


def test_a_network_with_nothing_left_to_learn_has_converged():
    _, clean = photographs("noise", 64, 64)
    attacker = fitted(CNNAttacker(steps=300), 1 - clean, clean)
    assert attacker.converged is True
    assert (attacker(1 - clean) - clean).square().mean() < 0.02 * clean.var()


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], ["0", "1", "2", "3"], torch.arange(4), np.arange(4), list(torch.arange(4))])
def test_ids_are_the_same_as_numbers_text_arrays_and_tensors(ids):
    """Loaders collate numbers into a tensor: its elements must not slip through the check of the overlap."""
    noisy, clean = photographs("noise")
    metric = LinearAttackerPearson(fitted(LinearAttacker(3), noisy, clean, ids))
    for again in (torch.arange(3, 7), np.arange(3, 7), [3, 4, 5, 6]):
        with pytest.raises(FitOverlapError, match="1 images were in the fit split, such as '3'"):
            metric.update(noisy, clean, ids=again)
    with pytest.raises(ValueError, match="ids must name each of the 4 pairs, got 1"):
        metric.update(noisy, clean, ids=["new"])
    assert int(metric.count) == 0


@every_attacker
def test_metrics_that_share_an_attacker_may_each_ask_for_the_fit(make):
    noisy, clean = photographs("noise")
    attacker = fitted(make(), noisy, clean)
    expected = attacker(noisy)
    attacker.fit_compute()
    torch.testing.assert_close(attacker(noisy), expected, rtol=0, atol=0)


def test_a_faint_channel_beside_strong_ones_is_found():
    """The picture hides in one channel at a contrast of 1e-5, below two of pure noise: its ridge must be as faint."""
    _, clean = photographs("noise")
    gray = clean.mean(dim=1, keepdim=True).expand_as(clean)
    hidden = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0))
    hidden[:, 0] = 1e-5 * gray[:, 0]
    attacker = fitted(LinearAttacker(3), hidden[:2], gray[:2])
    assert (attacker(hidden[2:]) - gray[2:]).square().mean() < 1e-3 * gray.var()


@pytest.mark.parametrize("level", [0.0, 0.9, 3.0])
def test_huge_weights_do_not_cost_the_digits_of_a_float32_view(level):
    _, clean = photographs("noise")
    hidden = level + 1e-5 * clean
    attacker = fitted(LinearAttacker(5), hidden[:2], clean[:2])
    exact = attacker(hidden[2:].double())
    assert attacker(hidden[2:]).dtype == torch.float32
    torch.testing.assert_close(attacker(hidden[2:]).double(), exact, rtol=0, atol=1e-4)


def test_casts_of_the_module_keep_the_weights():
    _, clean = photographs("noise")
    attacker = fitted(LinearAttacker(3), 0.5 + 1e-5 * clean, clean)
    weights = attacker.weights.clone()
    assert weights.abs().max() > torch.finfo(torch.float16).max
    for cast in (attacker.half, attacker.float, LinearAttackerPearson(attacker).half):
        cast()
        torch.testing.assert_close(attacker.weights, weights, rtol=0, atol=0)


def test_draws_under_one_name_give_the_same_network_in_any_order():
    noisy, clean = photographs("noise")
    networks = []
    for order in ([0, 1, 2, 3, 3], [3, 2, 3, 1, 0]):
        attacker = CNNAttacker(steps=5)
        for i in order:
            attacker.fit_update(noisy[i : i + 1], clean[i : i + 1], ["one name"])
        attacker.fit_compute()
        networks.append(attacker)
    torch.testing.assert_close(networks[0](noisy), networks[1](noisy), rtol=0, atol=0)


def test_a_loaded_network_remembers_that_it_had_not_converged():
    _, clean = photographs("noise", 176, 176)
    attacker, loaded = fitted(CNNAttacker(steps=10), (2 * clean.flip(1) - 1).abs(), clean), CNNAttacker(steps=10)
    loaded.load_state_dict(attacker.state_dict())
    assert loaded.converged is attacker.converged is False


@pytest.mark.parametrize("make", [LinearAttacker, lambda: CNNAttacker(steps=5)])
def test_an_unfinished_fit_is_stored_merged_and_continued(make, tmp_path):
    parts = [pictures(2, 40, 40, seed=seed) for seed in (1, 2, 3)]
    whole, first, second = make(), make(), make()
    for k, (noisy, clean) in enumerate(parts):
        names = [f"{k} {i}" for i in range(2)]
        whole.fit_update(noisy, clean, names)
        (first if k < 2 else second).fit_update(noisy, clean, names)
    torch.save(first.state_dict(), tmp_path / "unfinished.pt")
    continued = make()
    continued.load_state_dict(torch.load(tmp_path / "unfinished.pt", weights_only=True))
    assert (continued.is_fitted, continued.fit_count) == (False, 4)
    continued.fit_merge(second.fit_state())
    assert continued.fit_count == 6
    for attacker in (whole, continued):
        attacker.fit_compute()
    noisy = parts[0][0]
    torch.testing.assert_close(continued(noisy), whole(noisy), rtol=0, atol=1e-6)
    with pytest.raises(FitOverlapError):
        continued.check_unseen(["2 1"])
    for refused in (lambda: whole.fit_merge(second.fit_state()), whole.fit_state):
        with pytest.raises(RuntimeError, match="is fitted; make a new one"):
            refused()
    second.load_state_dict(whole.state_dict())  # what was unfinished is forgotten
    torch.testing.assert_close(second(noisy), whole(noisy))


def test_a_network_may_be_made_and_fitted_in_inference_mode():
    with torch.inference_mode():
        fitted(CNNAttacker(steps=2), *pictures(1, 32, 32))


def test_memory_does_not_grow_with_the_fit_split():
    attacker = CNNAttacker(steps=1)
    for seed in range(20):
        attacker.fit_update(*pictures(8, 64, 64, seed=seed), [f"{seed} {i}" for i in range(8)])
    assert len(attacker._tiles) == 512
    assert attacker._tiles[0][-1].untyped_storage().nbytes() == 6 * 32 * 32 * 4


def test_the_split_follows_the_name_alone():
    names = [f"image {i}" for i in range(2000)]
    assert [in_fit_split(name) for name in names] == [in_fit_split(name) for name in names]
    for share in (0.1, 0.5, 0.8):
        assert np.mean([in_fit_split(name, share=share) for name in names]) == pytest.approx(share, abs=0.05)


def test_no_thread_of_a_process_group_outlives_it(tmp_path):
    """Torch's optimizers would otherwise keep the group, and its threads abort one process of many at its end."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    if not Path("/proc/self/task").exists():
        pytest.skip("there is no /proc to see threads in")
    script = f"""
import torch
from pathlib import Path
from attacker_metrics.reading.learned import CNNAttacker

names = lambda: [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=0, world_size=1)
attacker = CNNAttacker(steps=1)
attacker.fit_update(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), ["a", "b"])
attacker.fit_compute()
assert any("gloo" in name for name in names()), names()
torch.distributed.destroy_process_group()
assert not any("gloo" in name for name in names()), names()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_processes_with_uneven_shares_fit_the_attacker_of_one_process(three_processes):
    linear, cnn = LinearAttacker(3), CNNAttacker(steps=5)
    for noisy, clean, ids in learned_script.shares(0):
        linear.fit_update(noisy, clean, ids)
        cnn.fit_update(noisy, clean, ids)
    linear.fit_compute()
    cnn.fit_compute()
    wanted = [linear.weights, *cnn.network.state_dict().values()]
    found = torch.load(three_processes[0] / "learned_script" / "found.pt", weights_only=True)
    assert len(found) == 2
    for weights, seen in found:
        assert seen == sorted(linear._seen)
        for got, want in zip(weights, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("pictures_of", "refused"), [(4, True), (24, False), (100, False)])
def test_held_out_error_decides_whether_a_block_map_had_pictures_enough(pictures_of, refused):
    """54 samples per picture of 48 x 72 pixels for 192 weights."""
    clean = torch.rand(pictures_of, 3, 48, 72, generator=torch.Generator().manual_seed(1))
    noisy = torch.rand(clean.shape, generator=torch.Generator().manual_seed(2))  # there is nothing to learn
    attacker = LinearAttacker(8, stride=8)
    attacker.fit_update(noisy, clean, ids=range(pictures_of))
    if refused:
        with pytest.raises(
            ValueError, match=r"216 samples are too few for 192 weights: those learned from 75% of them leave"
        ):
            attacker.fit_compute()
        return
    attacker.fit_compute()
    exact = LinearAttacker(8, stride=8)
    exact.fit_update(1 - clean, clean, ids=range(pictures_of))
    exact.fit_compute()
    assert (exact(1 - clean) - clean).abs().max() < 1e-3


def test_few_pictures_suffice_for_a_block_map_that_is_exact():
    clean = torch.rand(5, 3, 48, 72, generator=torch.Generator().manual_seed(1))
    attacker = LinearAttacker(8, stride=8)
    attacker.fit_update(clean.flip(1), clean, ids=range(5))  # 270 samples
    attacker.fit_compute()
    assert (attacker(clean.flip(1)) - clean).abs().max() < 1e-3
