"""The spectrum attacker: what a fixed key does to every coefficient is learned from pairs and undone, and nothing else."""

import io

import numpy as np
import pytest
import torch
from reference import photographs
from scipy import fft, ndimage

from attacker_metrics import SquaredPearson
from attacker_metrics.reading.learned import SpectrumAttacker, standard_learned
from attacker_metrics.reading.learned.bases import BASES
from attacker_metrics.reading.learned.curves import apply_curve, fit_curve

SIZE, FITTED = (26, 24), 60
SECRET = np.random.default_rng(5)
TURN = np.exp(2j * np.pi * SECRET.random((3, *SIZE)))
SIGNS = SECRET.choice([-1.0, 1.0], (3, *SIZE))
KERNEL = SECRET.random((1, 1, 7, 7)) ** 2 / 16
MATRICES = SECRET.standard_normal((*SIZE, 3, 3))
ROLLS = SECRET.integers(0, SIZE[1], SIZE[0])


def crops(count=120, seed=0, size=SIZE):
    """Crops of four photographs in 8 bits, ``(count, 3, *size)``; those of the scored half are other photographs'."""
    whole = torch.from_numpy(photographs(176, 176)).float()
    generator = torch.Generator().manual_seed(seed)
    places = [(int(torch.randint(0, 176 - side, (), generator=generator))) for _ in range(count) for side in size]
    cut = [whole[2 * (i >= FITTED) + i % 2, :, y : y + size[0], x : x + size[1]] for i, (y, x) in enumerate(_twos(places))]
    return (torch.stack(cut) * 255).round() / 255


def _twos(values):
    return zip(values[::2], values[1::2], strict=True)


