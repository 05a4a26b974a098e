"""Whether metrics agree with people: the published annotations' figures, SciPy and friends, tables that pair by id."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from reference import photographs
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from statsmodels.stats.inter_rater import fleiss_kappa

from attacker_metrics import AttackerMetricsWarning, MeanMSSSIM, MultiAttackerPrivacy
from attacker_metrics.commands.cli import main
from attacker_metrics.faithfulness import (
    Annotations,
    Scores,
    TableError,
    align,
    calibrate,
    faithfulness,
    human_agreement,
    pair,
    read_annotations,
    read_scores,
    report,
)
from attacker_metrics.faithfulness.bootstrap import draw_weights, interval, two_sided_p
from attacker_metrics.faithfulness.rank_statistics import RankStatistics
from attacker_metrics.files.parquet_pages import unfolded_bytes
from attacker_metrics.metrics.leakage_direction import METRIC_FACTS, leakage_direction

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "semsim_cifar100_annotations.csv"
DIRECTIONS = {
    "psnr_db": "higher",
    "ssim": "higher",
    "mse_uint8": "lower",
    "lpips_squeeze": "lower",
    "dreamsim": "lower",
    "semsim_fork": "lower",
}
SIGNS = {name: 1 if direction == "higher" else -1 for name, direction in DIRECTIONS.items()}


def write_csv(path, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def synthetic(seed=0, originals=40, models=("a", "b", "c", "d"), annotators=3):
    """Annotations and two metrics, one of which follows the votes."""
    rng = np.random.default_rng(seed)
    size = originals * len(models)
    model = np.repeat(models, originals)
    original = [str(k) for k in range(originals)] * len(models)
    visible = rng.normal(size=size) + np.repeat(np.linspace(-1, 1, len(models)), originals)
    votes = {f"p{k}": (visible + rng.normal(size=size) > 0).astype(float) for k in range(annotators)}
    ids = [f"{m}/{o}.png" for m, o in zip(model, original, strict=True)]
    table = Annotations(["set"] * size, model, ["attack"] * size, original, ids, votes)
    scores = Scores(ids, {"psnr": 20 + visible + 0.3 * rng.normal(size=size), "mse": rng.random(size)})
    return table, scores


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The published annotations in this library's form, scores in another order."""
    if not PUBLISHED.is_file():
        pytest.skip("the published annotations are not part of the repository")
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    folder = tmp_path_factory.mktemp("published")
    ids = [f"{row['model']}/{row['image_id']}" for row in rows]
    constant = {"dataset": "cifar100", "attack": "inverting gradients"}
    columns = {name: [value] * len(rows) for name, value in constant.items()}
    columns |= {"model": [row["model"] for row in rows], "original": [row["image_id"] for row in rows]}
    columns |= {"reconstruction": ids, "class": [row["class_id"] for row in rows]}
    columns |= {f"annotator_{k}": [row[f"ann{k}"] for row in rows] for k in range(1, 6)}
    columns |= {"recognizable": [row["train_folder_recognizable"] for row in rows]}
    annotations = write_csv(folder / "annotations.csv", columns)
    order = np.random.default_rng(1).permutation(len(rows))
    scores = {"reconstruction": [ids[k] for k in order]}
    scores |= {name: [rows[k][name] for k in order] for name in DIRECTIONS}
    return annotations, write_csv(folder / "scores.csv", scores)


@pytest.fixture(scope="module")
def outcome(published):
    annotations, scores = published
    return faithfulness(read_scores(scores, DIRECTIONS), read_annotations(annotations), draws=100)


def test_the_published_figures_per_model(outcome):
    figures = {name: outcome.model.statistics[name] for name in DIRECTIONS}
    signed = {
        name: (round(SIGNS[name] * row["spearman"].value, 3), round(SIGNS[name] * row["kendall"].value, 3))
        for name, row in figures.items()
    }
    assert outcome.model.count == 14
    assert signed == {
        "psnr_db": (0.745, 0.538),
        "ssim": (0.495, 0.363),
        "mse_uint8": (-0.710, -0.495),
        "lpips_squeeze": (-0.820, -0.626),
        "dreamsim": (-0.358, -0.253),
        "semsim_fork": (-0.705, -0.582),
    }


def test_the_published_figures_per_image(outcome):
    figures = outcome.image.statistics
    rho = {name: round(SIGNS[name] * figures[name]["spearman"].value, 3) for name in DIRECTIONS if name != "mse_uint8"}
    area = {name: round(figures[name]["roc_auc"].value, 3) for name in DIRECTIONS if name != "mse_uint8"}
    assert outcome.image.count == 8400
    assert outcome.originals == 600
    assert rho == {"psnr_db": 0.2, "ssim": 0.167, "lpips_squeeze": -0.382, "dreamsim": -0.409, "semsim_fork": -0.249}
    assert area == {"psnr_db": 0.606, "ssim": 0.585, "lpips_squeeze": 0.698, "dreamsim": 0.706, "semsim_fork": 0.633}
    assert round(outcome.humans.fleiss_kappa, 3) == 0.374


def test_on_the_published_annotations_no_metric_reaches_an_annotator(outcome):
    rho, low, high = outcome.humans.mean["spearman"]
    assert low < rho < high
    assert all(row["spearman"].high < low for row in outcome.image.statistics.values())


def test_the_published_intervals_hold_their_values_and_widen_with_fewer_units(outcome):
    for name in DIRECTIONS:
        image, model = outcome.image.statistics[name]["spearman"], outcome.model.statistics[name]["spearman"]
        assert image.low < image.value < image.high
        assert model.low < model.value < model.high
        assert model.high - model.low > 3 * (image.high - image.low)


