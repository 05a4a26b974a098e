"""The scale of unrelated pairs against SciPy and brute force, its calibration by simulation, and known leaks on pictures."""

import json

import numpy as np
import pytest
import skimage.data
import torch
from conftest import SMALL, pictures
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attacker_metrics import MultiAttackerPrivacy, multi_attacker_scores
from attacker_metrics.reading.learned import FitOverlapError, LinearAttacker, LinearAttackerMSSSIM
from attacker_metrics.reading.strongest import (
    KNOWN_CASES,
    NullDistribution,
    assess,
    clipped_share,
    evaluate_known_cases,
    flags,
    images_needed,
    is_called_leaking,
    noise_of_equal_error,
    unrelated_pairs,
)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=2, max_size=60), st.integers(0, 3))
def test_unrelated_pairs_never_stay_in_a_group_or_mix_sizes(images, seed):
    groups, kinds = [group for group, _ in images], [kind for _, kind in images]
    possible = any(a[0] != b[0] and a[1] == b[1] for a in images for b in images)
    if not possible:
        with pytest.raises(ValueError, match="no unrelated pairs"):
            unrelated_pairs(groups, kinds=kinds, seed=seed)
        return
    noisy, clean = unrelated_pairs(groups, kinds=kinds, seed=seed)
    again = unrelated_pairs(groups, kinds=kinds, seed=seed)
    assert (noisy == again[0]).all()
    assert (clean == again[1]).all()
    assert len(set(noisy)) == len(noisy) == len(set(clean))
    assert all(groups[i] != groups[j] and kinds[i] == kinds[j] for i, j in zip(noisy, clean, strict=True))
    used = 0
    for kind in set(kinds):
        sizes = np.unique([group for group, k in images if k == kind], return_counts=True)[1]
        used += min(sizes.sum(), 2 * (sizes.sum() - sizes.max()))
    assert len(noisy) == used


def test_groups_of_tensors_and_arrays_are_groups_and_missing_ones_are_refused():
    for groups in (torch.tensor([0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2]), list(torch.tensor([0, 0, 1, 1, 2]))):
        for seed in range(20):
            noisy, clean = unrelated_pairs(groups, kinds=np.zeros(5), seed=seed)
            assert all(int(groups[i]) != int(groups[j]) for i, j in zip(noisy, clean, strict=True))
    for missing in (np.array([np.nan, np.nan, 1.0]), ["a", None, "b"]):
        with pytest.raises(ValueError, match=r"images have no id or group"):
            unrelated_pairs(missing)


def test_images_without_groups_all_have_a_partner_and_the_limit_holds():
    noisy, clean = unrelated_pairs(range(500))
    assert sorted(noisy) == sorted(clean) == list(range(500))
    assert (noisy != clean).all()
    noisy, _ = unrelated_pairs(range(500), limit=50)
    assert len(noisy) == 50
    assert len(unrelated_pairs(range(10_050))[0]) == 10_000


def test_percentiles_are_scipys_mid_ranks():
    generator = np.random.default_rng(0)
    scores, values = generator.integers(0, 20, 200) / 20, np.array([0.0, 0.3, 0.33, 0.95, np.nan])
    found = NullDistribution({"a": scores}).strongest({"a": values})
    expected = stats.percentileofscore(scores, values[:4], kind="mean") / 100
    np.testing.assert_allclose(found.percentile[:4], np.clip(expected, 1 / 200, 1 - 1 / 200), rtol=0, atol=1e-15)
    assert np.isnan(found.percentile[4])
    assert np.isnan(found.p_value[4])


def brute_force_maxima(pool):
    """Of everyone, measured against all the others, from the definition."""
    maxima = []
    for i in range(pool.shape[1]):
        others, values = np.delete(pool, i, axis=1), []
        for row, own in zip(others, pool[:, i], strict=True):
            beyond = 1 + ((own - row.max()) / (1 - row.max()) if row.max() < 1 else 0)
            values.append(beyond if own > row.max() else stats.percentileofscore(row, own, kind="mean") / 100)
        maxima.append(max(values))
    return np.array(maxima)


def brute_force_p_value(null, image):
    maxima = brute_force_maxima(np.column_stack([null, image]))
    return np.mean(maxima >= maxima[-1] - 1e-12)


