"""The table of components, and the pair of batches that makes each view and each score once."""

import dataclasses
import functools

import numpy as np
import pytest
import reference
import torch
from conftest import SMALL, photo_pair, pictures

import attacker_metrics as am
from attacker_metrics import Component, Pair, SquaredPearson, standard_components
from attacker_metrics.attackers.standard import Blur, Gamma, clamp, luma, minmax


class Counting:
    """An attacker that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x * 0.5


class CountingSimilarity:
    def __init__(self):
        self.calls = 0

    def __call__(self, noisy, clean):
        self.calls += 1
        return (noisy - clean).square().mean(dim=(1, 2, 3))


def test_names_stand_in_the_order_of_the_specification():
    assert list(am.MS_SSIM_COMPONENT_NAMES) == reference.MS_SSIM_NAMES
    assert list(am.PEARSON_COMPONENT_NAMES) == reference.PEARSON_NAMES
    assert list(standard_components()) == reference.MS_SSIM_NAMES + reference.PEARSON_NAMES
    assert (am.DEFAULT_GAMMA_ATTACK_VALUES, am.DEFAULT_GAUSSIAN_BLUR_SIGMA) == ((0.5, 2.0), 2.0)
    assert am.DEFAULT_WAVELET_SOFT_THRESHOLD == 0.1
    assert am.DEFAULT_BETAS == reference.BETAS


@pytest.mark.parametrize("name", reference.NAMES[:15])
@pytest.mark.parametrize("settings", [{}, {"gamma_values": (0.7, 1.5, 3.0), "blur_sigma": 1.2, "wavelet_threshold": 0.05}])
def test_every_component_compares_the_views_of_the_specification(name, settings):
    noisy, clean = (x[0, :, 20:71, 30:90] for x in photo_pair("out of range"))
    component = standard_components(**settings)[name]
    assert component.name == name
    assert component.undoes
    pair = Pair(torch.tensor(noisy)[None], torch.tensor(clean)[None])
    expected = reference.views(noisy, clean, **settings)[name]
    got = pair.views(component)
    assert len(got) == len(expected)
    for sides, expected_sides in zip(got, expected, strict=True):
        for view, expected_view in zip(sides, expected_sides, strict=True):
            np.testing.assert_allclose(view[0], expected_view, rtol=0, atol=1e-13)


def test_the_lossy_attackers_are_applied_to_both_sides_and_the_others_to_the_noisy_one():
    for name, component in standard_components().items():
        lossy = not name.endswith(("clamp", "minmax", "pearson_rgb", "pearson_gray"))
        noisy, clean = component.branches[0]
        assert (noisy[-1] == (clean or (None,))[-1]) is lossy, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma_values": ()}, "gamma_values is empty"),
        ({"gamma_values": (2.0, 0.0)}, r"gamma_values must be a positive number, got 0\.0"),
        ({"blur_sigma": -1.0}, r"blur_sigma must be a positive .* got -1\.0"),
        ({"wavelet_threshold": -0.5}, r"wavelet_threshold must be at least 0, got -0\.5"),
        ({"betas": ()}, r"betas must be .* got \(\)"),
        ({"betas": (0.5, 0.0)}, r"betas must be .* got \(0\.5, 0\.0\)"),
    ],
)
def test_the_table_names_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        standard_components(**settings)


@pytest.mark.parametrize("place", ["similarity", "noisy", "clean", "variants"])
def test_a_component_refuses_parts_that_cannot_be_called_or_hashed(place):
    class Unhashable:
        __hash__ = None

        def __call__(self, *views):
            return views[0]

    for part, message in ((3, "'mine': 3 is not callable"), (Unhashable(), "'mine': .*Unhashable.* cannot be hashed")):
        parts = {"similarity": SquaredPearson(), place: part if place == "similarity" else (clamp, part)}
        with pytest.raises(TypeError, match=message):
            Component("mine", **parts)


def test_a_component_has_one_branch_per_variant():
    component = Component("c", SquaredPearson(), (clamp,), (), variants=(Gamma(2.0), Gamma(3.0)))
    assert component.branches == (((clamp, Gamma(2.0)), (Gamma(2.0),)), ((clamp, Gamma(3.0)), (Gamma(3.0),)))
    assert Component("c", SquaredPearson(), (clamp,)).branches == (((clamp,), ()),)


def test_components_are_equal_by_value_and_differ_by_any_setting():
    table, again = standard_components(), standard_components()
    assert table == again
    assert len(set(table.values()) | set(again.values())) == 15
    for settings, changed in (
        ({"gamma_values": (0.5,)}, {"gamma_gray", "pearson_gamma"}),
        ({"blur_sigma": 1.0}, {"blur_gray", "pearson_blur"}),
        ({"wavelet_threshold": 0.2}, {"wavelet_gray", "pearson_wavelet"}),
        ({"betas": SMALL}, set(am.MS_SSIM_COMPONENT_NAMES)),
    ):
        other = standard_components(**settings)
        assert {name for name in table if table[name] != other[name]} == changed


def test_a_pair_makes_each_view_and_each_score_once():
    attacker, last, similarity, other = Counting(), Counting(), CountingSimilarity(), CountingSimilarity()
    components = [
        Component("a", similarity, (attacker,), (attacker,)),
        Component("b", similarity, (attacker, last), (attacker, last)),
        Component("c", other, (attacker, last), (attacker, last)),
    ]
    pair = Pair(*pictures())
    for _ in range(2):
        assert len(pair.scores([*components, *components])) == 6
        for component in components:
            pair.score(component)
            pair.views(component)
    assert (attacker.calls, last.calls, similarity.calls, other.calls) == (2, 2, 2, 1)


def test_a_pair_scores_a_mean_over_variants():
    noisy, clean = pictures()
    both = Component("v", SquaredPearson(), (luma, clamp), (luma,), variants=(Blur(1.0), Gamma(2.0)))
    each = [Component("v", SquaredPearson(), (luma, clamp, last), (luma, last)) for last in both.variants]
    pair = Pair(noisy, clean)
    torch.testing.assert_close(pair.score(both), (pair.score(each[0]) + pair.score(each[1])) / 2, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "returned"),
    [((), lambda x, y: x.mean()), ((2, 3), lambda x, y: x.mean(dim=(2, 3))), ((1,), lambda x, y: x.mean()[None])],
)
def test_a_pair_refuses_a_similarity_that_does_not_return_one_number_per_image(shape, returned):
    component = Component("mine", returned)
    message = rf"'mine': its similarity must return one number per image, shape \(2,\), got \({', '.join(map(str, shape))}"
    with pytest.raises(ValueError, match=message):
        Pair(*pictures()).score(component)


@pytest.mark.parametrize(
    ("noisy", "clean", "promoted", "computed"),
    [
        (torch.float16, torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32, torch.float32),
        (torch.float64, torch.float16, torch.float64, torch.float64),
    ],
)
def test_a_pair_computes_in_float32_at_least(noisy, clean, promoted, computed, device):
    pair = Pair(pictures(device=device)[0].to(noisy), pictures(device=device)[1].to(clean))
    assert (pair.dtype, pair.device.type, len(pair)) == (promoted, device.type, 2)
    component = standard_components()["pearson_blur"]
    assert pair.score(component).dtype == computed
    assert all(view.dtype == computed for view in pair.views(component)[0])


def test_a_pair_knows_which_images_are_finite_and_in_range():
    noisy, clean = pictures(4)
    noisy[0, 0, 0, 0], clean[1, 2, 1, 1] = torch.inf, torch.nan
    clean[2, 0, 0, 0], clean[3, 0, 0, 0] = 1.002, 1.0009
    pair = Pair(noisy, clean)
    assert pair.finite.tolist() == [False, False, True, True]
    assert pair.clean_in_range.tolist() == [True, True, False, True]
    score = pair.score(standard_components()["pearson_gray"])
    assert score.isnan().tolist() == [True, True, False, False]


def test_a_pair_keeps_the_gradient_mode_in_which_it_was_made():
    noisy, clean = pictures()
    noisy.requires_grad_()
    component = standard_components()["pearson_gray"]
    pair = Pair(noisy, clean)
    with torch.no_grad():
        assert pair.score(component).requires_grad
        frozen = Pair(noisy, clean)
    assert not frozen.score(component).requires_grad


def test_attackers_may_be_partials_lambdas_and_modules():
    pooled = torch.nn.AvgPool2d(2)
    shifted = functools.partial(torch.add, other=1)
    component = Component("mine", SquaredPearson(), (pooled, shifted, lambda x: -x, minmax), (pooled,))
    noisy, clean = pictures()
    got = Pair(noisy, clean).score(component)
    expected = SquaredPearson()(torch.nn.functional.avg_pool2d(noisy, 2), torch.nn.functional.avg_pool2d(clean, 2))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_a_pair_takes_other_channel_counts_only_when_told():
    x = torch.rand(2, 5, 8, 8)
    assert Pair(x, x, channels=None).score(Component("p", SquaredPearson())).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match=r"3 channels \(B, 3, H, W\), got \(2, 5, 8, 8\)"):
        Pair(x, x)


def test_the_engine_refuses_a_similarity_that_it_would_evaluate_otherwise():
    component = Component("wide", am.MSSSIM(SMALL, data_range=255.0))
    with pytest.raises(ValueError, match=r"'wide': the engine does not know MSSSIM\(.*data_range=255\.0"):
        am.scoring.components.program_of([component], 3, 22, 22)


def test_family_and_attacker_are_fields_that_the_name_agrees_with_and_identity_leaves_out():
    from attacker_metrics.metrics.identity import identity_of
    from attacker_metrics.metrics.stored_names import digest_before
    from attacker_metrics.reading.kinds import Kind, family_of, kinds, names
    from attacker_metrics.scoring.suites import added_components

    table = {**am.standard_components(), **added_components("standard-v1")}
    for name, row in table.items():
        assert row.family == ("pearson" if name.startswith("pearson") else "ms_ssim")
        assert row.attacker in name
        assert kinds()[name] == (row.family, row.attacker)
        bare = dataclasses.replace(row, attacker="other", family="other", undoes="")
        assert bare == row
        assert hash(bare) == hash(row)
        assert identity_of(bare) == identity_of(row)
        assert digest_before(am.BlurPearson, (bare,)) == digest_before(am.BlurPearson, (row,))
    assert len(names()) == len(kinds())
    assert names()[Kind("ms_ssim", "rgb")] == "rgb_clamp"
    assert [family_of(name) for name in ("ms_ssim", "pearson", "pearson_linear", "own")] == [
        "ms_ssim",
        "pearson",
        "pearson",
        None,
    ]
    own = am.Component("pearson_like", torch.add, noisy=(torch.negative,))
    assert (own.family, own.attacker) == ("", "pearson_like")
    assert am.Component("own", am.SquaredPearson()).family == "pearson"