def test_the_command_line_gives_the_same_figures_and_writes_a_report(published, outcome, tmp_path, capsys):
    annotations, scores = published
    directions = [word for name, way in DIRECTIONS.items() if name != "ssim" for word in ("--direction", f"{name}={way}")]
    files = ["--scores", str(scores), "--annotations", str(annotations)]
    command = ["faithfulness", *files, *directions, "--draws", "100", "--output", str(tmp_path / "out")]
    assert main([*command, "--calibrate", "isotonic", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "faithfulness.json").read_text()) == printed
    for level in ("image", "model"):
        for name, row in getattr(outcome, level).statistics.items():
            for statistic, estimate in row.items():
                shown = printed["levels"][level]["statistics"][name][statistic]
                assert shown == {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "faithfulness.json",
        "faithfulness.md",
        "reliability.png",
        "scatter-image.png",
        "scatter-model.png",
    }
    comparison = printed["levels"]["model"]["comparisons"][0]
    assert set(comparison["difference"]) == {"value", "low", "high"}
    assert comparison["decided"] is False
    skills = {fit["metrics"][0]: fit["skill"] for fit in printed["calibrations"]}
    assert max(skills, key=skills.get) == "dreamsim"


# ---------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("ties", [False, True])
def test_statistics_are_those_of_scipy_and_scikit_learn(ties):
    rng = np.random.default_rng(3)
    score = rng.normal(size=200).round(1 if ties else 12)
    target = (score + rng.normal(size=200)).round(0) / 5
    positive = (target > 0.1).astype(float)
    rho, tau, r, area = RankStatistics(score, target, positive)()
    assert rho == pytest.approx(stats.spearmanr(score, target).statistic, abs=1e-12)
    assert tau == pytest.approx(stats.kendalltau(score, target).statistic, abs=1e-12)
    assert r == pytest.approx(stats.pearsonr(score, target).statistic, abs=1e-12)
    assert area == pytest.approx(sklearn_metrics.roc_auc_score(positive, score), abs=1e-12)
    concordance = (1 + stats.somersd(target, score).statistic) / 2
    assert RankStatistics(score, target)()[3] == pytest.approx(concordance, abs=1e-12)


def test_weights_are_repetitions():
    rng = np.random.default_rng(4)
    score, target = rng.normal(size=60).round(1), rng.integers(0, 6, 60) / 5
    positive, weights = rng.integers(0, 6, 60) / 5, rng.integers(0, 4, 60).astype(float)
    repeated = [np.repeat(column, weights.astype(int)) for column in (score, target, positive)]
    np.testing.assert_allclose(
        RankStatistics(score, target, positive)(weights), RankStatistics(*repeated)(), rtol=0, atol=1e-12
    )


def test_shares_of_votes_give_the_area_over_single_votes():
    table, scores = synthetic()
    votes = np.stack(list(table.votes.values()))
    psnr = scores.columns["psnr"]
    single = sklearn_metrics.roc_auc_score(votes.ravel(), np.tile(psnr, len(votes)))
    share = table.recognized("mean")
    assert RankStatistics(psnr, share, share)()[3] == pytest.approx(single, abs=1e-12)
    found = faithfulness(scores, table, rule="mean", draws=100).image.statistics["psnr"]["roc_auc"].value
    assert found == pytest.approx(single, abs=1e-12)


def test_a_constant_metric_has_no_correlation_and_infinity_has_a_rank():
    target = np.asarray([0.0, 0.2, 0.4, 1.0])
    assert np.isnan(RankStatistics(np.full(4, 0.1), target)()[:3]).all()
    rho, tau, r, area = RankStatistics(np.asarray([1.0, 2.0, 3.0, np.inf]), target)()
    assert (rho, tau, area) == pytest.approx((1, 1, 1))
    assert np.isnan(r)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