@pytest.mark.parametrize("digits", [1, 12])
def test_maxima_levels_and_their_thresholds_are_those_of_brute_force(digits):
    generator = np.random.default_rng(3)
    pool, image = generator.random((3, 120)).round(digits), generator.random((3, 1)).round(digits)
    null = NullDistribution(dict(zip("abc", pool, strict=True)))
    np.testing.assert_allclose(null.maxima, brute_force_maxima(pool), rtol=0, atol=1e-12)
    found = null.strongest(dict(zip("abc", image, strict=True)))
    np.testing.assert_allclose(found.level, brute_force_maxima(np.column_stack([pool, image]))[-1:], rtol=0, atol=1e-12)
    for rate in (0.01, 0.05, 0.5):
        above = null.maxima > null.maximum_threshold(rate)
        assert above.mean() <= rate
        assert digits == 1 or above.mean() > rate - 1 / 120  # as many as the rate allows, but for ties
    with pytest.raises(ValueError, match="needs at least 999 unrelated pairs, got 120"):
        null.maximum_threshold(0.001)


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_the_p_value_is_that_of_brute_force(digits):
    generator = np.random.default_rng(1)
    null, images = generator.random((4, 30)).round(digits), generator.random((4, 25)).round(digits)
    null[3], images[3, :20] = 0, 0
    null[2] *= 0.5
    found = NullDistribution(dict(zip("abcd", null, strict=True))).strongest(dict(zip("abcd", images, strict=True)))
    expected = [brute_force_p_value(null, image) for image in images.T]
    np.testing.assert_allclose(found.p_value, expected, rtol=0, atol=1e-12)


def test_one_attackers_p_value_is_the_permutation_tests():
    generator = np.random.default_rng(2)
    scores, values = generator.random(400).round(2), generator.random(50).round(2)
    null = NullDistribution({"a": scores})
    expected = (1 + (scores >= values[:, None]).sum(axis=1)) / 401
    for rate in (0.01, 0.2, 0.5):
        assert (null.success("a", values, rate) == (expected <= rate)).all()
        assert (null.strongest({"a": values}).success(rate) == (expected <= rate)).all()
    assert null.realised(0.05) == pytest.approx(np.mean([(scores >= own).mean() <= 0.05 for own in scores]))


def test_the_winner_is_the_attacker_with_the_largest_percentile():
    ramp = np.arange(100) / 100
    null = NullDistribution({"low": ramp / 10, "high": 0.9 + ramp / 10})
    found = null.strongest({"low": np.array([0.05, 0.5, 0.01, np.nan]), "high": np.array([0.92, 0.98, 0.995, 0.9])})
    assert found.winner.tolist() == ["low", "low", "high", ""]
    assert found.percentile[1] == 0.99  # no more than 100 pairs can tell
    assert found.success(0.05).tolist() == [False, True, False, False]


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.001, 999), (0.05, 19)])
def test_rates_beyond_what_the_pairs_support_are_refused(rate, needed):
    scores = np.random.default_rng(0).random(needed)
    null = NullDistribution({"a": scores})
    null.check_rate(rate)
    assert null.success("a", np.array([scores.max(), 2.0]), rate).tolist() == [False, True]
    few = NullDistribution({"a": scores[1:]})
    for refused in (lambda: few.check_rate(rate), lambda: few.success("a", scores, rate), lambda: few.realised(rate)):
        with pytest.raises(ValueError, match=f"needs at least {needed} unrelated pairs, got {needed - 1}"):
            refused()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("rate", "pairs"), [(0.01, 120), (0.01, 500), (0.05, 250)])
def test_unrelated_images_succeed_at_no_more_than_the_rate(ties, rate, pairs):
    """Twenty correlated attackers; 200 runs of 20 images each that are exchangeable with the unrelated pairs."""
    generator, successes, runs, images = np.random.default_rng(7), [], 200, 20
    for _ in range(runs):
        common = generator.normal(size=(1, pairs + images))
        table = stats.norm.cdf(0.7 * common + 0.7 * generator.normal(size=(20, pairs + images)))
        table[:7] **= 8
        if ties:
            table = np.maximum(table.round(2) - 0.5, 0)
        columns = {str(k): row for k, row in enumerate(table)}
        null = NullDistribution({name: row[:pairs] for name, row in columns.items()})
        found = null.strongest({name: row[pairs:] for name, row in columns.items()})
        successes.append(found.success(rate).mean())
    allowed, error = np.floor(rate * (pairs + 1)) / (pairs + 1), stats.sem(successes)
    assert np.mean(successes) < allowed + 3 * error
    if not ties:
        assert np.mean(successes) > allowed - 3 * error


