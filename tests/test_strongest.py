"""The scale of unrelated pairs against SciPy and brute force, its calibration by simulation, and known leaks on pictures."""

import dataclasses
import json
import math
import statistics

import numpy as np
import pytest
import skimage.data
import torch
from conftest import SMALL, pictures
from hypothesis import given
from hypothesis import strategies as st
from reference import photographs
from scipy import stats

from attacker_metrics import MultiAttackerPrivacy, multi_attacker_scores
from attacker_metrics.reading.learned import CNNAttacker, FitOverlapError, LinearAttacker, LinearAttackerMSSSIM
from attacker_metrics.reading.strongest import (
    KNOWN_CASES,
    NullDistribution,
    Selection,
    Shared,
    assess,
    clipped_share,
    evaluate_known_cases,
    flags,
    images_needed,
    is_called_leaking,
    noise_of_equal_error,
    reading,
    shared_content,
    unrelated_originals,
)
from attacker_metrics.reading.strongest.surprise import standardized, surprise
from attacker_metrics.statistics.sample import Sample, effective_size


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=60), st.integers(0, 3))
def test_unrelated_originals_are_of_other_groups_and_one_size_and_of_as_many_groups_as_there_are(images, seed):
    groups, kinds = [group for group, _ in images], [kind for _, kind in images]
    chosen = unrelated_originals(groups, kinds=kinds, seed=seed, per_picture=8)
    assert (chosen == unrelated_originals(groups, kinds=kinds, seed=seed, per_picture=8)).all()
    for i, row in enumerate(chosen):
        found = row[row >= 0].tolist()
        others = [j for j in range(len(groups)) if groups[j] != groups[i] and kinds[j] == kinds[i]]
        assert len(set(found)) == len(found) == min(8, len(others))
        assert set(found) <= set(others)
        assert len({groups[j] for j in found}) == min(8, len({groups[j] for j in others}))


def test_an_original_is_compared_once_and_never_with_a_picture_of_it_whatever_their_groups():
    files = ["a", "a", "b", "c", "c", "d", "e", "f"]
    chosen = unrelated_originals(list(range(8)), originals=files, per_picture=20)
    for i, row in enumerate(chosen):
        found = [files[j] for j in row if j >= 0]
        assert sorted(found) == sorted(set(files) - {files[i]})
    joined = unrelated_originals([0, 1, 1, 2, 3, 4, 5, 6], originals=files, per_picture=20)
    assert {files[j] for j in joined[0] if j >= 0} == {"c", "d", "e", "f"}  # picture 1 is of file a and of group 1


def test_the_first_originals_are_of_one_group_each_then_the_next_ones():
    groups = np.arange(600) % 30
    for row in unrelated_originals(groups, per_picture=58, limit=58 * 20):
        if row[0] >= 0:
            assert len(set(groups[row[:29]])) == len(set(groups[row[29:]])) == 29


def test_groups_of_tensors_and_arrays_are_groups_and_missing_ones_are_refused():
    for groups in (torch.tensor([0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2]), list(torch.tensor([0, 0, 1, 1, 2]))):
        for seed in range(20):
            chosen = unrelated_originals(groups, kinds=np.zeros(5), seed=seed)
            assert all(int(groups[i]) != int(groups[j]) for i, row in enumerate(chosen) for j in row[row >= 0])
        alike = unrelated_originals(range(5), originals=groups)  # pictures of three originals
        assert (alike == unrelated_originals(range(5), originals=[0, 0, 1, 1, 2])).all()
        assert (alike >= 0).sum() == 5 * 2
    for missing in (np.array([np.nan, np.nan, 1.0]), ["a", None, "b"]):
        with pytest.raises(ValueError, match=r"images have no id or group"):
            unrelated_originals(missing)
    with pytest.raises(ValueError, match=r"^kinds must have one entry per picture, got 1 for 2"):
        unrelated_originals([1, 2], kinds=[1])
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        unrelated_originals([1, 2], limit=0)