def test_what_only_rows_without_weight_keep_from_being_constant_has_no_correlation(value):
    """Rounding would make one of 1e-16 of it."""
    constant, other, weights = np.array([value] * 3 + [0.9]), np.array([0.0, 1.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    assert np.isnan(RankStatistics(constant, other)(weights)[:3]).all()
    assert np.isnan(RankStatistics(other, constant)(weights)).all()


def test_whole_clusters_are_drawn():
    clusters = np.repeat(["a", "b", "c"], [1, 2, 5])
    weights = draw_weights(clusters, 50, seed=0)
    for label in "abc":
        assert (np.ptp(weights[:, clusters == label], axis=1) == 0).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_intervals_of_clustered_rows_are_wider_than_if_they_were_independent():
    rng = np.random.default_rng(5)
    per_cluster = rng.normal(size=50)
    values, clusters = np.repeat(per_cluster, 20), np.repeat(np.arange(50), 20)
    widths = []
    for labels in (clusters, np.arange(1000)):
        weights = draw_weights(labels, 400, seed=0)
        low, high = interval(weights @ values / weights.sum(axis=1), len(np.unique(labels)))
        widths.append(high - low)
    assert widths[0] == pytest.approx(np.sqrt(20) * widths[1], rel=0.3)
    assert widths[0] == pytest.approx(2 * 1.96 * per_cluster.std() / np.sqrt(50), rel=0.2)


def test_the_paired_test_keeps_its_level():
    """Two equally good metrics are told apart in about 5 % of data sets."""
    rejected = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        target = rng.random(40)
        scores = [target + rng.normal(size=40) * 0.5 for _ in range(2)]
        weights = draw_weights(np.arange(40), 100, seed)
        first, second = (RankStatistics(score, target) for score in scores)
        difference = np.asarray([first(row)[0] - second(row)[0] for row in weights])
        rejected += two_sided_p(first()[0] - second()[0], difference, 40) < 0.05
    assert 1 <= rejected <= 16


def test_few_clusters_are_no_evidence_however_much_their_draws_agree():
    ids = [str(k) for k in range(12)]
    rising = np.arange(12.0)
    votes = {"ann": rising > 5, "bob": np.ones(12)}
    table = Annotations(["d"] * 12, [i for i in "abc" for _ in range(4)], ["x"] * 12, ["only"] * 12, ids, votes)
    outcome = faithfulness(Scores(ids, {"psnr": rising, "mse": rising}), table, draws=100)  # one is right, one is reversed
    assert np.isnan(outcome.image.statistics["psnr"]["roc_auc"].low)  # one original: every draw is the same
    for level in (outcome.image, outcome.model):
        assert level is not None
        assert all(comparison.difference.value != 0 and not comparison.decided for comparison in level.comparisons)
    assert two_sided_p(2.0, np.full(100, 2.0), 8) == 2 / 2**8


@pytest.mark.parametrize("models", ["abc", "abcd", "abcdefg", "abcdefgh"])
@pytest.mark.parametrize("originals", [7, 8])
def test_of_fewer_than_eight_there_is_no_interval_and_no_test_but_the_reason(models, originals, tmp_path):
    table, scores = synthetic(originals=originals, models=tuple(models))
    outcome = faithfulness(scores, table, draws=100)
    fits = [calibrate(scores, table, ["psnr"], draws=100)]
    report.write_outputs(tmp_path, outcome, fits)
    found = json.loads((tmp_path / "faithfulness.json").read_text())
    page = (tmp_path / "faithfulness.md").read_text()
    for level, count, what in (("image", originals, "originals"), ("model", len(models), "models")):
        figures, few = found["levels"][level], count < 8
        reason = f"no intervals and no tests: they need 8 {what}, there are {count}"
        assert figures["refused"] == (reason if few else None)
        assert (reason in page) == few
        for estimate in (row["spearman"] for row in figures["statistics"].values()):
            assert (estimate["low"] is None, estimate["high"] is None) == (few, few)
            assert estimate["value"] is not None
        for comparison in figures["comparisons"]:
            assert (comparison["p"] is None, comparison["p_holm"] is None, comparison["difference"]["low"] is None) == (
                few,
            ) * 3
    few, humans, fit = originals < 8, found["humans"], found["calibrations"][0]
    assert (humans["refused"] is None, humans["mean"]["spearman"][1] is None) == (not few, few)
    assert (fit["refused"] is None, fit["brier"]["low"] is None) == (not few, few)
    assert (" to " in page) == (len(models) == 8 or originals == 8)
    assert "(- to -)" not in page


def test_every_share_has_its_count(tmp_path):
    table, scores = synthetic(originals=12)
    votes = {name: np.where(np.arange(48) % 5 == k, np.nan, column) for k, (name, column) in enumerate(table.votes.items())}
    table = Annotations(*(getattr(table, name) for name in KEY_FIELDS), votes)
    outcome = faithfulness(scores, table, draws=100)
    fit = calibrate(scores, table, ["psnr"], draws=100)
    report.write_outputs(tmp_path, outcome, [fit])
    found = json.loads((tmp_path / "faithfulness.json").read_text())
    recognized = table.recognized()
    assert found["recognized"] == {"hits": recognized.sum(), "count": 48}
    for model, counts in found["levels"]["model"]["recognized"].items():
        assert counts == {"hits": recognized[table.models == model].sum(), "count": 12}
    for name, counts in found["humans"]["recognized"].items():
        assert counts == {"hits": np.nansum(votes[name]), "count": (~np.isnan(votes[name])).sum()}
    page = (tmp_path / "faithfulness.md").read_text()
    assert f"{recognized.sum():.0f} of 48 images were recognised" in page
    assert f"{recognized[:12].sum():.0f} of 12 |" in page
    observed, predicted = calibration_curve(fit.recognized, fit.probability, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(fit.observed, observed)
    np.testing.assert_allclose(fit.predicted, predicted)
    assert sum(found["calibrations"][0]["reliability"]["counts"]) == 48


def test_an_annotator_without_a_correlation_leaves_the_ceiling_of_the_others():
    votes = {"ann": [1, 1, 0, 0], "bob": [1, 1, 0, 1], "always": [1, 1, 1, 1]}
    keys = [["d"] * 4, ["m"] * 4, ["x"] * 4, list("1234"), list("1234")]
    agreement = human_agreement(Annotations(*keys, votes), draws=100)
    left_out = agreement.left_out["spearman"]
    assert np.isnan(left_out["always"])
    assert agreement.mean["spearman"][0] == pytest.approx((left_out["ann"] + left_out["bob"]) / 2)
    alone = Annotations(*keys, {"ann": [1, 1, np.nan, 0], "bob": [1, 1, 1, np.nan]})  # the only no has no second answer
    assert human_agreement(alone, draws=100).krippendorff_alpha is None


def test_a_good_and_a_useless_metric_are_told_apart_and_two_copies_are_not():
    table, scores = synthetic()
    psnr = scores.columns["psnr"]
    copies = Scores(scores.ids, {**scores.columns, "copy": -psnr}, {"copy": "lower"})
    outcome = faithfulness(copies, table, draws=200)
    by_pair = {(c.first, c.second): c for c in outcome.image.comparisons if c.statistic == "roc_auc"}
    assert by_pair["psnr", "mse"].decided
    assert not by_pair["psnr", "copy"].decided
    assert by_pair["psnr", "copy"].p == 1
    assert outcome.image.agreement["psnr"]["copy"] == pytest.approx(1)
    assert outcome.image.agreement["psnr"]["mse"] == pytest.approx(-stats.spearmanr(*scores.columns.values()).statistic)


def test_leave_one_annotator_out_and_krippendorff_with_missing_answers():
    table, _ = synthetic()
    agreement = human_agreement(table, draws=100)
    votes = np.stack(list(table.votes.values()))
    wanted = stats.spearmanr(votes[0], votes[1:].mean(axis=0)).statistic
    assert agreement.left_out["spearman"]["p0"] == pytest.approx(wanted)
    counts = np.stack([(votes == 0).sum(axis=0), (votes == 1).sum(axis=0)], axis=1)
    assert agreement.fleiss_kappa == pytest.approx(fleiss_kappa(counts))
    missing = {name: np.where(np.arange(len(table)) % 7 == k, np.nan, v) for k, (name, v) in enumerate(table.votes.items())}
    partly = human_agreement(Annotations(*(getattr(table, name) for name in KEY_FIELDS), missing), draws=100)
    assert partly.fleiss_kappa is None
    assert partly.krippendorff_alpha == pytest.approx(nominal_alpha(np.stack(list(missing.values()))))


KEY_FIELDS = ("dataset", "model", "attack", "original", "reconstruction")


def nominal_alpha(table):
    """Krippendorff's alpha from its definition: 1 - observed / expected disagreement of pairable values."""
    observed, values = 0.0, []
    for unit in table.T:
        unit = unit[~np.isnan(unit)]
        if unit.size >= 2:
            observed += (unit[:, None] != unit[None]).sum() / (unit.size - 1)
            values.extend(unit)
    values = np.asarray(values)
    expected = (values[:, None] != values[None]).sum() / (values.size - 1)
    return 1 - observed / expected


# ------------------------------------------------------------------------------------------------- tables and directions


def test_scores_and_annotations_pair_by_id_whatever_their_order():
    table, scores = synthetic()
    order = np.random.default_rng(0).permutation(len(scores.ids))
    shuffled = Scores([scores.ids[k] for k in order], {name: column[order] for name, column in scores.columns.items()})
    without_suffix = Scores([name.removesuffix(".png") for name in shuffled.ids], shuffled.columns)
    wanted = faithfulness(scores, table, draws=100).image.statistics["psnr"]["spearman"].value
    for other in (shuffled, without_suffix):
        assert faithfulness(other, table, draws=100).image.statistics["psnr"]["spearman"].value == pytest.approx(wanted)


def test_rows_without_a_partner_are_errors_unless_allowed_and_then_listed():
    table, scores = synthetic()
    fewer = Scores([*scores.ids[1:], "nobody"], {"psnr": [*scores.columns["psnr"][1:], 3.0]})
    with pytest.raises(ValueError, match=r"1 scores have no annotation \('nobody'\) and 1 annotated .*'a/0.png'"):
        pair(fewer, table)
    paired = pair(fewer, table, allow_unmatched=True)
    assert (paired.unmatched_scores, paired.unmatched_annotations) == (("nobody",), ("a/0.png",))
    assert len(paired.rows) == len(scores.ids) - 1


def test_an_image_without_a_score_is_left_out_for_all_metrics():
    table, scores = synthetic()
    columns = {name: column.copy() for name, column in scores.columns.items()}
    columns["mse"][5] = np.nan
    outcome = faithfulness(Scores(scores.ids, columns), table, draws=100)
    assert outcome.paired.incomplete == (scores.ids[5],)
    assert outcome.image.count == len(scores.ids) - 1


def test_the_direction_is_declared_or_an_error():
    with pytest.raises(ValueError, match="--direction dreamsim=higher or dreamsim=lower"):
        Scores(["a"], {"dreamsim": [0.5]})
    with pytest.raises(ValueError, match="'up'; it is 'higher' or 'lower'"):
        Scores(["a"], {"dreamsim": [0.5]}, {"dreamsim": "up"})
    with pytest.raises(ValueError, match="'psnr' declares that 'higher' means more leakage, not 'lower'"):
        Scores(["a"], {"psnr": [20.0]}, {"psnr": "lower"})
    assert Scores(["a"], {"psnr": [20.0]}, {"psnr": "higher"}).directions == {"psnr": "higher"}
    assert leakage_direction(MeanMSSSIM()) == "higher"
    assert {leakage_direction(name) for name in MultiAttackerPrivacy(suite="standard-v1")} == {"higher"}
    with pytest.raises(ValueError, match="declares leakage_direction=None"):
        leakage_direction(object())
    turned = Scores(["a", "b"], {"mse": [0.1, 0.2]}).leaking("mse")
    assert turned[0] > turned[1]
    assert {facts.leakage_direction for facts in METRIC_FACTS.values()} == {"higher", "lower"}


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [("majority", [1, 0, 0, 1, 1, np.nan]), ("any", [1, 1, 0, 1, 1, np.nan]), ("all", [0, 0, 0, 1, 1, np.nan])],
)
def test_rules(rule, wanted):
    nan = np.nan
    votes = {"p": [1, 1, 0, 1, 1, nan], "q": [1, 0, 0, 1, nan, nan], "r": [0, 0, 0, 1, nan, nan]}
    names = [str(k) for k in range(6)]
    table = Annotations(["d"] * 6, ["m"] * 6, ["a"] * 6, names, names, votes)
    np.testing.assert_array_equal(table.recognized(rule), wanted)
    np.testing.assert_allclose(table.recognized("mean"), [2 / 3, 1 / 3, 0, 1, 1, nan])
    tie = Annotations(["d"], ["m"], ["a"], ["o"], ["r"], {"p": [1], "q": [0]})
    assert tie.recognized("majority") == 0


TABLE = {
    "dataset": ["d", "d"],
    "model": ["m", "m"],
    "attack": ["a", "a"],
    "original": ["1", "2"],
    "reconstruction": ["m/1", "m/2"],
    "annotator_x": ["1", ""],
    "annotator_y": ["yes", "0.0"],
    "recognizable": ["", "1"],
}


def test_annotations_in_csv_and_parquet(tmp_path):
    from_csv = read_annotations(write_csv(tmp_path / "table.csv", TABLE))
    typed = {name: list(column) for name, column in TABLE.items()}
    typed |= {"annotator_x": [1, None], "annotator_y": [True, False], "recognizable": [None, 1.0]}
    pq.write_table(pa.table(typed), tmp_path / "table.parquet")
    for table in (from_csv, read_annotations(tmp_path / "table.parquet")):
        np.testing.assert_array_equal(table.votes["x"], [1, np.nan])
        np.testing.assert_array_equal(table.votes["y"], [1, 0])
        np.testing.assert_array_equal(table.recognizable, [np.nan, 1])


def test_not_a_number_is_no_answer(tmp_path):
    columns = TABLE | {"annotator_x": ["3.0", "nan"], "annotator_y": ["NaN", "-1.0"], "class": ["3", "3"]}
    table = read_annotations(write_csv(tmp_path / "table.csv", columns))
    np.testing.assert_array_equal(table.votes["x"], [1, np.nan])
    np.testing.assert_array_equal(table.votes["y"], [np.nan, 0])


CLASSES = ("cat", "dog", "3", "eagle", "frog")
MISSING_CELLS = ("", "NA", "na", "nan", "NaN", "None", "none", "NULL", "null", "N/A", "n/a", "#N/A", "<NA>", "NaT", "  ")


def class_table(respelled=lambda text: text, missing="", respelled_truth=lambda text: text):
    """Sixty reconstructions named by three annotators, a fifth of the cells missing."""
    rng = np.random.default_rng(0)
    truth = [CLASSES[k % 5] for k in range(60)]
    columns = {name: [value] * 60 for name, value in (("dataset", "d"), ("model", "m"), ("attack", "a"))}
    columns |= {"original": [str(k) for k in range(60)], "reconstruction": [f"m/{k}" for k in range(60)]}
    columns["class"] = [respelled_truth(name) for name in truth]
    seen = rng.random(60)
    for k in range(3):
        named = [
            name if see + 0.3 * rng.random() > 0.6 else CLASSES[rng.integers(5)]
            for see, name in zip(seen, truth, strict=True)
        ]
        blank = rng.random(60) < 0.2
        columns[f"annotator_{k}"] = [missing if empty else respelled(name) for empty, name in zip(blank, named, strict=True)]
    return columns


def alpha_of(path):
    return human_agreement(read_annotations(path), draws=2).krippendorff_alpha


@pytest.mark.parametrize("missing", MISSING_CELLS)
def test_a_missing_vote_is_missing_however_it_is_spelled(tmp_path, missing):
    wanted = read_annotations(write_csv(tmp_path / "wanted.csv", class_table()))
    found = read_annotations(write_csv(tmp_path / "table.csv", class_table(missing=missing)))
    for name, votes in wanted.votes.items():
        assert 5 < np.isnan(votes).sum() < 30
        np.testing.assert_array_equal(found.votes[name], votes)
    assert alpha_of(tmp_path / "table.csv") == pytest.approx(nominal_alpha(np.stack(list(wanted.votes.values()))))
    columns = TABLE | {"annotator_x": ["1", missing], "recognizable": [missing, "1"]}
    table = read_annotations(write_csv(tmp_path / "flags.csv", columns))
    np.testing.assert_array_equal(table.votes["x"], [1, np.nan])
    np.testing.assert_array_equal(table.recognizable, [np.nan, 1])


@pytest.mark.parametrize(
    "cell", ["-", "--", "\u2013", "?", "...", "n.a.", "missing", "Skipped", "not asked", "#REF!", "#DIV/0!"]
)
def test_what_may_mean_missing_is_an_error_that_names_the_cell(tmp_path, cell):
    columns = class_table(missing=cell)
    row = 1 + columns["annotator_0"].index(cell)
    with pytest.raises(TableError, match=rf"row {row}: annotator_0 is {re.escape(repr(cell))}.*write nothing for not asked"):
        read_annotations(write_csv(tmp_path / "table.csv", columns))
    with pytest.raises(TableError, match=r"row 2: annotator_x is .*; write 1 for recognised"):
        read_annotations(write_csv(tmp_path / "flags.csv", TABLE | {"annotator_x": ["1", cell]}))


def test_a_mark_that_is_a_class_is_an_answer(tmp_path):
    columns = {**TABLE, "class": ["+", "-"], "annotator_x": ["+", "+"], "annotator_y": ["-", "-"]}
    table = read_annotations(write_csv(tmp_path / "table.csv", columns))
    np.testing.assert_array_equal(np.stack([table.votes["x"], table.votes["y"]]), [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": ["3", "None"]}, "row 2: class is 'None', which reads as a missing cell; rename the class"),
        ({"class": ["3", "-1.0"]}, "row 2: class is '-1.0', which annotators say for \"cannot tell\""),
        ({"class": ["cat", "dog"], "annotator_y": ["1", "0"]}, r"hold only '0', '1', but the table has a column 'class'"),
        ({"annotator_": ["1", "1"]}, "column 'annotator_' names nobody"),
    ],
)
def test_what_a_class_cannot_be_is_an_error(tmp_path, change, message):
    with pytest.raises(TableError, match=message):
        read_annotations(write_csv(tmp_path / "table.csv", TABLE | {"annotator_y": ["", ""]} | change))


@pytest.mark.parametrize(
    "respelled",
    [
        str.upper,
        lambda text: text.replace("3", "03"),
        lambda text: text.replace("3", "003.0"),
        lambda text: f"{text[0]}\u200b{text[1:]}",
        lambda text: "".join(chr(ord(sign) + 0xFEE0) for sign in text),  # full width
    ],
)
@pytest.mark.parametrize("side", ["respelled", "respelled_truth"])
def test_another_spelling_of_a_class_is_the_class_and_is_named(tmp_path, respelled, side):
    wanted = alpha_of(write_csv(tmp_path / "wanted.csv", class_table()))
    path = write_csv(tmp_path / "table.csv", class_table(**{side: respelled}))
    with pytest.warns(AttackerMetricsWarning, match="differ in case, spaces or leading zeros only and count as one class"):
        assert alpha_of(path) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "respelled",
    [lambda text: f" {text}\u00a0", lambda text: text.replace("3", "3.0"), lambda text: text.replace("a", "a\u0308")],
)
def test_the_same_text_is_the_same_class_without_a_word(tmp_path, respelled):
    wanted = alpha_of(write_csv(tmp_path / "wanted.csv", class_table()))
    truth = {"respelled_truth": lambda text: text.replace("a", "\u00e4")} if "\u0308" in respelled("a") else {}
    assert alpha_of(write_csv(tmp_path / "table.csv", class_table(respelled, **truth))) == pytest.approx(wanted)


def test_classes_that_differ_stay_different(tmp_path):
    columns = {**TABLE, "class": ["v1", "cat"], "annotator_x": ["v1.0", "cats"], "annotator_y": ["V2", "-1"]}
    table = read_annotations(write_csv(tmp_path / "table.csv", columns))
    np.testing.assert_array_equal(np.stack([table.votes["x"], table.votes["y"]]), np.zeros((2, 2)))


def test_a_model_or_an_annotator_with_two_spellings_is_named(tmp_path):
    columns = {**TABLE, "model": ["LeNet", "lenet "], "annotator_X": ["1", "0"]}
    with pytest.warns(
        AttackerMetricsWarning, match="model 'LeNet' and 'lenet', annotator 'X' and 'x' differ .* different ones"
    ):
        table = read_annotations(write_csv(tmp_path / "table.csv", columns))
    assert len(set(table.models)) == 2


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_values_of_data_frames_are_missing(tmp_path, missing):
    frame = pd.DataFrame(TABLE | {"class": ["03", "4"], "annotator_x": ["03", missing], "annotator_y": [3.0, missing]})
    frame["annotator_y"] = frame["annotator_y"].astype("Float64" if missing is pd.NA else "float64")
    frame["recognizable"] = pd.array([missing if missing is pd.NA else None, True], dtype="boolean")
    frame.to_parquet(tmp_path / "table.parquet", index=False)
    with pytest.warns(AttackerMetricsWarning, match="'03' and '3' differ"):
        table = read_annotations(tmp_path / "table.parquet")
    for column in (table.votes["x"], table.votes["y"]):
        np.testing.assert_array_equal(column, [1, np.nan])
    np.testing.assert_array_equal(table.recognizable, [np.nan, 1])
    keys = {name: TABLE[name] for name in KEY_FIELDS}
    np.testing.assert_array_equal(Annotations(**keys, votes={"x": [True, missing]}).votes["x"], [1, np.nan])
    np.testing.assert_array_equal(Scores(["a", "b"], {"psnr": [1, missing]}).columns["psnr"], [1, np.nan])
    with pytest.raises(ValueError, match="column 'x', row 2 is 'maybe'; votes are 1, 0 or NaN"):
        Annotations(**keys, votes={"x": [1, "maybe"]})
    with pytest.raises(ValueError, match="column 'psnr' holds 'x', not a number"):
        Scores(["a", "b"], {"psnr": ["x", missing]})


def test_ids_of_a_score_table_keep_their_leading_zeros(tmp_path):
    path = write_csv(tmp_path / "scores.csv", {"id": ["007", "7"], "psnr": ["12", "NA"]})
    scores = read_scores(path)
    assert list(scores.ids) == ["007", "7"]
    np.testing.assert_array_equal(scores.columns["psnr"], [12, np.nan])
    with pytest.raises(TableError, match="row 1: psnr is '1_2', not a number"):
        read_scores(write_csv(path, {"id": ["a"], "psnr": ["1_2"]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotator_x": ["1", "maybe"]}, r"row 2: annotator_x is 'maybe'; write 1 for recognised"),
        ({"original": ["1", ""]}, "row 2: original is empty"),
        ({"reconstruction": ["m/1", "m/1"]}, "'m/1' is in row 1 and in row 2"),
        ({"colour": ["red", "red"]}, "'colour' is not part of an annotation table"),
        ({"class": ["", "3"]}, "row 1: class is empty"),
        ({"attack": None}, "no column 'attack'"),
        (dict.fromkeys(("annotator_x", "annotator_y", "recognizable")), "nobody judged anything"),
    ],
)
def test_errors_in_an_annotation_table_name_the_row_and_the_fix(tmp_path, change, message):
    columns = {name: column for name, column in {**TABLE, **change}.items() if column is not None}
    with pytest.raises(TableError, match=message):
        read_annotations(write_csv(tmp_path / "table.csv", columns))


def test_a_ragged_or_empty_or_foreign_table_is_an_error(tmp_path):
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("reconstruction,psnr\na,1\nb\n")
    with pytest.raises(TableError, match="row 2: 1 cells where the header has 2"):
        read_scores(ragged)
    ragged.write_text("reconstruction,psnr\n")
    with pytest.raises(TableError, match="has no row"):
        read_scores(ragged)
    (tmp_path / "table.parquet").write_text("no")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        read_scores(tmp_path / "table.parquet")
    with pytest.raises(TableError, match=r"tables are .csv or .parquet"):
        read_scores(tmp_path / "table.xlsx")


def test_errors_in_a_score_table_name_the_row(tmp_path):
    path = write_csv(tmp_path / "scores.csv", {"reconstruction": ["a", "b"], "psnr": ["3", "x"]})
    with pytest.raises(TableError, match="row 2: psnr is 'x', not a number"):
        read_scores(path)
    path = write_csv(tmp_path / "scores.csv", {"reconstruction": ["a", "a"], "psnr": ["3", "4"]})
    with pytest.raises(TableError, match="'a' is in row 1 and in row 2"):
        read_scores(path)


def test_the_command_line_says_what_is_wrong_and_writes_nothing(tmp_path, capsys):
    annotations = write_csv(tmp_path / "annotations.csv", TABLE)
    scores = write_csv(tmp_path / "scores.csv", {"reconstruction": ["m/1", "m/2"], "mine": ["1", "2"]})
    command = ["faithfulness", "--scores", str(scores), "--annotations", str(annotations), "--output", str(tmp_path / "o")]
    assert main(command) == 2
    assert "--direction mine=higher" in capsys.readouterr().err
    assert main([*command, "--direction", "mine=higher", "--rule", "mean", "--calibrate", "isotonic"]) == 2
    assert "not mean" in capsys.readouterr().err
    for option in ("--resamples", "--draws"):  # the older name of the same
        assert main([*command, "--direction", "mine=higher", option, "99"]) == 2
        assert "--resamples 99: an interval needs at least 100" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--seed", "-1"])
    assert re.search(r"--seed.*'-1' is not a whole number of at least 0", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def test_the_command_line_reads_a_report_of_evaluate_and_says_what_cannot_be_decided(tmp_path, capsys):
    table, scores = synthetic(originals=12)
    keys = {name: getattr(table, name).tolist() for name in KEY_FIELDS}
    votes = {f"annotator_{name}": column.astype(int).tolist() for name, column in table.votes.items()}
    annotations = write_csv(tmp_path / "annotations.csv", keys | votes)
    columns = {"id": [name.removesuffix(".png") for name in scores.ids], **scores.columns, "flipped": [True] * 48}
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    command = ["faithfulness", "--scores", str(tmp_path / "scores.parquet"), "--annotations", str(annotations)]
    assert main([*command, "--draws", "100"]) == 0
    printed = capsys.readouterr().out
    assert "With 4 models these two metrics cannot be told apart" in printed
    assert "48 of 48 images were scored against a flipped or shifted original" in printed


# ------------------------------------------------------------------------------------------------ calibration, alignment


@pytest.mark.parametrize("method", ["isotonic", "logistic"])
def test_calibrated_probabilities_are_honest_on_other_originals(method):
    table, scores = synthetic(originals=300)
    fit = calibrate(scores, table, ["psnr"], method=method, draws=100)
    assert 0.2 < fit.skill < 1
    assert fit.brier[1] < fit.brier[0] < fit.brier[2]
    np.testing.assert_allclose(fit.predicted, fit.observed, atol=0.12)
    assert abs(calibrate(scores, table, ["mse"], method=method, draws=100).skill) < 0.05
    assert fit.brier[0] == pytest.approx(np.mean((fit.probability - fit.recognized) ** 2))


def test_no_map_sees_the_original_that_it_is_tested_on():
    """Scores that only identify the original are worthless, however often it occurs."""
    rng = np.random.default_rng(0)
    originals = np.repeat(np.arange(60), 8)
    seen, ids = np.repeat(rng.random(60) > 0.5, 8), [str(k) for k in range(480)]
    table = Annotations(["d"] * 480, ["m"] * 480, ["a"] * 480, originals.astype(str), ids, {"p": seen})
    fit = calibrate(Scores(ids, {"psnr": np.repeat(rng.random(60), 8)}), table, ["psnr"], draws=100)
    assert fit.skill < 0.1


def test_several_metrics_are_combined_by_the_logistic_map_only():
    table, scores = synthetic(originals=100)
    assert calibrate(scores, table, ["psnr", "mse"], method="logistic", draws=100).skill > 0.2
    with pytest.raises(ValueError, match="isotonic takes one"):
        calibrate(scores, table, ["psnr", "mse"], draws=100)
    with pytest.raises(ValueError, match="there are no scores of"):
        calibrate(scores, table, ["ssim"], draws=100)


@pytest.mark.parametrize("flip", [False, True])
def test_alignment_finds_the_view_that_was_attacked_on_photographs(flip):
    clean = torch.from_numpy(photographs(64, 64)).float()
    views, places = [], [(0, 0), (1, 7), (8, 3), (5, 4)]
    for image, (top, left) in zip(clean, places, strict=True):
        padded = torch.nn.functional.pad(image.flip(-1) if flip else image, (4, 4, 4, 4))
        views.append(padded[:, top : top + 64, left : left + 64])
    views = torch.stack(views)
    found = align(views + 0.3 * torch.randn(views.shape), clean)
    torch.testing.assert_close(found.original, views)
    assert found.flipped.tolist() == [flip] * 4
    assert list(zip(found.shift_y.tolist(), found.shift_x.tolist(), strict=True)) == [(4 - y, 4 - x) for y, x in places]
    assert found.aligned.all()


def test_alignment_leaves_what_fits_and_refuses_what_cannot_be():
    clean = torch.from_numpy(photographs(32, 32)).float()
    found = align(clean + 0.1, clean)
    assert not found.aligned.any()
    torch.testing.assert_close(found.correlation, torch.ones(4, dtype=torch.float64))
    assert not align(torch.zeros_like(clean), clean).aligned.any()  # nothing to go by
    with pytest.raises(ValueError, match="max_shift is 16; for 32 x 32 pixels it is 0 to 15"):
        align(clean, clean, max_shift=16)
    with pytest.raises(ValueError, match=r"got \(3, 32, 32\)"):
        align(clean[0], clean[0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that never answers")
@pytest.mark.parametrize("read", [read_scores, read_annotations])
@pytest.mark.parametrize("name", ["pipe.csv", "pipe.parquet"])
def test_a_table_that_is_a_pipe_or_a_device_is_told_and_never_waited_for(tmp_path, read, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(TableError, match="it is a named pipe, not a regular file"):
        read(tmp_path / name)
    (tmp_path / f"zero{name}").symlink_to("/dev/zero")
    with pytest.raises(TableError, match="it is a device, not a regular file"):
        read(tmp_path / f"zero{name}")


@pytest.mark.parametrize("damage", ["text", "head"])
def test_a_parquet_table_that_lies_is_told_by_its_name(tmp_path, damage):
    path = tmp_path / "scores.parquet"
    text = pa.StringArray.from_buffers(1, *pa.array([b"\xff"]).buffers()[1:])
    pq.write_table(pa.table({"reconstruction": text, "psnr": [1.0]}), path)
    if damage == "head":  # the last eight bytes are the length of the head before them, and PAR1
        content = bytearray(path.read_bytes())
        begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        content[begin] = 0xFE
        path.write_bytes(content)
    with pytest.raises(TableError, match=r"scores\.parquet cannot be read as Parquet"):
        read_scores(path)


@pytest.mark.parametrize("kind", ["text", "rows", "numbers"])
def test_a_small_parquet_table_that_would_become_a_giant_one_is_refused_before(tmp_path, kind):
    count = 2**12 if kind == "text" else 2**24
    texts = ["x" * 2**20] if kind == "text" else ["x"]
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), texts)
    ids = pa.array(np.zeros(count)) if kind == "numbers" else cells
    pq.write_table(pa.table({"reconstruction": ids, "psnr": np.zeros(count)}), tmp_path / "scores.parquet")
    with pytest.raises(TableError, match=r"scores\.parquet cannot be read as Parquet: its .* would unfold to [\d,]+"):
        read_scores(tmp_path / "scores.parquet")


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_pages_of_a_parquet_file_are_as_large_as_it_says(tmp_path, compression, version, dictionary):
    path = tmp_path / "table.parquet"
    texts = [f"{i % 100}" * (i % 50) for i in range(5000)]
    content = pa.table(
        {"a": texts, "b": [None if i % 3 else float(i) for i in range(5000)], "c": [[1, i] for i in range(5000)]}
    )
    written = {"compression": compression, "data_page_version": version, "use_dictionary": dictionary}
    pq.write_table(content, path, row_group_size=2000, data_page_size=3000, **written)
    metadata = pq.read_metadata(path)
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            start = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
            with path.open("rb") as file:
                found = unfolded_bytes(file, start, start + column.total_compressed_size)
            heads = column.total_uncompressed_size - found
            assert 0 < heads < 0.6 * column.total_uncompressed_size + 200


def test_a_parquet_file_that_calls_its_pages_small_is_refused_before_they_are_unfolded(tmp_path):
    path = tmp_path / "scores.parquet"
    table = pa.table({"reconstruction": ["x" * 2**30], "psnr": [1.0]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False, store_schema=False)
    content, metadata = path.read_bytes(), pq.read_metadata(path)
    for size in (metadata.row_group(0).column(0).total_uncompressed_size, metadata.row_group(0).total_byte_size):
        told = bytes((size << 1 >> shift & 127) | (128 if size << 1 >> shift > 127 else 0) for shift in range(0, 35, 7))
        assert content.count(told) == 1
        content = content.replace(told, b"\x82\x80\x80\x80\x00")
    path.write_bytes(content)
    assert pq.read_metadata(path).row_group(0).total_byte_size == 1
    with pytest.raises(TableError, match=r"its \d\d,\d+ bytes would unfold to 1,07\d,\d+,\d+ \(1 rows\)"):
        read_scores(path)