def test_bad_tables_are_named():
    with pytest.raises(ValueError, match="there are no attackers"):
        NullDistribution({})
    with pytest.raises(ValueError, match=r"one score per image, got lengths \{'a': 2, 'b': 3\}"):
        NullDistribution({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match=r"at least 2 unrelated pairs .* got 1"):
        NullDistribution({"a": np.array([0.1, np.nan])})
    null = NullDistribution({"a": np.zeros(5), "b": np.zeros(5)})
    with pytest.raises(ValueError, match="attacker must be one of 'a', 'b', got 'c'"):
        null.success("c", np.zeros(2), 0.5)
    with pytest.raises(ValueError, match="attacker must be one of 'a', 'b', got 'c'"):
        null.threshold("c", 0.5)
    with pytest.raises(ValueError, match="attacker must be one of 'a', 'b', got 'c'"):
        null.mean("c")
    with pytest.raises(ValueError, match=r"must have shape \(n,\), got \(5, 2\) for 'a'"):
        NullDistribution({"a": np.zeros((5, 2))})
    with pytest.raises(ValueError, match="different: b, c"):
        null.strongest({"a": np.zeros(2), "c": np.zeros(2)})
    with pytest.raises(ValueError, match=r"rate must lie between 0 and 1, got 0"):
        null.check_rate(0)


def random_pictures(i):
    noisy, clean = pictures(1, 22, 22, seed=i)
    return noisy[0], clean[0]


def test_an_assessment_scores_what_was_not_fitted_and_reproduces_the_functions():
    linear = LinearAttackerMSSSIM(LinearAttacker(3), betas=SMALL)
    privacy = MultiAttackerPrivacy(betas=SMALL, extra=[linear])
    ids = [f"picture {i}" for i in range(30)]
    found = assess(random_pictures, ids, privacy, groups=[i // 2 for i in range(30)], batch_size=4)
    assert 0 < len(found.ids) < 30
    assert linear.attacker.fit_count == 30 - len(found.ids)
    assert {ids.index(name) // 2 for name in found.ids} & {i // 2 for i in range(30) if ids[i] not in found.ids} == set()
    assert list(found.scores) == [name for name in privacy if name not in ("ms_ssim", "pearson")]
    for k, name in enumerate(found.ids):
        noisy, clean = random_pictures(ids.index(name))
        expected = multi_attacker_scores(noisy[None], clean[None], betas=SMALL)
        for component, values in found.scores.items():
            if component in expected:
                assert values[k] == pytest.approx(float(expected[component]), abs=1e-6)
    assert found.ceiling["rgb_clamp"] == pytest.approx(1.0)
    assert found.null.mean("rgb_clamp") < found.equal_noise["rgb_clamp"] < found.ceiling["rgb_clamp"]
    with pytest.raises(FitOverlapError, match="were in the fit split"):
        assess(random_pictures, ids, privacy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": ["a", "a"]}, "ids must be unique"),
        ({"ids": torch.tensor([4, 4])}, "ids must be unique"),
        ({"ids": []}, "there are no images"),
        ({"ids": ["a", "b"], "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"ids": ["a", "b"], "groups": [1]}, "groups must have one entry per image, got 1 for 2"),
        ({"ids": ["a", "b"], "groups": [1, 1]}, "no unrelated pairs"),
        (
            {"ids": ["a", "b", "c"], "groups": [1, 1, 2], "fit": [True, False, False]},
            "one side of the fit split; on both: 1",
        ),
        ({"ids": ["a", "b"], "fit": [True, True]}, "nothing is left to score"),
    ],
)
def test_bad_assessments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        assess(random_pictures, privacy=MultiAttackerPrivacy(betas=SMALL), **arguments)


def test_images_of_several_sizes_are_matched_within_their_size():
    def images(i):
        noisy, clean = pictures(1, 22 + 2 * (i % 2), 22, seed=i)
        return noisy[0], clean[0]

    found = assess(images, range(12), MultiAttackerPrivacy(betas=SMALL), anchors=False)
    assert found.null.count == 12
    assert not np.isnan(found.strongest.p_value).any()


def test_the_noise_anchor_has_the_error_of_the_noisy_picture():
    noisy, clean = random_pictures(3)
    noise = noise_of_equal_error(noisy, clean, seed=1)
    torch.testing.assert_close((noise - clean).square().mean(), (noisy - clean).square().mean())
    assert not torch.equal(noise, noise_of_equal_error(noisy, clean, seed=2))


def names_of(raised):
    return [flag.name for flag in raised]


def test_flags_are_raised_where_their_reason_is_and_nowhere_else():
    many = np.full(3000, 0.4)
    calm = {"rgb_clamp": many, "gray_clamp": many, "pearson_gray": many, "blur_gray": many + 0.04, "pearson_blur": many}
    assert flags(calm, null_count=1000) == []
    some = many.copy()
    some[:200] = 0
    assert names_of(flags({**calm, "rgb_clamp": some}, null_count=1000)) == ["collapsed"]
    assert names_of(flags({**calm, "invert_gray": some}, null_count=1000)) == []  # the negative of a readable picture
    assert names_of(flags({**calm, "gray_clamp": many / 20, "pearson_gray": many + 0.4}, null_count=1000))[0] == "structure"
    (flag,) = flags({**calm, "pearson_blur": many + 0.3}, null_count=1000)
    assert (flag.name, round(flag.value, 6)) == ("filter", 0.3)
    assert "pearson_blur is on average 0.30 above pearson_gray" in flag.message
    assert names_of(flags(calm, draws={"rgb_clamp": np.stack([many, many + 0.2])}, null_count=1000)) == ["draws"]
    assert flags(calm, draws={"rgb_clamp": np.stack([many, many])}, null_count=1000) == []
    assert names_of(flags(calm, clipped=clipped_share(torch.rand(4, 3, 8, 8) * 1.5), null_count=1000)) == ["clipped"]
    assert names_of(flags({"rgb_clamp": many[:250]}, null_count=50)) == ["too_few"] * 4
    assert names_of(flags({"rgb_clamp": many[:300]}, null_count=300, rates=(0.01,))) == []


def test_averaging_is_a_flag_if_draws_differ_and_their_mean_shows_more():
    few = np.full(400, 0.4)
    calm, settings = {"gray_clamp": few, "pearson_gray": few}, {"rates": ()}
    (flag,) = flags(calm, averaged={**calm, "pearson_gray": few + 0.3}, random=[0.5] * 400, **settings)
    assert (flag.name, round(flag.value, 6)) == ("averaging", 0.3)
    assert "50% of the squared error varies from draw to draw, and pearson_gray reads 0.30 more" in flag.message
    assert flags(calm, averaged=calm, random=[0.5] * 400, **settings) == []  # random, but no mean helps
    (flag,) = flags(calm, averaged=calm, random=[0.0] * 100 + [0.5] * 300, **settings)
    assert (flag.name, flag.value) == ("same_draws", 0.25)


def test_images_without_a_score_neither_hide_flags_nor_count_as_evidence():
    many, missing = np.full(3000, 0.4), np.full(3000, np.nan)
    calm = {"rgb_clamp": many, "gray_clamp": many, "pearson_gray": many}
    half = np.where(np.arange(3000) % 2, many, np.nan)
    assert names_of(flags(dict.fromkeys(calm, half), null_count=1000)) == ["too_few"]
    rare = half.copy()
    rare[1:200:2] = 0  # 100 of 1500 that were scored, 3 % of all
    assert names_of(flags({"rgb_clamp": rare}, rates=(0.01,))) == ["collapsed"]
    draws = {"rgb_clamp": np.stack([missing, missing]), "gray_clamp": np.stack([half, half + 0.2])}
    assert names_of(flags(calm, draws=draws, rates=(0.01,))) == ["draws"]
    blurred = {"blur_gray": missing, "pearson_blur": many + 0.3}
    assert "filter" in names_of(flags({**calm, **blurred}, rates=(0.01,)))


def test_images_without_a_score_are_not_called_safe():
    def images(i):
        noisy, clean = random_pictures(i)
        return (clean if i >= 200 else noisy.clone().fill_(torch.nan)), clean

    privacy = MultiAttackerPrivacy(betas=SMALL, nan_strategy="ignore")
    found = assess(images, range(400), privacy, anchors=False)
    assert found.strongest.scored.tolist() == [False] * 200 + [True] * 200
    assert found.success(0.05)[found.strongest.scored].mean() > 0.95
    assert is_called_leaking(found)
    found.strongest.p_value[:] = np.nan
    with pytest.raises(ValueError, match="none of 400 images has a score"):
        is_called_leaking(found)


@pytest.mark.parametrize("rate", [0.3, 0.05, 0.01, 0.001])
def test_the_number_of_images_a_claim_needs_is_the_exact_binomials(rate):
    needed = images_needed(rate)
    bounds = [stats.binomtest(0, n, alternative="less").proportion_ci(0.95).high for n in (needed - 1, needed)]
    assert bounds[0] > rate >= bounds[1]


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_a_claim_is_about_a_rate(rate):
    with pytest.raises(ValueError, match="rate must lie between 0 and 1"):
        images_needed(rate)


@pytest.fixture(scope="module")
def known():
    """Every known case on crops of real photographs, fitted on one of them."""

    def shrunk(name, factor):
        picture = getattr(skimage.data, name)()
        picture = np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture
        height, width = (256 * factor,) * 2
        picture = torch.tensor(picture[:height, :width] / 255, dtype=torch.float32).permute(2, 0, 1)
        return torch.nn.functional.avg_pool2d(picture[None], factor)[0]

    names = {"coffee": 1, "astronaut": 2, "chelsea": 1, "rocket": 1, "camera": 2, "brick": 2, "coins": 1, "retina": 5}
    return evaluate_known_cases({name: shrunk(name, factor) for name, factor in names.items()}, ["coffee"], stride=64)


@pytest.mark.parametrize("case", KNOWN_CASES, ids=lambda case: case.name)
def test_every_known_leak_is_caught_and_independent_noise_is_safe(known, case):
    success = known[case.name].success(0.01)
    assert is_called_leaking(known[case.name]) is case.leaks
    # Textures blurred to a flat grey, and a night sky below a steep curve, hold little to read.
    least = {"blur": 0.3, "gamma 3": 0.8}.get(case.name, 0.98)
    assert success.mean() > least if case.leaks else success.mean() < 0.05


def test_unrelated_photographs_are_safe(known):
    assert not is_called_leaking(known["other photos"])


def test_only_learned_attackers_restore_a_secretly_filtered_picture(known):
    scores = {name: values.mean() for name, values in known["secret filter"].scores.items()}
    learned = ("linear_gray", "block_gray", "pearson_linear", "pearson_block")
    assert scores["linear_gray"] > 0.9
    assert scores["pearson_linear"] > 0.8
    assert max(value for name, value in scores.items() if name.startswith("pearson") and name not in learned) < 0.5
    assert max(value for name, value in scores.items() if name not in learned) < scores["linear_gray"] - 0.15


def test_only_the_map_of_blocks_restores_permuted_blocks(known):
    scores = {name: values.mean() for name, values in known["permuted blocks"].scores.items()}
    assert scores["block_gray"] > 0.9
    assert scores["block_gray"] > max(value for name, value in scores.items() if "block" not in name) + 0.05


def test_the_suite_s_additions_are_needed(known):
    faint = known["contrast 1e-5"]
    assert faint.success(0.01, attacker="pearson_affine").mean() > 0.9
    assert faint.success(0.01, attacker="pearson_gray").mean() < 0.7


def test_too_few_photographs_are_refused():
    with pytest.raises(ValueError, match="one photograph to fit on and three to score are needed, got 2"):
        evaluate_known_cases({"a": torch.zeros(3, 64, 64), "b": torch.zeros(3, 64, 64)}, ["a"])


def test_the_command_shows_the_matrix_and_every_verdict_is_right(capsys):
    pytest.importorskip("rich", reason="needs the cli extra")
    from attacker_metrics.commands import cli

    assert cli.main(["selftest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [*(case.name for case in KNOWN_CASES), "other photos"]
    assert all(case["called_leaking"] is case["expected_to_leak"] for case in found.values())
    assert found["identity"]["success"]["strongest"] == 1.0
    assert found["inversion"]["success"]["rgb_clamp"] < 0.2
    assert found["identity"]["realised_false_positive_rate"] <= 0.01


def test_a_wrong_verdict_is_an_exit_status(known, monkeypatch, capsys):
    pytest.importorskip("rich", reason="needs the cli extra")
    from attacker_metrics.commands import cli
    from attacker_metrics.reading.strongest import selftest

    monkeypatch.setattr(selftest, "evaluate_known_cases", lambda *_, **__: {**known, "identity": known["random noise"]})
    assert cli.main(["selftest"]) == 1
    output = capsys.readouterr()
    assert "wrong verdict on identity" in output.err
    rows = {line.split()[0]: line.split()[1:] for line in output.out.splitlines() if line.strip()}
    assert rows["leak"][0] == "none"
    assert rows["right"] == ["NO", *["yes"] * 13]
    assert rows["linear_gray"][1] == "100"