def test_beyond_the_limit_some_pictures_have_all_their_originals_and_the_others_none():
    counts = (unrelated_originals(range(500), limit=700) >= 0).sum(axis=1)
    assert sorted(set(counts.tolist())) == [0, 20]
    assert counts.sum() == 700
    assert (unrelated_originals(range(1200)) >= 0).sum() == 20_000
    counts = (unrelated_originals(range(500), limit=705) >= 0).sum(axis=1)
    assert (counts.sum(), np.unique(counts).tolist()) == (705, [0, 5, 20])  # the last of them has what is left


def independent_rarities(own, null):
    """Own and unrelated rarities of one attacker, from the definitions, by loops."""

    def spread_out(score):
        return math.atanh(min(math.sqrt(min(max(score, 0), 1)), 0.9999))

    def moments(values):
        values = sorted(values)
        cut = int(0.1 * len(values))
        if cut:
            values[:cut], values[-cut:] = [values[cut]] * cut, [values[-cut - 1]] * cut
        return len(values), statistics.fmean(values), statistics.variance(values) if len(values) > 1 else 0.0

    n, k = null.shape
    table = [[spread_out(score) for score in row] for row in null]
    others = {(i, j): moments(row[:j] + row[j + 1 :]) for i, row in enumerate(table) for j in range(k)}
    variances = [found[2] for found in others.values()]
    typical = max(statistics.median(variances), 0.01 * statistics.fmean(variances))

    def measured(score, count, mean, variance):
        return (score - mean) / math.sqrt((8 * typical + (count - 1) * variance) / (8 + count - 1))

    z = [[measured(table[i][j], *others[i, j]) for j in range(k)] for i in range(n)]
    own_z = [measured(spread_out(own[i]), *others[i, k - 1]) for i in range(n)]

    def rarity(value, pool):
        m, ordered = len(pool), sorted(pool)
        start = ordered[int(0.9 * m)]
        beyond = [x - start for x in ordered if x > start]
        if value <= start:
            rank = (sum(x < value for x in pool) + sum(x <= value for x in pool)) / 2
            return min(-math.log10(max(1 - rank / m, 0.5 / m)), -math.log10(len(beyond) / m))
        weighted = statistics.fmean(x * (1 - (r - 0.35) / len(beyond)) for r, x in enumerate(beyond, 1))
        mean = statistics.fmean(beyond)
        shape = min(max(2 - mean / (mean - 2 * weighted), 0), 0.95)
        tail = stats.genpareto(shape, scale=mean * (1 - shape)).logsf(value - start) / math.log(10)
        return -math.log10(len(beyond) / m) - tail

    found = np.empty(n), np.empty((n, k))
    for i in range(n):
        pool = [x for other in range(n) if other % 5 != i % 5 for x in z[other]]
        found[0][i] = rarity(own_z[i], pool)
        found[1][i] = [rarity(x, pool) for x in z[i]]
    return found


def test_levels_and_p_values_are_those_of_the_definitions():
    generator = np.random.default_rng(3)
    null = {name: generator.beta(1, scale, (15, 12)) for name, scale in (("a", 3), ("b", 30), ("c", 1))}
    own = {name: np.r_[0.97, generator.beta(1, 3, 14)] for name in null}
    rarities = {name: independent_rarities(own[name], null[name]) for name in null}
    levels = np.max([one for one, _ in rarities.values()], axis=0)
    maxima = np.max([many for _, many in rarities.values()], axis=0).ravel()
    distribution = NullDistribution(null)
    found = distribution.strongest(own)
    np.testing.assert_allclose(found.level, levels, rtol=1e-6)
    np.testing.assert_allclose(distribution.maxima, maxima, rtol=1e-6)
    expected = np.array([(1 + (maxima >= level).sum()) / (1 + len(maxima)) for level in levels])
    np.testing.assert_allclose(found.p_value, expected, rtol=1e-9)
    assert found.winner.tolist() == [max(rarities, key=lambda name: rarities[name][0][i]) for i in range(15)]
    percentile = [stats.percentileofscore(maxima, level, kind="mean") / 100 for level in levels]
    np.testing.assert_allclose(found.percentile, np.clip(percentile, 1 / 180, 1 - 1 / 180), rtol=0, atol=1e-12)
    for rate in (0.01, 0.05, 0.3):
        assert (found.success(rate) == (levels > distribution.maximum_threshold(rate))).all()
        assert distribution.realised(rate) == pytest.approx((maxima > distribution.maximum_threshold(rate)).mean())
        assert distribution.realised(rate) <= rate
        alone = [(1 + (rarities["b"][1] >= own_b).sum()) / 181 <= rate for own_b in rarities["b"][0]]
        assert distribution.success("b", own["b"], rate).tolist() == alone


