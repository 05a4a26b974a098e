"""Defences against plain references, SciPy and Opacus; policies against their published table and real photographs."""

import importlib
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import photographs
from scipy import optimize, stats

from attacker_metrics.defenses import (
    DEFENSES,
    OPERATIONS,
    POLICIES,
    AugmentationPolicy,
    ClippedNoise,
    Compose,
    GaussianNoise,
    LowBitQuantization,
    MagnitudePruning,
    Operation,
    SignQuantization,
)

ALL = (
    GaussianNoise(0.1),
    MagnitudePruning(0.7),
    SignQuantization(),
    LowBitQuantization(3),
    ClippedNoise(1.0, 0.5),
    Compose(MagnitudePruning(0.5), GaussianNoise(0.1)),
)
every_defense = pytest.mark.parametrize("defense", ALL, ids=repr)


def gradients(clients=3, *, seed=0, dtype=torch.float32):
    draws = torch.Generator().manual_seed(seed)
    shapes = {"weight": (4, 3, 5), "bias": (4,), "scale": ()}
    return {name: torch.randn(clients, *shape, generator=draws, dtype=dtype) for name, shape in shapes.items()}


@every_defense
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_defence_keeps_names_shapes_types_and_its_input(defense, dtype):
    before = gradients(dtype=dtype)
    after = defense({name: gradient.clone() for name, gradient in before.items()}, torch.Generator().manual_seed(1))
    assert {n: (g.shape, g.dtype) for n, g in after.items()} == {n: (g.shape, g.dtype) for n, g in before.items()}
    again = {name: gradient.clone() for name, gradient in before.items()}
    defense(again)
    assert all(torch.equal(again[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "defense", [MagnitudePruning(0.7), SignQuantization(), LowBitQuantization(4), ClippedNoise(1.0, 0.0)]
)
def test_clients_do_not_disturb_each_other(defense):
    together, alone = gradients(), {name: gradient[1:2] for name, gradient in gradients().items()}
    assert all(torch.equal(defense(together)[name][1:2], defense(alone)[name]) for name in alone)


@every_defense
def test_draws_are_the_generators(defense):
    first, second = (defense(gradients(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_noise_has_the_normal_distribution_of_its_name():
    noise = GaussianNoise(0.02)({"w": torch.zeros(2, 20_000)}, torch.Generator().manual_seed(0))["w"]
    assert stats.kstest(noise.flatten().numpy() / 0.02, "norm").pvalue > 0.01


@given(st.floats(0, 0.99), st.integers(1, 60))
def test_pruning_keeps_the_largest_values(share, count):
    values = np.random.default_rng(count).standard_normal((2, count))
    pruned = MagnitudePruning(share)({"w": torch.tensor(values)})["w"].numpy()
    kept = max(1, count - round(share * count))
    for before, after in zip(values, pruned, strict=True):
        expected = np.zeros(count)
        largest = np.argsort(-np.abs(before))[:kept]
        expected[largest] = before[largest]
        np.testing.assert_array_equal(after, expected)


def test_pruning_of_ties_keeps_their_number():
    assert int((MagnitudePruning(0.7)({"w": torch.ones(1, 10)})["w"] != 0).sum()) == 3


@given(st.integers(2, 16))
def test_low_bit_quantisation_rounds_to_the_nearest_of_few_levels(bits):
    values = torch.randn(1, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    rounded = LowBitQuantization(bits)({"w": values})["w"]
    levels = torch.linspace(-1, 1, 2**bits - 1, dtype=torch.float64) * values.abs().max()
    nearest = (values[0, :, None] - levels).abs().min(dim=1).values
    torch.testing.assert_close((rounded - values).abs()[0], nearest, rtol=0, atol=1e-12)


def test_quantisation_of_zeros_is_zeros():
    assert all(not defense({"w": torch.zeros(2, 5)})["w"].any() for defense in (SignQuantization(), LowBitQuantization(4)))


def test_clipping_bounds_the_norm_of_all_tensors_and_leaves_small_gradients():
    before = gradients(dtype=torch.float64)
    before = {
        name: gradient * torch.tensor([10.0, 1e-3, 0.0]).view(-1, *[1] * (gradient.ndim - 1))
        for name, gradient in before.items()
    }
    after = ClippedNoise(2.0, 0.0)(before)
    norms = sum(gradient.reshape(3, -1).square().sum(dim=1) for gradient in after.values()).sqrt()
    assert norms[0] == pytest.approx(2.0)
    assert all(torch.equal(after[name][1:], before[name][1:]) for name in before)


def test_clipped_noise_has_the_scale_of_the_norm():
    noise = ClippedNoise(3.0, 0.5)({"w": torch.zeros(1, 40_000)}, torch.Generator().manual_seed(0))["w"]
    assert stats.kstest(noise.flatten().numpy() / 1.5, "norm").pvalue > 0.01


def gaussian_mechanism_epsilon(noise_multiplier, delta):
    """Balle and Wang (2018): the exact trade-off of one Gaussian mechanism, solved for epsilon."""

    def excess(epsilon):
        a, b = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
        return stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b) - delta

    return optimize.brentq(excess, 0, 100)


@pytest.mark.parametrize("noise_multiplier", [0.7, 1.1, 4.0])
def test_epsilon_is_that_of_the_gaussian_mechanism(noise_multiplier):
    pytest.importorskip("opacus", reason="needs opacus")
    exact = gaussian_mechanism_epsilon(noise_multiplier, 1e-5)
    found = ClippedNoise(1.0, noise_multiplier).epsilon(1e-5, steps=1)
    assert exact <= found <= exact + 0.02  # Opacus' bound errs upwards by up to 0.01, twice
    assert found <= ClippedNoise(9.0, noise_multiplier).epsilon(1e-5, steps=1, accountant="rdp")


@pytest.mark.parametrize(
    ("noise_multiplier", "steps", "delta", "exact"),
    [  # by mpmath with 60 digits
        (0.001, 1, 1e-5, 504263.89292065403),
        (0.01, 1, 1e-5, 5425.509846147429),
        (0.0289, 1, 1e-5, 745.2831063090579),
        (10.0, 10**6, 1e-5, 5425.509846147429),
        (1.0, 1, 1e-30, 11.743883025231737),
        (1e4, 1, 1e-5, 9.023709432563503e-05),
        (1e8, 1, 1e-5, 0.0),
    ],
)
def test_epsilon_is_exact_where_numerical_accountants_give_up(noise_multiplier, steps, delta, exact):
    pytest.importorskip("opacus", reason="needs opacus")
    defense = ClippedNoise(1.0, noise_multiplier)
    found = defense.epsilon(delta, steps=steps)
    assert found == pytest.approx(exact, rel=1e-9)
    assert found <= defense.epsilon(delta, steps=steps, accountant="rdp") <= 1.6 * found + 1e-3


@pytest.mark.filterwarnings("ignore:Optimal order:UserWarning")
@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("sample_rate", [0.01, 0.3, 0.9])
def test_one_step_of_a_sample_is_what_the_numerical_accountant_bounds(noise_multiplier, sample_rate):
    accountants = pytest.importorskip("opacus.accountants", reason="needs opacus")
    ledger = accountants.create_accountant("prv")
    ledger.history = [(noise_multiplier, sample_rate, 1)]
    exact = ClippedNoise(1.0, noise_multiplier).epsilon(1e-5, steps=1, sample_rate=sample_rate)
    assert exact <= ledger.get_epsilon(1e-5) + 1e-9
    assert exact == pytest.approx(ledger.get_epsilon(1e-5), abs=0.02)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("sample_rate", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("noise_multiplier", [1e-6, 0.01, 0.02, 0.3, 100.0])
def test_epsilon_is_finite_and_grows_with_steps_everywhere(noise_multiplier, sample_rate, accountant):
    pytest.importorskip("opacus", reason="needs opacus")
    defense = ClippedNoise(1.0, noise_multiplier)
    found = [
        defense.epsilon(1e-5, steps=steps, sample_rate=sample_rate, accountant=accountant) for steps in (1, 2, 100, 10**9)
    ]
    assert all(math.isfinite(value) for value in found)
    assert all(after >= before - 0.01 for before, after in itertools.pairwise(found))
    whole = defense.epsilon(1e-5, steps=100, accountant=accountant)
    assert found[2] <= whole
    if noise_multiplier <= 0.02:  # whoever takes part is seen: sampling does not help much
        assert found[0] > 0.9 * defense.epsilon(1e-5, steps=1)


def test_epsilon_of_many_steps_composes_and_sampling_helps():
    pytest.importorskip("opacus", reason="needs opacus")
    defense = ClippedNoise(1.0, 4.0)
    # k steps with noise sigma are one with sigma / sqrt(k).
    assert defense.epsilon(1e-5, steps=16) == pytest.approx(gaussian_mechanism_epsilon(1.0, 1e-5), abs=0.03)
    assert defense.epsilon(1e-5, steps=16, sample_rate=0.1) < 0.2 * defense.epsilon(1e-5, steps=16)
    assert ClippedNoise(1.0, 0.0).epsilon(steps=1) == math.inf


def test_a_missing_opacus_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e .*\[study\]"):
        ClippedNoise(1.0, 1.0).epsilon(steps=1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianNoise(-1.0), "std is -1.0"),
        (lambda: GaussianNoise(math.nan), "std is nan"),
        (lambda: GaussianNoise(math.inf), "std is inf"),
        (lambda: ClippedNoise(math.inf, 0.0), "max_norm is inf"),
        (lambda: ClippedNoise(1.0, math.inf), "noise_multiplier inf"),
        (lambda: MagnitudePruning(1.0), "share is 1.0"),
        (lambda: LowBitQuantization(1), "SignQuantization"),
        (lambda: ClippedNoise(0.0, 1.0), "max_norm is 0.0"),
        (lambda: ClippedNoise(1.0, 1.0).epsilon(0.0, steps=1), "delta is 0.0"),
        (lambda: ClippedNoise(1.0, 1.0).epsilon(steps=0), "steps 0"),
        (lambda: ClippedNoise(1.0, 1.0).epsilon(steps=1.5), "steps 1.5"),
        (lambda: ClippedNoise(1.0, 1.0).epsilon(steps=math.inf), "steps inf"),
        (lambda: ClippedNoise(1.0, 1.0).epsilon(steps=1, accountant="gdp"), "'prv' or 'rdp'"),
        (lambda: AugmentationPolicy("7-7"), "crop-flip, 3-1-7"),
        (lambda: AugmentationPolicy(()), "a sequence"),
        (lambda: AugmentationPolicy(((Operation("blur", 3),),)), "names are"),
        (lambda: AugmentationPolicy(((Operation("rotate", 10),),)), "from 0 to 9"),
        (lambda: AugmentationPolicy("3-1-7")(torch.zeros(3, 8, 8)), r"must be \(N, 3, H, W\)"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_bytes_are_no_images_of_a_policy():
    with pytest.raises(TypeError, match="images / 255"):
        AugmentationPolicy("3-1-7")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_every_defence_has_a_name():
    assert set(DEFENSES.values()) == {type(defense) for defense in ALL} - {Compose}


def test_policies_are_rows_of_the_published_table():
    assert len(OPERATIONS) == 50
    names = {name: [[operation.name for operation in sequence] for sequence in policy] for name, policy in POLICIES.items()}
    searched, other = (
        ["crop", "flip", "translate_x", "contrast", "translate_y"],
        ["crop", "flip", "translate_y", "contrast", "contrast"],
    )
    assert names == {
        "crop-flip": [["crop", "flip"]],
        "3-1-7": [searched],
        "43-18-18": [other],
        "3-1-7+43-18-18": [searched, other],
    }
    assert [operation.magnitude for operation in POLICIES["3-1-7"][0][2:]] == [9, 6, 2]


@pytest.fixture
def photos():
    try:
        importlib.import_module("torchvision.transforms.functional")
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    return torch.tensor(photographs(32, 32)).float()


def apply(images, *operations, seed=0):
    return AugmentationPolicy((operations,))(images, torch.Generator().manual_seed(seed))


def test_a_policy_changes_photographs_within_range_by_its_draws(photos):
    for name in POLICIES:
        policy = AugmentationPolicy(name)
        changed = policy(photos, torch.Generator().manual_seed(3))
        assert changed.shape == photos.shape
        assert changed.dtype == photos.dtype
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert (changed - photos).abs().mean() > 0.02
        assert torch.equal(changed, policy(photos, torch.Generator().manual_seed(3)))
        assert not torch.equal(changed, policy(photos, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize(
    "name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "contrast", "sharpness", "brightness"]
)
def test_magnitude_0_changes_nothing_and_9_does(photos, name):
    torch.testing.assert_close(apply(photos, Operation(name, 0)), photos)
    assert (apply(photos, Operation(name, 9)) - photos).abs().mean() > 0.005


def test_translation_moves_by_the_published_share(photos):
    moved = [apply(photos[:1], Operation("translate_x", 9), seed=seed) for seed in range(6)]
    shift = round(150 / 331 * 32)
    right, left = torch.zeros(2, 1, 3, 32, 32)
    right[..., shift:], left[..., :-shift] = photos[:1, ..., :-shift], photos[:1, ..., shift:]
    sides = [min(("right", right), ("left", left), key=lambda side: (image - side[1]).abs().max())[0] for image in moved]
    assert set(sides) == {"right", "left"}
    assert all(min((image - right).abs().max(), (image - left).abs().max()) == 0 for image in moved)


def test_crop_and_flip_show_parts_of_the_photograph(photos):
    padded = torch.nn.functional.pad(photos[0], [4] * 4)
    crops = padded.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)
    everything = torch.cat([crops, crops.flip(-1)])
    found = AugmentationPolicy("crop-flip")(photos[:1].expand(12, -1, -1, -1), torch.Generator().manual_seed(0))
    places = [int((everything == image).flatten(1).all(dim=1).nonzero()[0, 0]) for image in found]
    assert len(set(places)) > 6
    assert {place < len(crops) for place in places} == {True, False}


def test_operations_on_values_are_what_they_say(photos):
    torch.testing.assert_close(apply(photos, Operation("invert")), 1 - photos)
    torch.testing.assert_close(apply(photos, Operation("solarize", 9)), 1 - photos)
    assert torch.equal(apply(torch.ones(1, 3, 8, 8), Operation("solarize", 0)), torch.ones(1, 3, 8, 8))  # 256: nothing
    assert len((apply(photos, Operation("posterize", 9)) * 255).round().unique()) <= 16
    equal = apply(photos, Operation("equalize"))
    assert abs(float(equal.mean()) - 0.5) < 0.05
    torch.testing.assert_close(apply(photos, Operation("autocontrast")).amax(dim=(2, 3)), torch.ones(4, 3))


def test_every_row_of_the_published_table_works(photos):
    for operation in sorted(set(OPERATIONS)):
        assert apply(photos, operation).isfinite().all(), operation


def test_a_hybrid_policy_draws_one_of_its_sequences(photos):
    either = AugmentationPolicy(((Operation("invert"),), (Operation("flip"),)))
    found = either(photos[:1].expand(20, -1, -1, -1), torch.Generator().manual_seed(0))
    inverted = [bool(torch.isclose(image, 1 - photos[0]).all()) for image in found]
    flipped = [bool(torch.isclose(image, photos[0].flip(-1)).all()) for image in found]
    assert 3 < sum(inverted) < 17
    assert sum(inverted) + sum(flipped) == 20
