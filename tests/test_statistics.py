"""Intervals, tails, rates and tests against SciPy, statsmodels, brute force and simulation."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the cli extra")
pytest.importorskip("statsmodels", reason="needs the cli extra")
from conftest import parameters
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from attacker_metrics.statistics import (
    UnsupportedQuantileError,
    holm,
    mean_interval,
    mean_of_worst,
    pairs_needed,
    quantile,
    rate_of_counts,
    residual_risk,
    sign_flip_test,
    success_rate,
    tail_summary,
)


def beta(random, n):
    """Skewed scores with mean 1 / 11."""
    return random.beta(0.5, 5, n)


def with_zeros(random, n):
    """Most images collapsed to 0, the others readable; mean 0.15."""
    return (random.random(n) < 0.3) * random.beta(2, 2, n)


def in_groups(random, groups):
    """Scores of 1 to 10 alike pairs per group, and the groups; mean 0.2."""
    sizes = random.integers(1, 11, groups)
    means = np.clip(random.beta(1, 4, groups), 1e-3, 1 - 1e-3)
    scores = [random.beta(3 * mean, 3 * (1 - mean), size) for mean, size in zip(means, sizes, strict=True)]
    return np.concatenate(scores), np.repeat(np.arange(groups), sizes)


def covered(draw, interval, truth, times):
    """Share of simulated samples whose interval holds the truth."""
    random = np.random.default_rng(11)
    # One seed for all would make all err alike: no number of samples averages that out.
    intervals = [interval(draw(random), seed) for seed in range(times)]
    return np.mean([low <= truth <= high for _, low, high in intervals])


# Mean and mean of the worst


@pytest.mark.slow
@pytest.mark.parametrize(("n", "times"), [(30, 2000), (100, 2000), (500, 400)])
@pytest.mark.parametrize(("draw", "truth"), [(beta, 1 / 11), (with_zeros, 0.15)])
def test_intervals_of_skewed_means_hold_what_they_promise(draw, truth, n, times):
    share = covered(lambda random: draw(random, n), lambda x, seed: mean_interval(x, resamples=500, seed=seed), truth, times)
    assert share >= 0.93


def test_intervals_of_means_hold_it_with_twenty_groups_where_ignoring_them_fails():
    share = covered(
        lambda random: in_groups(random, 20), lambda x, seed: mean_interval(*x, resamples=500, seed=seed), 0.2, 2000
    )
    assert share >= 0.93
    assert (
        covered(
            lambda random: in_groups(random, 20), lambda x, seed: mean_interval(x[0], resamples=500, seed=seed), 0.2, 300
        )
        < 0.85
    )


@pytest.mark.slow
def test_intervals_of_the_mean_of_the_worst_hold_it():
    truth = 20 * stats.beta(0.5, 5).expect(lambda x: x, lb=stats.beta(0.5, 5).ppf(0.95), ub=1)
    share = covered(
        lambda random: beta(random, 100), lambda x, seed: mean_of_worst(x, resamples=500, seed=seed), truth, 2500
    )
    assert share >= 0.93


def test_the_mean_and_its_bootstrap_spread_are_those_of_scipy():
    scores = beta(np.random.default_rng(0), 400)
    estimate = mean_interval(scores)
    assert estimate.value == pytest.approx(scores.mean(), abs=1e-15)
    seeded = {"rng" if "rng" in parameters(stats.bootstrap) else "random_state": np.random.default_rng(0)}  # SciPy 1.15
    theirs = stats.bootstrap((scores,), np.mean, method="BCa", **seeded).confidence_interval
    np.testing.assert_allclose([estimate.low, estimate.high], theirs, rtol=0, atol=0.1 * (theirs.high - theirs.low))


def studentized_by_brute_force(scores, groups, statistic, seed, resamples):
    """The interval by drawing whole groups one by one; the standard error is written as the sum of residuals per group."""
    names = np.unique(groups)
    members = [scores[groups == name] for name in names]

    def value_and_error(drawn):
        pooled = np.concatenate(drawn)
        value, influence = statistic(pooled)
        sums = [part.sum() for part in np.split(influence, np.cumsum([len(part) for part in drawn])[:-1])]
        return value, np.sqrt(len(names) / (len(names) - 1) * np.square(sums).sum()) / len(pooled)

    value, error = value_and_error(members)
    ratios = []
    for row in np.random.default_rng(seed).integers(len(names), size=(resamples, len(names))):
        drawn = [members[index] for index in row]
        other, its_error = value_and_error(drawn)
        ratios.append((other - value) / its_error)
    upper, lower = np.quantile(ratios, [0.975, 0.025], method="higher")
    return value, max(value - upper * error, 0), min(value - lower * error, 1)


def mean_with_influence(scores):
    return scores.mean(), scores - scores.mean()


def worst_with_influence(scores):
    """CVaR by the definition: threshold plus mean excess, least over all thresholds."""
    candidates = scores[:, None] + 10 * np.maximum(scores[None] - scores[:, None], 0).mean(axis=1, keepdims=True)
    value, threshold = candidates.min(), np.sort(scores)[::-1][int(np.ceil(0.1 * len(scores) - 1e-9)) - 1]
    return value, threshold + 10 * np.maximum(scores - threshold, 0) - value


@pytest.mark.parametrize(
    ("function", "statistic"),
    [(mean_interval, mean_with_influence), (lambda *a, **k: mean_of_worst(*a, fraction=0.1, **k), worst_with_influence)],
    ids=["mean", "worst"],
)
def test_vectorised_resampling_of_groups_is_the_one_by_brute_force(function, statistic):
    scores, groups = in_groups(np.random.default_rng(5), 25)
    order = np.random.default_rng(6).permutation(len(scores))  # groups need not be contiguous
    reached = function(scores[order], groups[order], resamples=200, seed=3)
    np.testing.assert_allclose(reached, studentized_by_brute_force(scores, groups, statistic, 3, 200), rtol=0, atol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 1))
def test_the_mean_of_the_worst_is_the_least_threshold_plus_excess(scores, fraction):
    scores = np.array(scores)
    brute = min(t + np.maximum(scores - t, 0).mean() / fraction for t in scores)
    assert mean_of_worst(scores, fraction=fraction, resamples=2).value == pytest.approx(brute, abs=1e-9)


def test_all_pairs_are_the_worst_hundred_per_cent():
    scores, groups = in_groups(np.random.default_rng(1), 30)
    np.testing.assert_allclose(mean_of_worst(scores, groups, fraction=1), mean_interval(scores, groups), atol=1e-9)


def test_single_precision_is_read_and_then_computed_in_double():
    scores, groups = in_groups(np.random.default_rng(3), 30)
    single = scores.astype(np.float32)
    for function in (mean_interval, mean_of_worst):
        assert function(single, groups) == function(single.astype(np.float64), groups)


def test_groups_of_one_are_no_groups_and_names_do_not_matter():
    scores = beta(np.random.default_rng(2), 50)
    assert mean_interval(scores, np.arange(50)) == mean_interval(scores)
    words = [f"group {index:03}" for index in range(50)]
    assert mean_interval(scores, words) == mean_interval(scores)


def test_resamples_without_spread_push_the_limit_to_the_bound():
    """A third of the resamples misses the one pair that differs: they are infinitely many of their errors away."""
    rare = np.append(np.zeros(29), 1.0)
    estimate, mirrored = mean_interval(rare), mean_interval(1 - rare)
    assert 0 <= estimate.low < estimate.value < estimate.high == 1
    assert 0 == mirrored.low < mirrored.value < mirrored.high <= 1


@pytest.mark.parametrize("n", [6, 10, 20, 29])
def test_a_rare_leak_that_few_pairs_miss_is_within_the_interval_of_their_mean(n):
    generator, unseen = np.random.default_rng(n), stats.binomtest(0, n).proportion_ci(0.95).high
    held = 0
    for seed in range(200):
        scores = np.where(generator.random(n) < 0.1, 0.95, generator.uniform(0, 0.02, n))
        estimate = mean_interval(scores, resamples=200, seed=seed)
        held += estimate.low <= 0.104 <= estimate.high
        assert estimate.high >= estimate.value + unseen * (1 - estimate.value) - 1e-12
        assert estimate.low <= estimate.value * (1 - unseen) + 1e-12
    assert held >= 186


@pytest.mark.parametrize(
    ("attack", "n", "control", "m"), [(0.6, 100, 0.1, 100), (0.3, 50, 0.25, 400), (0.9, 20, 0.05, 30), (0.12, 900, 0.1, 900)]
)
def test_the_residual_risk_is_one_minus_the_score_interval_of_the_ratio_of_failures(attack, n, control, m):
    found = residual_risk(attack, n, control, m)
    ratio = confint_proportions_2indep(
        (1 - attack) * n, n, (1 - control) * m, m, compare="ratio", method="score", correction=True
    )
    assert found.value == pytest.approx((attack - control) / (1 - control))
    assert found.low == pytest.approx(max(0, 1 - ratio[1]), abs=1e-5)
    assert found.high == pytest.approx(1 - ratio[0], abs=1e-5)


def test_the_residual_risk_at_its_ends():
    assert residual_risk(0.05, 100, 0.1, 100)[:2] == (0.0, 0.0)
    all_read = residual_risk(1.0, 100, 0.01, 500)
    assert all_read.value == all_read.high == 1
    assert 0.9 < all_read.low < 1
    assert residual_risk(0.2, 20, 1.0, 20) == (0.0, 0.0, 1.0)
    assert residual_risk(1.0, 1, 0.0, 1).low == 0
    assert residual_risk(0.05, 1000, 0.5, 1000) == (0.0, 0.0, 0.0)
    nothing = residual_risk(0.0, 30, 0.0, 30)  # rates of which no spread can be told
    assert nothing[:2] == (0.0, 0.0)
    assert 0.05 < nothing.high < 0.3
    for wrong, message in (
        ((1.1, 9, 0, 9), "attack must be a rate"),
        ((1, 9, 2, 9), "control must be"),
        ((1, 0, 0, 9), "attack_n must be"),
        ((0.5, 9, 0, 0.5), "control_n must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            residual_risk(*wrong)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.3])
@pytest.mark.parametrize("sizes", [(500, *[1] * 19), tuple(300 // k for k in range(1, 21)), (*[100] * 3, *[2] * 17)])
def test_the_upper_bound_of_a_rate_holds_for_groups_of_any_sizes(sizes, rate):
    generator, groups = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes)
    held = [success_rate(np.repeat(generator.random(len(sizes)) < rate, sizes), groups).upper >= rate for _ in range(200)]
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize("function", [mean_interval, mean_of_worst])
def test_what_says_nothing_about_its_error_has_no_interval(function):
    assert np.isnan(function([0.1] * 30)[1:]).all()
    assert np.isnan(function([0.3])[1:]).all()
    assert np.isnan(function([0.1, 0.4], ["a", "a"])[1:]).all()
    assert function([0.1] * 30).value == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_interval_and_memory_is_chunked(monkeypatch):
    scores, groups = in_groups(np.random.default_rng(8), 40)
    whole = [mean_interval(scores, groups), mean_of_worst(scores, groups)]
    assert whole == [mean_interval(scores, groups), mean_of_worst(scores, groups)]
    assert whole[0] != mean_interval(scores, groups, seed=1)
    assert whole[1] != mean_of_worst(scores, groups, seed=1)
    assert whole[0] == mean_interval(scores, groups, seed=0, resamples=2000)
    for chunk in (1, 1000, 44_000):  # one resample at once; 4 or 25 with a rest; 200 or 1100
        monkeypatch.setattr("attacker_metrics.statistics.bootstrap._CHUNK", chunk)
        np.testing.assert_allclose([mean_interval(scores, groups), mean_of_worst(scores, groups)], whole, atol=1e-12)


# Quantiles


@pytest.mark.parametrize("q", [0.01, 0.25, 0.5, 0.9, 0.95, 0.99])
def test_a_quantile_is_refused_exactly_where_no_interval_could_be_trusted(q):
    needed = pairs_needed(q)
    scores = np.random.default_rng(0).random(needed)
    estimate = quantile(scores, q)
    assert estimate.value == np.quantile(scores, q)
    theirs = stats.quantile_test(scores, p=q).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == (theirs.low, theirs.high)
    assert np.isfinite(theirs).all()
    assert max(q, 1 - q) ** needed <= 0.025
    assert min(q, 1 - q) * (needed - 1) < np.log(40)
    with pytest.raises(UnsupportedQuantileError, match=f"at least {needed} are needed"):
        quantile(scores[1:], q)


@pytest.mark.slow
@pytest.mark.parametrize(("q", "n"), [(0.9, 40), (0.95, 100), (0.99, 400)])
def test_intervals_of_quantiles_hold_it(q, n):
    truth = stats.beta(0.5, 5).ppf(q)
    assert covered(lambda random: beta(random, n), lambda x, seed: quantile(x, q), truth, 400) >= 0.93


def test_intervals_of_quantiles_hold_it_in_groups():
    random = np.random.default_rng(0)
    truth = np.quantile(in_groups(random, 100_000)[0], 0.9)
    assert covered(lambda random: in_groups(random, 60), lambda x, seed: quantile(x[0], 0.9, x[1]), truth, 400) >= 0.93


@pytest.mark.parametrize("q", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 12])
def test_intervals_of_quantiles_in_groups_end_at_the_order_statistics_around_those_of_the_exact_share(q, seed, digits):
    scores, groups = in_groups(np.random.default_rng(seed), 60)
    scores = scores.round(digits)  # with one, many pairs tie with the quantile: they do not lie beyond it
    estimate = quantile(scores, q, groups)
    beyond = success_rate(scores > estimate.value, groups).effective
    shares = proportion_confint(q * beyond, beyond, method="beta")
    ordered, places = np.sort(scores), np.array(shares) * (len(scores) - 1)
    assert estimate.low == ordered[int(np.floor(places[0]))]
    assert estimate.high == ordered[int(np.ceil(places[1]))]


def test_copies_of_one_picture_are_no_further_evidence_for_a_quantile():
    scores = beta(np.random.default_rng(0), 30)
    with pytest.raises(
        UnsupportedQuantileError, match=r"p95 of 3000 pairs in 30 groups, worth \d+ independent pairs: at least 74 of"
    ):
        quantile(np.repeat(scores, 100), 0.95, np.repeat(np.arange(30), 100))
    assert quantile(np.repeat(scores, 100), 0.95).value > 0
    many, groups = in_groups(np.random.default_rng(1), 36)
    with pytest.raises(UnsupportedQuantileError, match=r"in 36 groups, worth .* at least 37 of both"):
        quantile(many, 0.9, groups)


def test_as_many_pairs_are_needed_as_make_the_expected_number_beyond_log_forty_in_spite_of_rounding():
    assert [pairs_needed(np.log(40) / n) for n in range(8, 2000)] == list(range(8, 2000))


def test_many_groups_are_few_pairs_where_one_of_them_decides_which_share_lies_beyond():
    scores = np.append(np.full(100, 0.9), np.linspace(0, 0.5, 90))
    groups = np.append(np.zeros(100), np.arange(1, 91))
    with pytest.raises(UnsupportedQuantileError, match=r"190 pairs in 91 groups, worth 1 independent pairs: at least 10 of"):
        quantile(scores, 0.4, groups)


# Rates


@pytest.mark.parametrize(("k", "n"), [(0, 30), (1, 30), (7, 50), (50, 50), (3, 10_000)])
def test_rates_are_those_of_statsmodels_and_their_bound_is_exact(k, n):
    rate = success_rate([True] * k + [False] * (n - k))
    assert rate == rate_of_counts(k, n)
    np.testing.assert_allclose((rate.low, rate.high), proportion_confint(k, n, method="wilson"), atol=1e-12)
    exact = stats.binomtest(k, n, alternative="less").proportion_ci(0.95, method="exact")
    assert rate.upper == pytest.approx(exact.high, abs=1e-9)
    if k == 0:
        assert rate.upper == pytest.approx(1 - 0.05 ** (1 / n), abs=1e-12)
        assert "upper bound" in str(rate)


def test_copies_of_one_picture_are_no_further_evidence_for_a_rate():
    assert success_rate(np.zeros(3000), np.repeat(np.arange(30), 100)).upper == success_rate(np.zeros(30)).upper
    hits = np.random.default_rng(0).random(40) < 0.3
    alone, copied = success_rate(hits), success_rate(np.repeat(hits, 50), np.repeat(np.arange(40), 50))
    assert copied.rate == alone.rate
    assert copied.effective < 1.05 * alone.effective
    assert success_rate(hits, np.arange(40)).effective > 0.9 * alone.effective


@pytest.mark.parametrize("groups", [2, 3, 12, 40])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_in_groups_are_worth_what_leaving_out_every_group_says(groups, seed):
    random = np.random.default_rng(seed)
    group = np.append(np.arange(groups), random.integers(groups, size=5 * groups))
    hits = random.random(6 * groups) < random.beta(0.5, 1, groups)[group]
    hits[:2] = True, False
    without = np.array([hits[group != one].mean() for one in range(groups)])
    variance = (groups - 1) / groups * ((without - hits.mean()) ** 2).sum()
    alike = hits.mean() * (1 - hits.mean()) / variance  # that many independent pairs have this error
    kish = len(hits) ** 2 / (np.bincount(group) ** 2).sum()
    student = (stats.t.ppf(0.975, len(hits) - 1) / stats.t.ppf(0.975, max(kish - 1, 0.05))) ** 2
    expected = len(hits) if alike >= len(hits) else max(1, alike * student)
    assert success_rate(hits, group).effective == pytest.approx(expected, rel=1e-12)


def test_what_pairs_in_groups_are_worth_at_the_ends():
    assert success_rate(np.arange(100) < 50, np.arange(100) // 50).effective == 1  # one of two groups, wholly
    assert success_rate(np.arange(100) % 2, np.arange(100) // 2).effective == 100  # half of every group: no spread
    assert success_rate([True, False, True], ["a"] * 3).effective == 1
    for share in (0, 1):
        assert success_rate(np.full(12, share), np.arange(12) // 3).effective == 4


def test_a_hit_never_lowers_what_may_be_claimed_without_any():
    """Hits in one group hardly show the spread between groups, so they count as if nearly all pairs were independent."""
    groups = np.repeat(np.arange(30), 100)
    none, every = success_rate(np.zeros(3000), groups), success_rate(np.ones(3000), groups)
    for k in (1, 3, 10):
        few = success_rate(np.arange(3000) < k, groups)
        assert few.upper >= none.upper
        assert few.high >= none.high
        many = success_rate(np.arange(3000) >= k, groups)
        assert many.low <= every.low


def test_intervals_of_rates_hold_it_where_few_groups_leak_wholly():
    random, groups = np.random.default_rng(0), np.repeat(np.arange(30), 100)
    truth = 0.05 * 0.95 + 0.95 * 0.001
    rates = [
        success_rate(random.random(3000) < np.repeat(np.where(random.random(30) < 0.05, 0.95, 0.001), 100), groups)
        for _ in range(400)
    ]
    assert np.mean([rate.low <= truth <= rate.high for rate in rates]) >= 0.93
    assert np.mean([truth <= rate.upper for rate in rates]) >= 0.93


def test_intervals_of_rates_hold_it_in_groups():
    def draw(random):
        sizes = random.integers(1, 11, 25)
        means = random.beta(0.8, 3.2, 25)
        return random.random(sizes.sum()) < np.repeat(means, sizes), np.repeat(np.arange(25), sizes)

    def interval(sample, seed):
        rate = success_rate(*sample)
        return rate.rate, rate.low, rate.high

    assert covered(draw, interval, 0.2, 600) >= 0.93


# Tests of paired differences


def test_the_exact_sign_flip_test_is_scipys_and_that_of_every_flip():
    random = np.random.default_rng(0)
    for n in (1, 2, 5, 12):
        differences = random.normal(0.4, 1, n)
        test = sign_flip_test(differences)
        means = [np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=n)]
        assert test.p_value == pytest.approx(np.mean(np.abs(means) >= abs(differences.sum()) - 1e-12), abs=1e-15)
        assert (test.exact, test.smallest) == (True, 2 / 2**n)
        if n > 1:
            theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", vectorized=True)
            assert test.p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sums_that_round_differently_are_equal_and_every_flip_is_tried_if_they_are_not_more_than_the_draws(monkeypatch):
    differences = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.1, 0.7])
    for order in itertools.permutations(range(7), 7):
        if order[0] < 3:
            assert sign_flip_test(differences[list(order)]).p_value == 2 / 2**7
    skewed = np.random.default_rng(4).normal(0.4, 1, 9)
    whole = sign_flip_test(skewed, resamples=512)
    assert (whole.exact, sign_flip_test(skewed, resamples=511).exact) == (True, False)
    monkeypatch.setattr("attacker_metrics.statistics.paired._CHUNK", 100)  # 11 flips at once, and a rest
    assert sign_flip_test(skewed) == whole
    monkeypatch.setattr("attacker_metrics.statistics.paired._CHUNK", 1)
    assert sign_flip_test(skewed) == whole


def test_the_random_sign_flip_test_never_gives_zero_and_estimates_the_exact_one(monkeypatch):
    assert sign_flip_test(np.linspace(1, 2, 100)).p_value == 1e-4
    assert sign_flip_test(np.linspace(1, 2, 100), resamples=999).p_value == 1e-3
    differences = np.random.default_rng(6).normal(0.3, 1, 13)
    exact = sign_flip_test(differences)
    for chunk in (4_000_000, 13_000):
        monkeypatch.setattr("attacker_metrics.statistics.paired._CHUNK", chunk)
        drawn = sign_flip_test(differences, resamples=8191)
        assert (exact.exact, drawn.exact, drawn.smallest) == (True, False, 1 / 8192)
        assert drawn.p_value == pytest.approx(exact.p_value, abs=4 * np.sqrt(exact.p_value / 8191))
    assert drawn != sign_flip_test(differences, resamples=8191, seed=1)


def test_the_random_sign_flip_test_agrees_with_the_paired_t_test():
    differences = np.random.default_rng(1).normal(0.1, 1, 400)
    test = sign_flip_test(differences)
    assert (test.exact, test.smallest) == (False, 1e-4)
    assert test.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert sign_flip_test(differences) == test


def test_groups_flip_as_a_whole():
    random = np.random.default_rng(2)
    differences, groups = random.normal(0.2, 1, 60), np.arange(60) % 9
    sums = [differences[groups == group].sum() for group in range(9)]
    assert sign_flip_test(differences, groups) == sign_flip_test(sums)


def test_the_sign_flip_test_finds_chance_as_often_as_it_says():
    random = np.random.default_rng(3)

    def alike_in_groups():
        groups = np.repeat(np.arange(20), 5)
        return random.normal(size=20)[groups] + 0.3 * random.normal(size=100), groups

    samples = [alike_in_groups() for _ in range(400)]
    assert np.mean([sign_flip_test(*sample, resamples=999).p_value <= 0.05 for sample in samples]) <= 0.075
    assert np.mean([sign_flip_test(sample[0], resamples=999).p_value <= 0.05 for sample in samples]) > 0.2


def test_without_any_difference_the_p_value_is_one():
    assert sign_flip_test(np.zeros(5)).p_value == 1
    assert sign_flip_test(np.zeros(500)).p_value == 1
    assert sign_flip_test([0.5]).p_value == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_the_definition(p_values):
    order = np.argsort(p_values)
    corrected, largest = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    np.testing.assert_allclose(holm(p_values), corrected, atol=1e-12)
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


# The summary


def test_a_summary_holds_what_n_supports_and_says_what_it_does_not():
    scores = np.append(beta(np.random.default_rng(4), 120), [np.nan] * 3)
    summary = tail_summary(scores, threshold=0.3)
    kept = scores[:120]
    assert (summary.n, summary.left_out, summary.groups) == (120, 3, None)
    assert summary.mean == mean_interval(kept)
    assert summary.quantiles == {"p90": quantile(kept, 0.9), "p95": quantile(kept, 0.95), "p99": None}
    assert summary.cvar5 == mean_of_worst(kept)
    assert summary.success == success_rate(kept >= 0.3)
    assert list(summary.refused) == ["p99"]
    assert "369" in summary.refused["p99"]
    few = tail_summary(scores[:20], np.arange(20) // 2)
    assert list(few.refused) == ["p90", "p95", "p99", "cvar5"]
    assert (few.groups, few.cvar5, few.success) == (10, None, None)
    assert few.refused["cvar5"] == few.refused["p95"].replace("p95", "the mean of the worst 5 %", 1)


def test_a_summary_hands_groups_bounds_and_seed_on_and_a_score_at_the_threshold_is_a_success():
    scores, groups = in_groups(np.random.default_rng(4), 80)
    scores = 3 * scores.round(2) - 1
    holed, names = np.append(scores, [np.nan] * 2), np.append(groups, [0, 99])  # nobody else is in group 99
    at = np.median(scores).round(2)
    summary = tail_summary(holed, names, threshold=at, bounds=(-1, 2), seed=3)
    assert (summary.n, summary.left_out, summary.groups) == (len(scores), 2, 80)
    assert summary.mean == mean_interval(scores, groups, bounds=(-1, 2), seed=3)
    assert summary.cvar5 == mean_of_worst(scores, groups, bounds=(-1, 2), seed=3)
    assert summary.quantiles["p95"] == quantile(scores, 0.95, groups)
    assert summary.success == success_rate(scores >= at, groups)
    assert summary.success.successes > (scores > at + 1e-9).sum()
    with pytest.raises(ValueError, match="must lie in"):
        tail_summary(scores, groups)


# Wrong input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), r"shape \(n,\) with n >= 1, got \(0,\)"),
        (lambda: mean_interval(np.zeros((2, 3))), r"got \(2, 3\)"),
        (lambda: mean_interval([0.1, np.nan, np.inf]), "2 of 3 scores are NaN or infinite"),
        (lambda: mean_interval([0.1, 1.5]), "must lie in .* got 0.1 to 1.5; pass their own range as bounds"),
        (lambda: mean_interval([0.1, -0.5]), "must lie in .* got -0.5 to 0.1; pass their own range as bounds"),
        (lambda: mean_of_worst([0.1, 1.5]), "must lie in .* got 0.1 to 1.5"),
        (lambda: mean_of_worst([0.1, 0.2], fraction=5), "fraction must be in .* got 5"),
        (lambda: mean_of_worst([0.1, 0.2], fraction=0), "fraction must be in .* got 0"),
        (lambda: sign_flip_test([0.1, 0.2], ["a"]), r"groups must have the shape of scores, \(2,\), got \(1,\)"),
        (lambda: sign_flip_test([0.1, 0.2], ["a", None]), "1 of 2 scores have no group"),
        (lambda: sign_flip_test([0.1, 0.2], [1, np.nan]), "1 of 2 scores have no group"),
        (lambda: sign_flip_test([0.1, 0.2], np.array(["a", np.nan], object)), "1 of 2 scores have no group"),
        (lambda: success_rate([0, 0.5]), "hits must be 0 or 1"),
        (lambda: rate_of_counts(3, 2), "got 3 of 2"),
        (lambda: rate_of_counts(-1, 2), "got -1 of 2"),
        (lambda: rate_of_counts(0, 0), "got 0 of 0"),
        (lambda: quantile([0.1] * 100, 95), "q must be in .* got 95"),
        (lambda: pairs_needed(0), "q must be in .* got 0"),
        (lambda: pairs_needed(1), "q must be in .* got 1"),
        (lambda: pairs_needed(1.5), "q must be in .* got 1.5"),
        (lambda: holm([0.1, 1.1]), "lie in .* got .*1.1"),
        (lambda: holm([0.1, -0.1]), "lie in .* got .*-0.1"),
        (lambda: holm([0.1, np.nan]), "lie in .* got .*nan"),
        (lambda: holm([]), r"shape \(m,\) .* got \[\]"),
        (lambda: holm([[0.1, 0.2]]), r"shape \(m,\) .* got \[\["),
        (lambda: tail_summary([np.nan]), "n >= 1"),
        (lambda: tail_summary(np.zeros((2, 30))), r"got \(2, 30\)"),
        (lambda: tail_summary([0.1, 0.2], ["a"]), r"groups must have the shape of scores, \(2,\), got \(1,\)"),
        (lambda: tail_summary([0.1, 0.2], threshold=np.nan), "threshold is NaN"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_its_extra_it_says_what_to_install():
    for missing in ("scipy", "statsmodels"):  # torchmetrics imports scipy itself where it is
        code = f"import attacker_metrics, sys; sys.modules[{missing!r}] = None; import attacker_metrics.statistics"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 1
        assert f"needs {missing}: pip install -e " in done.stderr, done.stderr


def test_beyond_five_thousand_pairs_or_groups_the_interval_is_students():
    random = np.random.default_rng(5)
    scores = random.beta(0.5, 5, 6000)
    low, high = stats.t.interval(0.95, 5999, loc=scores.mean(), scale=stats.sem(scores))
    np.testing.assert_allclose(mean_interval(scores), [scores.mean(), low, high], rtol=0, atol=1e-9)
    worst = mean_of_worst(scores)
    drawn = [mean_of_worst(random.beta(0.5, 5, 6000)).value for _ in range(300)]
    assert worst.high - worst.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.15)
    paired = mean_interval(np.repeat(scores, 2), np.repeat(np.arange(6000), 2))
    np.testing.assert_allclose(paired, [scores.mean(), low, high], rtol=0, atol=1e-9)


def test_the_ends_of_a_rate_of_nearly_none_or_all_are_those_of_as_many_groups():
    hits, groups = np.ones(3000, bool), np.repeat(np.arange(30), 100)
    hits[7] = False
    assert success_rate(hits, groups=groups).low == pytest.approx(proportion_confint(30, 30, method="wilson")[0])
    assert success_rate(~hits, groups=groups).high == pytest.approx(proportion_confint(0, 30, method="wilson")[1])
    one = rate_of_counts(1, 1)
    assert one.upper == 1