def test_pictures_are_judged_by_their_own_null_and_the_rarest_score_wins():
    generator = np.random.default_rng(0)
    offset = generator.random((100, 1)) * 0.5  # what any original scores with a picture, as under a common frame
    null = NullDistribution({"frame": offset + 0.01 * generator.random((100, 20)), "noise": generator.random((100, 20))})
    own = {"frame": offset[:, 0] + 0.005, "noise": np.full(100, 0.5)}
    own["frame"][:50] += 0.03
    own["noise"][-1] = np.nan
    found = null.strongest(own)
    assert found.success(0.01).tolist() == [True] * 50 + [False] * 50
    assert found.winner[:50].tolist() == ["frame"] * 50
    assert found.winner[-1] == ""
    assert found.scored.tolist() == [True] * 99 + [False]


def test_one_outlying_comparison_of_any_attacker_is_no_hurdle_for_the_others():
    generator = np.random.default_rng(1)
    tables = {str(k): generator.random((100, 20)) / 10 for k in range(20)}
    for k in range(19):
        tables[str(k)][k, 3] = 0.95
    own = {name: np.full(100, 0.05) for name in tables}
    own["19"][:] = 0.5
    null = NullDistribution(tables)
    assert null.strongest(own).success(0.01).all()
    assert null.outliers == 19


def test_at_every_rate_those_above_the_threshold_succeed_and_levels_go_on_beyond_the_rarest_comparison():
    generator = np.random.default_rng(4)
    null = NullDistribution({"a": generator.random((11, 9))})  # 99: every hundredth is a rate that is just supported
    found = null.strongest({"a": generator.random(11)})
    for hundredths in range(1, 100):
        rate = hundredths / 100
        assert (found.success(rate) == (found.level > null.maximum_threshold(rate))).all()
    assert null.level_at(0.01) == null.maxima.max()
    assert null.level_at(0.001) == pytest.approx(null.maxima.max() + 1)
    assert null.level_at(1.0) == null.maxima.min()


def test_of_equal_attackers_the_first_wins_and_a_comparison_counts_if_all_have_scored_it():
    generator = np.random.default_rng(6)
    table, own = generator.random((20, 6)).astype(np.float32), np.full(20, 0.9999)
    found = NullDistribution({"one": table, "same": table.copy()}).strongest({"one": own, "same": own})
    assert set(found.winner) == {"one"}
    exact = NullDistribution({"one": table.astype(np.float64)})
    assert (found.level == exact.strongest({"one": own}).level).all()
    for name in ("one", "same"):
        tables = {"one": table.copy(), "same": table.copy()}
        tables[name][0, 0] = tables[name][1, :4] = np.nan
        null = NullDistribution(tables)
        assert (null.count, null.skipped, null.pictures.tolist()) == (113, 7, [True, False] + [True] * 18)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19)])