def phases(x):
    return np.fft.irfft2(np.fft.rfft2(x) * TURN[..., : SIZE[1] // 2 + 1], SIZE)


def cosine_signs(x, signs, axes):
    return fft.idctn(fft.dctn(x, axes=axes, norm="ortho") * signs, axes=axes, norm="ortho")


def noise(x, level):
    return x + level * np.random.default_rng(1).standard_normal(x.shape)


KEYS = {
    "as it is": lambda x: x,
    "Fourier phases": phases,
    "a filter with circular borders": lambda x: ndimage.convolve(x, KERNEL, mode="wrap"),
    "a circular shift": lambda x: np.roll(x, (5, 9), (2, 3)),
    "every row rolled by its own amount": lambda x: np.stack([np.roll(x[:, :, r], ROLLS[r], 2) for r in range(SIZE[0])], 2),
    "signs of cosine coefficients": lambda x: cosine_signs(x, SIGNS, (2, 3)),
    "a colour matrix of every pixel": lambda x: np.einsum("hwcd,bdhw->bchw", MATRICES, x),
    "faint phases around grey": lambda x: 0.5 + 1e-3 * (phases(x) - 0.5),
    "phases, then a tone curve": lambda x: np.tanh(phases(x)) ** 3,
    "a tone curve, then phases": lambda x: phases(1 - x**2.5),
}


def hidden(name, clean):
    return torch.from_numpy(np.asarray(KEYS[name](clean.double().numpy()))).float()


def fitted(noisy, clean):
    attacker = SpectrumAttacker()
    attacker.fit_update(noisy[:FITTED], clean[:FITTED], ids=range(FITTED))
    attacker.fit_compute()
    return attacker


@pytest.mark.parametrize("name", KEYS)
def test_a_fixed_key_is_learned_and_undone_on_other_photographs(name):
    clean = crops()
    noisy = hidden(name, clean)
    attacker = fitted(noisy, clean)
    restored = SquaredPearson()(attacker(noisy[FITTED:]), clean[FITTED:])
    assert restored.median() >= 0.95, (attacker.found, restored.median())


def test_ten_pairs_suffice_for_phases_without_noise():
    clean = crops()
    noisy = hidden("Fourier phases", clean)
    attacker = SpectrumAttacker()
    attacker.fit_update(noisy[:10], clean[:10])
    attacker.fit_compute()
    assert attacker.found == "Fourier"
    assert (attacker(noisy[FITTED:]) - clean[FITTED:]).abs().mean() < 0.02


def test_signs_of_block_coefficients_are_undone_also_at_sides_that_hold_no_whole_number_of_blocks():
    clean = crops()
    blocks = clean[:, :, :24].double().numpy().reshape(len(clean), 3, 3, 8, 3, 8)
    signs = SECRET.choice([-1.0, 1.0], blocks.shape[1:])
    turned = cosine_signs(blocks, signs, (3, 5))
    noisy = clean.clone()
    noisy[:, :, :24] = torch.from_numpy(turned.reshape(len(clean), 3, 24, 24)).float()
    attacker = fitted(noisy, clean)
    assert attacker.found == "cosines of blocks of 8"
    assert SquaredPearson()(attacker(noisy[FITTED:]), clean[FITTED:]).median() >= 0.95


def test_the_restoration_under_noise_is_wieners():
    """Of white noise on a shift the best linear filter by theory, from the true spectra, is not beaten and nearly met."""
    clean = crops(400)
    noisy = torch.from_numpy(noise(np.roll(clean.numpy(), (5, 9), (2, 3)), 0.2)).float()
    attacker = SpectrumAttacker()
    attacker.fit_update(noisy[:300], clean[:300])
    attacker.fit_compute()
    mean = clean[:300].mean(dim=0)
    spectra = torch.fft.fft2(clean[:300] - mean, norm="ortho")
    power = torch.einsum("nchw,ndhw->hwcd", spectra, spectra.conj()) / 300
    wiener = power @ torch.linalg.inv(power + 0.2**2 * torch.eye(3))
    centred = torch.fft.fft2(noisy[300:].roll((-5, -9), (2, 3)) - mean, norm="ortho")
    best = torch.fft.ifft2(torch.einsum("hwcd,ndhw->nchw", wiener, centred), norm="ortho").real + mean
    ours, theirs = ((view - clean[300:]).square().mean() for view in (attacker(noisy[300:]), best))
    assert theirs * 0.8 < ours < theirs * 1.15


def test_noise_and_pictures_of_others_give_the_mean_picture():
    clean = crops()
    for noisy in (torch.rand(clean.shape, generator=torch.Generator().manual_seed(3)), torch.full_like(clean, 0.5)):
        attacker = fitted(noisy, clean)
        assert attacker.found is None
        assert torch.allclose(attacker(noisy[FITTED:]), clean[:FITTED].mean(dim=0).expand(len(clean) - FITTED, -1, -1, -1))


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("size", [(26, 24), (17, 23)])
def test_transforms_are_inverted_and_keep_lengths(name, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    coefficients = BASES[name].coefficients(x)
    assert torch.allclose(BASES[name].picture(coefficients, *size), x)
    if "blocks" not in name and not coefficients.is_complex():
        assert torch.allclose(coefficients.square().sum(), x.square().sum())


def test_a_curve_is_the_mean_of_neighbours_and_takes_few_values_as_they_are():
    x = torch.rand(8, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    curve = fit_curve(x, x.square())
    assert (apply_curve(x, curve) - x.square()).abs().max() < 0.02
    steps = (x * 4).round() / 4
    assert torch.allclose(apply_curve(steps, fit_curve(steps, 1 - steps)), 1 - steps, atol=1e-5)


def test_the_fit_does_not_depend_on_order_or_processes_and_survives_saving():
    clean = crops()
    noisy = hidden("phases, then a tone curve", clean)
    whole = fitted(noisy, clean)
    parts = [SpectrumAttacker(), SpectrumAttacker()]
    for i in reversed(range(FITTED)):
        parts[i % 2].fit_update(noisy[i : i + 1], clean[i : i + 1], ids=[i])
    saved = io.BytesIO()
    torch.save(parts[1].state_dict(), saved)
    again = SpectrumAttacker()
    again.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    parts[0].fit_merge(again.fit_state())
    parts[0].fit_compute()
    loaded = SpectrumAttacker().half()
    loaded.load_state_dict(parts[0].state_dict())
    assert loaded.found == whole.found
    assert torch.equal(loaded(noisy[FITTED:]), whole(noisy[FITTED:]))
    assert loaded(noisy[FITTED:].half()).dtype == torch.float16


def test_the_gradient_flows_through_the_view():
    clean = crops()
    noisy = hidden("Fourier phases", clean)
    attacker = fitted(noisy, clean)
    sent = noisy[FITTED : FITTED + 2].clone().requires_grad_()
    attacker(sent).square().sum().backward()
    assert sent.grad is not None
    assert sent.grad.abs().max() > 0


def test_what_it_cannot_learn_from_is_told():
    clean = crops(20)
    attacker = SpectrumAttacker()
    attacker.fit_update(clean[:4], clean[:4])
    with pytest.raises(ValueError, match=r"4 pairs are too few for SpectrumAttacker\(\) to learn from: at least 8"):
        attacker.fit_compute()
    attacker.fit_update(clean, clean)
    attacker.fit_compute()
    with pytest.raises(ValueError, match=r"fitted on pictures of \(26, 24\) pixels, got \(13, 24\)"):
        attacker(clean[:1, :, :13])
    assert [metric.name for metric in standard_learned(["spectrum"])] == ["spectrum_gray", "pearson_spectrum"]