def test_rates_beyond_what_the_comparisons_support_are_refused(rate, needed):
    table = np.random.default_rng(0).random((4, (needed + 1) // 4))
    table[-1, -1] = np.nan
    NullDistribution({"a": table}).check_rate(rate)
    table[-1, -2] = np.nan
    few = NullDistribution({"a": table})
    for refused in (
        lambda: few.check_rate(rate),
        lambda: few.success("a", np.zeros(4), rate),
        lambda: few.realised(rate),
        lambda: few.maximum_threshold(rate),
    ):
        with pytest.raises(
            ValueError, match=f"not enough pictures.*needs at least {needed} comparisons .* got {needed - 1}"
        ):
            refused()


def skewed(generator, shape):
    return generator.beta(0.5, 5, shape)


def in_steps(generator, shape):
    return np.maximum(generator.random(shape).round(1) - 0.5, 0)


def nearly_always_zero(generator, shape):
    return (generator.random(shape) < 0.02) * generator.random(shape)


def unlike_pictures(generator, shape):
    return np.clip(0.05 * np.exp(generator.normal(size=(shape[0], 1))) * generator.exponential(size=shape), 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("pictures_", [20, 60])
@pytest.mark.parametrize("draw", [skewed, in_steps, nearly_always_zero, unlike_pictures])
def test_where_nothing_leaks_pictures_are_read_at_the_rate(draw, pictures_):
    """Eight correlated attackers; own originals are one more unrelated one."""
    generator, shares, runs = np.random.default_rng(7), [], 60
    for _ in range(runs):
        common = draw(generator, (pictures_, 21))
        tables = {str(k): (common + draw(generator, (pictures_, 21))) / 2 for k in range(7)}
        tables["constant"] = np.full((pictures_, 21), 0.3)
        null = NullDistribution({name: table[:, 1:] for name, table in tables.items()})
        shares.append(null.strongest({name: table[:, 0] for name, table in tables.items()}).success(0.05).mean())
    error = stats.sem(shares)
    assert abs(np.mean(shares) - 0.05) < 3.5 * error


def test_an_original_like_its_group_but_unlike_all_others_is_not_read_where_nothing_leaks():
    """Three sources, of which each attracts any picture more or less: own originals are the only ones of theirs."""
    generator = np.random.default_rng(5)
    sources, attraction = np.repeat([0, 1, 2], 36), np.array([0.1, 0.4, 0.7])
    chosen = unrelated_originals(sources)
    null = NullDistribution({"a": attraction[sources[chosen]] + 0.05 * generator.random((108, 20))}, sources[chosen])
    own = {"a": attraction[sources] + 0.05 * generator.random(108)}
    assert null.strongest(own).success(0.01).mean() < 0.05


def test_the_interval_of_a_success_rate_carries_the_error_of_the_null():
    generator, held, alone, runs = np.random.default_rng(11), 0, 0, 60
    many = NullDistribution({"a": generator.normal(size=(20_000, 3))})
    truth = many.strongest({"a": generator.normal(size=20_000) + 2}).success(0.01).mean()
    for _ in range(runs):
        table, shifted = generator.normal(size=(400, 3)), generator.normal(size=400) + 2
        null = NullDistribution({"a": table})
        found = reading(null, null.strongest({"a": shifted}), 0.01)
        held += found.low <= truth <= found.high
        alone += found.success.low <= truth <= found.success.high
    assert held / runs > 0.9
    assert held > alone


def test_where_pictures_are_read_but_the_null_is_worth_little_the_verdict_says_so():
    generator = np.random.default_rng(3)
    null = NullDistribution({"a": generator.random((24, 18))})
    found = reading(null, null.strongest({"a": np.full(24, 5.0)}), 0.01, groups=np.repeat([0, 1, 2, 3], 6))
    assert (found.success.rate, found.verdict) == (1, "Leaks")
    assert found.low < found.high == 1
    few = dataclasses.replace(found, effective_comparisons=2.0)
    few = dataclasses.replace(few, p_value=few.chance(4, 4.0))
    assert few.risk.low > 0
    assert few.verdict == "not enough pictures"
    unread = reading(null, null.strongest({"a": np.zeros(24)}), 0.01, groups=np.repeat([0, 1, 2, 3], 6))
    assert unread.verdict == "no leak found by these attackers at 24 pictures"
    assert dataclasses.replace(unread, effective_comparisons=2.0).verdict == "not enough pictures"


def test_a_reading_has_a_risk_beyond_chance_and_its_words():
    generator = np.random.default_rng(2)
    null = NullDistribution({"a": generator.random((200, 20)), "b": generator.random((200, 20))})
    own = {"a": generator.random(200), "b": np.r_[np.full(100, 5.0), generator.random(100)]}
    found = reading(null, null.strongest(own), 0.01)
    share = (found.success.rate - found.realised) / (1 - found.realised)
    assert found.risk.value == pytest.approx(share)
    assert found.low < found.success.rate < found.high
    assert found.verdict == "Leaks"
    assert next(iter(found.strongest)) == "b"
    own["b"] = generator.random(200)
    none = reading(null, null.strongest(own), 0.01)
    assert none.verdict == "no leak found by these attackers at 200 pictures"
    assert none.risk.low == 0 < none.risk.high
    grouped = reading(null, null.strongest(own), 0.01, groups=[i // 20 for i in range(200)])
    assert grouped.high > none.high
    null = NullDistribution({"a": generator.random((200, 20)) / 9})
    sharp = reading(null, null.strongest({"a": np.repeat([1.0, 0.0], 100)}), 0.01)
    assert (sharp.low, sharp.high) == pytest.approx((sharp.success.low, sharp.success.high))  # wherever the threshold lies
    with pytest.raises(ValueError, match="none of 200 images has a score"):
        reading(null, null.strongest({"a": np.full(200, np.nan)}), 0.01)


def test_comparisons_of_one_picture_or_one_original_are_dependent():
    generator = np.random.default_rng(8)
    null = NullDistribution({"a": 0.5 * generator.random((40, 20)) + 0.4 * (np.arange(20) == 3)})  # an original like any
    found, originals = null.strongest({"a": np.zeros(40)}), np.tile(np.arange(20), (40, 1))
    above = (null.maxima > null.level_at(0.05)).astype(float)
    one, other = (
        1 / effective_size(Sample.of(above, labels)) for labels in (np.repeat(np.arange(40), 20), originals.ravel())
    )
    dependent = reading(null, found, 0.05, originals=originals)
    assert dependent.effective_comparisons == pytest.approx(1 / (one + other - 1 / 800))
    assert reading(null, found, 0.05).effective_comparisons > 10 * dependent.effective_comparisons
    alike = reading(null, found, 0.05, groups=["all"] * 40, originals=np.zeros((40, 20), int))
    assert (alike.effective_comparisons, alike.success.effective) == (1, 1)
    # A single picture that is read would be one of two among 61, which is not rare.
    assert dataclasses.replace(alike, realised=1 / 60, effective_comparisons=60.0).verdict == "not enough pictures"


def standardized_by_loops(own, null, sources):
    """As the module says it, for scores that are no shares."""
    own_z, null_z = np.full(len(own), np.nan), np.full(null.shape, np.nan)
    measured = {}
    for i, row in enumerate(null):
        for j, score in enumerate(row):
            others = sorted(x for x, s in zip(row, sources[i], strict=True) if s != sources[i][j] and not math.isnan(x))
            if not math.isnan(score) and others:
                variance = statistics.variance(others) if len(others) > 1 else 0.0
                measured[i, j] = len(others), statistics.fmean(others), variance
    variances = [found[2] for found in measured.values()]
    typical = max(statistics.median(variances), 0.01 * statistics.fmean(variances))
    for (i, j), (count, mean, variance) in measured.items():
        spread = math.sqrt((8 * typical + (count - 1) * variance) / (8 + count - 1))
        null_z[i, j] = (null[i, j] - mean) / spread
        if j == max(k for k in range(null.shape[1]) if not math.isnan(null[i, k])):  # as the last one is
            own_z[i] = (own[i] - mean) / spread
    return own_z, null_z


def test_scores_are_measured_against_originals_of_other_sources_that_have_a_score():
    generator = np.random.default_rng(9)
    own, null = 3 * generator.normal(size=7), generator.normal(size=(7, 6)) * np.arange(1, 8)[:, None]
    sources = np.array([[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 2, 2], *([[0, 1, 2, 3, 4, 5]] * 4)])
    null[3, 4:] = null[4, 0] = null[5] = np.nan
    null[6, 2:] = np.nan
    for found, expected in zip(standardized(own, null, sources), standardized_by_loops(own, null, sources), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    none, alone = standardized(own[:1], null[:1], np.zeros((1, 6), int))  # all of one source
    assert np.isnan(none).all()
    assert np.isnan(alone).all()


@pytest.mark.parametrize("size", [20, 49, 60, 100, 1000])
def test_a_rarity_is_the_mid_rank_or_beyond_the_highest_tenth_the_tail(size):
    generator = np.random.default_rng(size)
    for pool in (generator.normal(size=size), generator.integers(0, 9, size) * 1.0, np.r_[np.arange(size - 1) / 1e6, 1e6]):
        start = np.sort(pool)[int(0.9 * size)]
        values = np.r_[pool[:: -(-size // 50)], start, pool.min() - 1, pool.max() + np.array([0, 0.5, 3]), np.nan]
        found, beyond = surprise(values, pool), np.sort(pool[pool > start]) - start
        for value, rarity in zip(values[:-1], found[:-1], strict=True):
            above = 1 - ((pool < value).mean() + (pool <= value).mean()) / 2
            expected = -math.log10(max(above, 0.5 / size))
            if len(beyond) >= 5:
                share = -math.log10(len(beyond) / size)
                weighted = statistics.fmean(x * (1 - (r - 0.35) / len(beyond)) for r, x in enumerate(beyond, 1))
                shape = min(max(2 - beyond.mean() / (beyond.mean() - 2 * weighted), 0), 0.95)
                tail = stats.genpareto(shape, scale=beyond.mean() * (1 - shape))
                expected = share - tail.logsf(value - start) / math.log(10) if value > start else min(expected, share)
            assert rarity == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert math.isnan(found[-1])


def test_bad_tables_are_named():
    with pytest.raises(ValueError, match="there are no attackers"):
        NullDistribution({})
    with pytest.raises(ValueError, match=r"one score per comparison, got shapes \{'a': \(2, 3\), 'b': \(3, 3\)\}"):
        NullDistribution({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"not enough pictures: none of 1 has 3 unrelated originals"):
        NullDistribution({"a": np.array([[0.1, 0.2, np.nan]])})
    with pytest.raises(ValueError, match=r"of two groups or more"):
        NullDistribution({"a": np.zeros((2, 3))}, np.ones((2, 3), int))
    with pytest.raises(ValueError, match=r"sources must have the shape of scores, \(2, 3\), got \(2, 2\)"):
        NullDistribution({"a": np.zeros((2, 3))}, np.ones((2, 2), int))
    null = NullDistribution({"a": np.zeros((5, 4)), "b": np.zeros((5, 4))})
    with pytest.raises(ValueError, match="attacker must be one of 'a', 'b', got 'c'"):
        null.success("c", np.zeros(5), 0.5)
    with pytest.raises(ValueError, match="attacker must be one of 'a', 'b', got 'c'"):
        null.mean("c")
    with pytest.raises(ValueError, match=r"must have shape \(pictures, originals\), got \(5,\) for 'a'"):
        NullDistribution({"a": np.zeros(5)})
    with pytest.raises(ValueError, match="different: b, c"):
        null.strongest({"a": np.zeros(5), "c": np.zeros(5)})
    with pytest.raises(ValueError, match=r"must be those of the 5 pictures .* got \(2,\)"):
        null.strongest({"a": np.zeros(2), "b": np.zeros(2)})
    with pytest.raises(ValueError, match=r"rate must lie between 0 and 1, got 0"):
        null.check_rate(0)


def test_originals_with_a_frame_or_of_one_scene_are_told():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 3, 40, 40, generator=generator)
    assert shared_content(one, other).same == 0
    assert shared_content(one, other).likeness < 0.1
    assert shared_content(one, 0.9 * one + 0.02).likeness > 0.99
    for picture in (one, other):
        picture[:, :8] = 0
    same = shared_content(one, other).same
    assert same == pytest.approx(6 * 38 / 38**2, abs=1e-6)  # windows that lie in the common bar
    many = np.full(3000, 0.4)
    raised = flags({"rgb_clamp": many}, null_count=1000, shared=[Shared(same, 0.1)] * 50)
    assert names_of(raised) == ["shared_content"]
    assert "the same in 15.8% of their pixels" in raised[0].message
    raised = flags({"rgb_clamp": many}, null_count=1000, shared=[Shared(0, 0.1)] * 50 + [Shared(0, 0.95)] * 3)
    assert [(flag.name, flag.value) for flag in raised] == [("alike", 3)]
    assert names_of(flags({"rgb_clamp": many}, null_count=1000, alike=2)) == ["alike"]
    assert flags({"rgb_clamp": many}, null_count=1000, shared=[Shared(0.001, 0.2)] * 50) == []


def test_what_originals_share_is_counted_in_windows_and_correlated_after_averaging():
    generator = torch.Generator().manual_seed(1)
    one, other = torch.rand(2, 3, 64, 64, generator=generator)
    other[:, 3:20, 5:40] = one[:, 3:20, 5:40] + 3.99 / 255  # seen as the same
    other[:, 30:50, 5:40] = one[:, 30:50, 5:40] + 4.01 / 255
    other[0, 10, 10] += 0.1  # in one colour, which costs nine windows
    found = shared_content(one, other)
    assert found.same == round((15 * 33 - 9) / 62**2, 6)
    averaged = [picture.double().mean(dim=0).reshape(32, 2, 32, 2).mean(dim=(1, 3)).flatten() for picture in (one, other)]
    assert found.likeness == pytest.approx(np.corrcoef(*averaged)[0, 1] ** 2, abs=1e-6)
    assert shared_content(one, torch.full_like(one, 0.5)).likeness == 0  # a plain picture is like nothing
    assert [shared_content(x, x).same for x in (one[:, :3, :3], one[:, :2, :2], one[:, :2, :5])] == [1, 0, 0]


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
    noises = []
    for name in found.ids:
        noisy, clean = random_pictures(ids.index(name))
        noise = noise_of_equal_error(noisy, clean, seed=ids.index(name))
        noises.append(float(multi_attacker_scores(noise[None], clean[None], betas=SMALL)["rgb_clamp"]))
    assert found.equal_noise["rgb_clamp"] == pytest.approx(np.mean(noises), abs=1e-6)
    assert found.reading(0.1) == reading(found.null, found.strongest, 0.1, groups=found.groups)
    assert found.reading(0.1, clustered=False) == reading(found.null, found.strongest, 0.1, originals=found.originals)
    assert found.reading(0.1).success.effective < found.reading(0.1, clustered=False).success.effective
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
        ({"ids": ["a", "b"], "groups": [1, 1]}, "not enough pictures: 2 images are of one group"),
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

    privacy, halves = MultiAttackerPrivacy(betas=SMALL), [i // 2 for i in range(12)]
    some = assess(images, range(12), privacy, groups=halves, fit=[True] * 2 + [False] * 10, anchors=False)
    assert (some.ids, some.null.count) == (tuple(range(2, 12)), 10 * 4)
    found = assess(images, range(12), privacy, anchors=False)
    assert found.null.count == 12 * 5
    assert not np.isnan(found.strongest.p_value).any()


def test_anchors_count_where_they_have_a_score():
    selection = Selection([0], [[1, 2, 3]], [0, 1, 2, 3], [0, 1])
    scores = {"some": np.array([0, 0, 0, np.nan, 0.5, 0.2, 0.4]), "none": np.array([0, 0, 0, 1, 1, np.nan, np.nan])}
    assert selection.anchored(scores) == ({"some": 0.5, "none": 1.0}, {"some": pytest.approx(0.3), "none": None})


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


def test_of_several_that_raise_a_flag_the_worst_is_named_and_the_limit_itself_is_none():
    many = np.full(3000, 0.4)
    calm = {"gray_clamp": many, "pearson_gray": many}
    blind = {"gray_clamp": many / 20, "rgb_clamp": many / 20, "pearson_rgb": many + 0.2, "pearson_gray": many.copy()}
    assert names_of(flags({**calm, "gray_clamp": many / 20, "pearson_gray": np.full(3000, 0.5)}, rates=())) == []
    blind["pearson_gray"][:600] += 0.2
    (flag,) = flags(blind, rates=())
    assert (flag.name, flag.value) == ("structure", 1)
    assert "for 100% of the images rgb_clamp is near 0" in flag.message
    blind["pearson_gray"][:], blind["pearson_rgb"][600:] = 0.6, 0.4
    assert "for 100% of the images gray_clamp is near 0" in flags(blind, rates=())[0].message
    network = CNNAttacker()
    for converged, raised in ((False, ["not_converged"]), (True, []), (None, [])):
        network.converged = converged
        assert names_of(flags(calm, learned={"cnn": network}, rates=())) == raised


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
        return (clean if i >= 60 else noisy.clone().fill_(torch.nan)), clean

    privacy = MultiAttackerPrivacy(betas=SMALL, nan_strategy="ignore")
    found = assess(images, range(120), privacy, anchors=False)
    assert found.strongest.scored.tolist() == [False] * 60 + [True] * 60
    assert found.success(0.05)[found.strongest.scored].mean() > 0.95
    assert is_called_leaking(found)
    found.strongest.p_value[:] = np.nan
    with pytest.raises(ValueError, match="none of 120 images has a score"):
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


@pytest.mark.slow
@pytest.mark.parametrize("case", KNOWN_CASES, ids=lambda case: case.name)
def test_every_known_leak_is_caught_and_independent_noise_is_safe(known, case):
    success = known[case.name].success(0.01)
    assert is_called_leaking(known[case.name]) is case.leaks
    # Textures blurred to a flat grey, and a night sky below a steep curve, hold little to read.
    least = {"blur": 0.3, "gamma 3": 0.8}.get(case.name, 0.98)
    assert success.mean() > least if case.leaks else success.mean() < 0.05


@pytest.mark.slow
def test_unrelated_photographs_are_safe(known):
    assert not is_called_leaking(known["other photos"])


@pytest.mark.slow
def test_only_learned_attackers_restore_a_secretly_filtered_picture(known):
    scores = {name: values.mean() for name, values in known["secret filter"].scores.items()}
    learned = ("linear_gray", "block_gray", "pearson_linear", "pearson_block")
    assert scores["linear_gray"] > 0.9
    assert scores["pearson_linear"] > 0.8
    assert max(value for name, value in scores.items() if name.startswith("pearson") and name not in learned) < 0.5
    assert max(value for name, value in scores.items() if name not in learned) < scores["linear_gray"] - 0.15


@pytest.mark.slow
def test_only_the_map_of_blocks_restores_permuted_blocks(known):
    scores = {name: values.mean() for name, values in known["permuted blocks"].scores.items()}
    assert scores["block_gray"] > 0.9
    assert scores["block_gray"] > max(value for name, value in scores.items() if "block" not in name) + 0.05


@pytest.mark.slow
def test_the_suite_s_additions_are_needed(known):
    faint = known["contrast 1e-5"]
    assert faint.success(0.01, attacker="pearson_affine").mean() > 0.9
    assert faint.success(0.01, attacker="pearson_gray").mean() < 0.7


def test_a_leak_is_caught_and_noise_is_safe_in_a_small_world():
    clean = torch.tensor(photographs(96, 96), dtype=torch.float32)
    cases = ["identity", "random noise"]
    found = evaluate_known_cases(dict(zip("abcd", clean, strict=True)), ["a"], cases=cases, learned=(), stride=16)
    assert {name: is_called_leaking(one) for name, one in found.items()} == {"identity": True, "random noise": False}


def test_too_few_photographs_are_refused():
    with pytest.raises(ValueError, match="one photograph to fit on and three to score are needed, got 2"):
        evaluate_known_cases({"a": torch.zeros(3, 64, 64), "b": torch.zeros(3, 64, 64)}, ["a"])


@pytest.mark.slow
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


@pytest.mark.slow
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
