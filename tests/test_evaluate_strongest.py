"""``evaluate`` with a suite, tails and unrelated pairs: every number against the library called by hand."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rich", reason="needs the cli extra")
pytest.importorskip("statsmodels", reason="needs the cli extra")
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from attacker_metrics import MultiAttackerPrivacy, multi_attacker_scores
from attacker_metrics.commands import cli
from attacker_metrics.evaluation import pipeline, run, unrelated
from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs
from attacker_metrics.pairs.sources import BuiltInPairs, FailedPair
from attacker_metrics.reading.strongest import (
    NullDistribution,
    Selection,
    attackers_of,
    noise_of_equal_error,
    reading,
    score,
    shared_content,
)
from attacker_metrics.scoring.batches import batches_of_one_size, stacked
from attacker_metrics.scoring.suites import STANDARD_V1

SIDE, PAIRS, PEOPLE, NULL = 16, 117, 50, 2340
SMALL = ("--betas", "1", "--suite", "standard-v1")


def images(row: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture, and for every third its negative with little noise, for the others noise alone."""
    random = np.random.default_rng(row)
    coarse = torch.tensor(random.random((1, 3, 4, 4), np.float32))
    side = SIDE + 2 * (row % 2)
    clean = torch.nn.functional.interpolate(coarse, (SIDE, side), mode="bilinear")[0].numpy()
    noise = random.random(clean.shape, np.float32)
    return (1 - 0.9 * clean - 0.1 * noise if row % 3 == 0 else noise), clean


def write(folder, count: int = PAIRS, *, grouped: bool = True):
    folder.mkdir(exist_ok=True)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "clean", "noisy", *(["group"] if grouped else [])])
        for row in range(count):
            noisy, clean = images(row)
            np.save(folder / f"noisy{row}.npy", noisy)
            np.save(folder / f"clean{row}.npy", clean)
            writer.writerow([f"pair {row}", f"clean{row}.npy", f"noisy{row}.npy", *([row % PEOPLE] if grouped else [])])
    return folder / "pairs.csv"


def evaluate(manifest, output: str, *options: str) -> dict:
    folder = manifest.parent / output
    arguments = ["evaluate", "--manifest", str(manifest), "--output", str(folder), *options]
    assert cli.main(arguments) in (cli.OK, cli.GATE_EXCEEDED)
    return json.loads((folder / "summary.json").read_text())


def scores_of(manifest, output: str) -> dict:
    return pq.read_table(manifest.parent / output / "scores.parquet").to_pydict()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def made(manifest):
    """The summary of a run, and which of its images were matched."""
    choose, kept = pipeline.choose, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "choose", lambda *arguments: kept.append(choose(*arguments)) or kept[0])
        return evaluate(manifest, "out", *SMALL, "--null", str(NULL)), kept[0]


@pytest.fixture(scope="module")
def summary(made):
    return made[0]


@pytest.fixture(scope="module")
def scores(manifest, summary):
    return scores_of(manifest, "out")


def test_the_suites_scores_are_those_of_the_collection(scores):
    assert list(scores)[-18:] == [*STANDARD_V1.added, "strongest", "strongest_attacker", "strongest_p_value"]
    privacy = MultiAttackerPrivacy(suite="standard-v1", betas=(1.0,))
    for row in (0, 1, 77):
        noisy, clean = (torch.tensor(image)[None] for image in images(row))
        for name, value in privacy(noisy, clean).items():
            assert scores[name][row] == pytest.approx(float(value), abs=1e-6)


def rescored(pairs) -> dict[str, np.ndarray]:
    attackers = attackers_of(MultiAttackerPrivacy(suite="standard-v1", betas=(1.0,)))
    images = [tuple(map(torch.as_tensor, pair)) for pair in pairs]
    return score(attackers, images, len(images))


def test_strongest_attacker_and_rates_are_those_of_the_null_made_by_hand(made, summary, scores):
    selection = made[1]
    assert selection.pictures == list(range(PAIRS))
    assert summary["null"]["comparisons"] == len(selection.comparisons) == PAIRS * 20
    assert (summary["null"]["per_picture"], summary["null"]["pictures"]) == (20, PAIRS)
    for i, j in selection.comparisons:
        assert i % PEOPLE != j % PEOPLE
        assert i % 2 == j % 2  # one size
    originals = np.array(selection.originals)
    tables = rescored((images(i)[0], images(j)[1]) for i, j in selection.comparisons)
    null = NullDistribution({name: table.reshape(PAIRS, 20) for name, table in tables.items()}, originals % PEOPLE)
    columns = {name: np.array(scores[name], float) for name in null.names}
    wanted = null.strongest(columns)
    assert np.mean(np.array(scores["strongest_attacker"]) == wanted.winner) > 0.98  # float32 by other batches may break ties
    np.testing.assert_allclose(scores["strongest"], wanted.percentile, atol=2 / NULL)
    np.testing.assert_allclose(scores["strongest_p_value"], wanted.p_value, atol=2 / NULL)
    for rate in ("0.01", "0.001"):
        found, by_hand = summary["null"]["rates"][rate], reading(null, wanted, float(rate), groups=np.arange(PAIRS) % PEOPLE)
        assert found["realised"] == pytest.approx(null.realised(float(rate)), abs=1 / NULL)
        assert found["realised"] <= float(rate)
        assert found["read"]["rate"] == pytest.approx(by_hand.success.rate, abs=2 / PAIRS)
        for name in ("low", "high"):
            assert found["read"][name] == pytest.approx(getattr(by_hand, name), abs=0.03)
        for name in null.names:
            alone = null.success(name, columns[name], float(rate))
            assert abs(found["success"][name]["successes"] - alone.sum()) <= 1
    assert all(summary["null"]["anchors"][name]["null"] == pytest.approx(null.mean(name), abs=1e-5) for name in null.names)
    read = np.array(scores["strongest_p_value"]) <= 0.01 * (1 + 1e-12)
    assert read[::3].all()
    assert summary["null"]["rates"]["0.01"]["success"]["strongest"]["successes"] == read.sum()
    told = summary["read"]
    assert (told["rate"], told["n"], told["false_positive_rate"]) == (read.mean(), PAIRS, 0.01)
    assert sum(told["strongest"].values()) == read.sum()
    chance = summary["null"]["rates"]["0.01"]["realised"]
    assert summary["risk"] == told["risk"]
    assert told["risk"]["value"] == pytest.approx((read.mean() - chance) / (1 - chance))
    assert 0 < told["risk"]["low"] < told["risk"]["value"] < told["risk"]["high"] < 1
    assert told["verdict"] == "Leaks"
    assert summary["not_tried"][-1] == "averaging of draws (one draw of each picture)"
    anchors = selection.anchors
    ceiling = rescored((images(i)[1], images(i)[1]) for i in anchors)
    noise = rescored((noise_of_equal_error(*map(torch.tensor, images(i)), seed=i), images(i)[1]) for i in anchors)
    for name, anchor in summary["null"]["anchors"].items():
        assert anchor["ceiling"] == pytest.approx(ceiling[name].mean(), abs=1e-5)
        assert anchor["equal_noise"] == pytest.approx(noise[name].mean(), abs=1e-5)


def test_nobody_read_has_an_upper_bound_and_groups_widen_it(manifest, summary):
    tested = summary["null"]["rates"]["0.01"]["success"]
    none = [name for name, rate in tested.items() if rate["successes"] == 0]
    assert none
    for name in none:
        sizes = np.bincount(np.arange(PAIRS) % PEOPLE)
        worth = sizes.sum() ** 2 / (sizes**2).sum()  # people, not pairs; of unequal shares a little less than 50
        assert 48 < worth < PEOPLE
        upper = proportion_confint(0, worth, alpha=0.1, method="beta")[1]
        assert tested[name]["upper"] == pytest.approx(upper)
    page = (manifest.parent / "out" / "report.html").read_text()
    assert f"0 of {PAIRS} (0, upper bound {tested[none[0]]['upper']:.3g})" in page
    assert "equal PSNR" in page
    assert summary["null"]["tie_rule"] in page


def test_tails_are_those_of_the_columns_or_refused_with_a_reason(manifest, summary, scores):
    tail = summary["tails"]["pearson_gray"]
    assert (tail["n"], tail["groups"], tail["left_out"]) == (PAIRS, PEOPLE, 0)
    values = np.array(scores["pearson_gray"], float)
    assert tail["mean"]["value"] == pytest.approx(values.mean())
    assert tail["mean"]["low"] < values.mean() < tail["mean"]["high"]
    for name in ("p95", "p99", "cvar5"):
        assert tail[name] is None
        assert "at least" in tail["refused"][name]
    alone = evaluate(write(manifest.parent / "alone", 90, grouped=False), "out", "--betas", "1")
    values = np.array(scores_of(manifest.parent / "alone" / "pairs.csv", "out")["blur_gray"], float)
    tail = alone["tails"]["blur_gray"]
    interval = stats.quantile_test(values, p=0.95).confidence_interval(0.95)
    assert list(tail["p95"].values()) == pytest.approx([np.quantile(values, 0.95), interval.low, interval.high])
    assert (tail["groups"], tail["p99"]) == (None, None)
    assert tail["cvar5"]["low"] <= tail["cvar5"]["value"] <= tail["cvar5"]["high"]
    assert alone["null"] is None
    assert not {"strongest", "strongest_attacker"} & set(scores_of(manifest.parent / "alone" / "pairs.csv", "out"))


def test_the_table_shows_no_tail_that_the_pairs_do_not_support(manifest, capsys):
    assert evaluate(manifest, "few", "--betas", "1")["tails"]["rgb_clamp"]["p95"] is None
    line = next(line for line in capsys.readouterr().out.splitlines() if "rgb_clamp" in line)
    cells = [cell.strip() for cell in line.split("│")[2:-1]]
    assert cells[4:7] == ["-", "-", "-"]  # p95, p99, worst 5 %
    assert cells[7] != "-"


@pytest.mark.parametrize("limit", [0.01, 1])
def test_a_limit_on_an_unsupported_p95_counts_as_exceeded_and_says_so(manifest, limit):
    summary = evaluate(manifest, f"gated{limit}", "--betas", "1", "--fail-above", f"pearson={limit}@p95")
    (gate,) = summary["gates"]
    assert gate["exceeded"]
    assert "at least 74" in gate["unsupported"]
    assert any("counts as exceeded" in sentence for sentence in summary["readings"])


def test_processes_share_the_unrelated_pairs_and_find_the_same(manifest, summary, scores):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = [
        "evaluate",
        "--manifest",
        str(manifest),
        "--output",
        str(manifest.parent / "two"),
        *SMALL,
        "--null",
        str(NULL),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "attacker_metrics", *arguments], capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    theirs = scores_of(manifest, "two")
    assert list(theirs) == list(scores)
    assert theirs["id"] == scores["id"]
    for name in (*STANDARD_V1.added, "ms_ssim"):
        np.testing.assert_allclose(theirs[name], scores[name], rtol=0, atol=1e-6)
    np.testing.assert_allclose(theirs["strongest_p_value"], scores["strongest_p_value"], atol=2 / NULL)
    again = json.loads((manifest.parent / "two" / "summary.json").read_text())
    assert again["settings"]["null_digest"] == summary["settings"]["null_digest"]
    assert not (manifest.parent / "two" / ".unfinished").exists()


def test_a_run_interrupted_among_the_unrelated_pairs_resumes_with_what_it_has(manifest, summary, monkeypatch):
    score_part, calls = run.score_part, []

    def interrupted(*arguments, **settings):
        calls.append(None)
        if len(calls) > 12:  # eight parts of the run, and some of the unrelated pairs
            raise KeyboardInterrupt
        return score_part(*arguments, **settings)

    monkeypatch.setattr(run, "score_part", interrupted)
    output = manifest.parent / "broken"
    arguments = ["evaluate", "--manifest", str(manifest), "--output", str(output), *SMALL, "--null", str(NULL)]
    assert cli.main(arguments) == cli.INTERRUPTED
    assert list((output / ".unfinished" / "unrelated").rglob("*.arrow"))
    monkeypatch.undo()
    scored = []
    monkeypatch.setattr(run, "score_part", lambda *a, **s: (scored.append(None), score_part(*a, **s)))
    assert evaluate(manifest, "broken", *SMALL, "--null", str(NULL), "--resume")["null"] == summary["null"]
    assert len(scored) + 12 <= 8 + 12 + 8
    assert not (output / ".unfinished").exists()


def test_another_suite_is_another_run(manifest, monkeypatch, capsys):
    score_part, calls = run.score_part, []

    def interrupted(*arguments, **settings):
        calls.append(None)
        if len(calls) > 1:
            raise KeyboardInterrupt
        score_part(*arguments, **settings)

    monkeypatch.setattr(run, "score_part", interrupted)
    arguments = ["evaluate", "--manifest", str(manifest), "--output", str(manifest.parent / "half"), "--betas", "1"]
    assert cli.main(arguments) == cli.INTERRUPTED
    assert cli.main([*arguments, "--resume", "--suite", "standard-v1"]) == cli.BAD_USAGE
    assert "suite is 'standard-v1', was None" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_images_for_a_null_are_no_failure(tmp_path, count):
    found = evaluate(write(tmp_path / "few", count), "out", *SMALL)
    assert (found["evaluated"], found["null"]["comparisons"]) == (count, 0)
    assert "not enough pictures" in found["null"]["refused"]
    assert any("not calibrated" in sentence for sentence in found["readings"])
    assert found["read"]["rate"] is found["risk"] is None
    assert found["read"]["verdict"] == "not enough pictures"
    assert found["read"]["reason"] == found["null"]["refused"]
    assert "strongest" not in scores_of(tmp_path / "few" / "pairs.csv", "out")


def test_pairs_of_one_clean_file_are_not_unrelated(tmp_path):
    path = write(tmp_path / "same", 12, grouped=False)
    text = path.read_text()
    for row in range(2, 12, 2):
        text = text.replace(f"clean{row}.npy", "clean0.npy")
    path.write_text(text)
    found = evaluate(path, "out", *SMALL)
    assert found["null"]["comparisons"] == 6 * 5  # the rows of odd numbers, whose pictures differ


@pytest.mark.parametrize("grouped", [False, True])
def test_a_clean_file_is_itself_in_another_spelling_or_group(tmp_path, grouped):
    """Its pairs are no unrelated ones: their scores would hide leaks."""
    path = write(tmp_path / "spelt", 12, grouped=grouped)
    text = path.read_text()
    for row in range(0, 12, 2):
        text = text.replace(f",clean{row}.npy", ",./clean0.npy" if row % 4 else ",clean0.npy")
    path.write_text(text)
    found = evaluate(path, "out", *SMALL)
    assert found["null"]["comparisons"] == 6 * 5  # the rows of odd numbers, whose pictures differ


def test_flags_warn_of_collapse_but_not_of_the_negative_of_a_plain_picture(manifest, summary):
    assert summary["settings"]["suite"] == "standard-v1"
    flags = {flag["name"]: flag["message"] for flag in summary["flags"]}
    assert "structure" in flags
    assert "too_few" in flags
    assert "invert_gray" not in flags.get("collapsed", "")
    assert flags["structure"].replace("(", "").split(" ")[0] in (manifest.parent / "out" / "report.html").read_text()


def test_compare_has_the_strongest_attacker_unless_the_null_is_another(manifest, summary, monkeypatch, capsys):
    monkeypatch.chdir(manifest.parent)
    evaluate(manifest, "fewer", *SMALL, "--null", "100")
    evaluate(manifest, "again", *SMALL, "--null", "100", "--batch-size", "7")
    capsys.readouterr()
    for other, compared in (("out", False), ("again", True)):
        assert cli.main(["compare", "fewer", other, "--output", "compared"]) == 0
        assert ("strongest is left out: " in capsys.readouterr().out) != compared
        found = json.loads(Path("compared/comparison.json").read_text())["differences"]
        assert ("strongest" in [row["component"] for row in found]) == compared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--null", "1000001"), "at most 1000000 comparisons"),
        (("--suite", "standard-v1", "--blur-sigma", "1"), "is frozen"),
    ],
)
def test_mistakes_are_one_message(manifest, capsys, options, message):
    output = manifest.parent / "mistake"
    assert cli.main(["evaluate", "--manifest", str(manifest), "--output", str(output), *options]) == cli.BAD_USAGE
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_a_group_for_some_pairs_only_is_refused(tmp_path):
    path = write(tmp_path / "some", 4)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *(line.rsplit(",", 1)[0] + "," for line in lines[2:])]) + "\n")
    with pytest.raises(ManifestError, match=r"group is empty in rows 2, 3, 4\. Name the group of all pairs or of none"):
        ManifestPairs(str(path)).check()


def with_draws(folder, count: int, draws: int):
    """The pictures under strong noise, every one drawn several times."""
    folder.mkdir()
    lines = ["id,clean,noisy"]
    for row in range(count):
        clean = images(row)[1]
        np.save(folder / f"clean{row}.npy", clean)
        for draw in range(draws):
            noise = np.random.default_rng([row, draw]).normal(0, 0.3, clean.shape).astype(np.float32)
            np.save(folder / f"noisy{row}-{draw}.npy", clean + noise)
        lines.append(f"pair {row},clean{row}.npy,{';'.join(f'noisy{row}-{draw}.npy' for draw in range(draws))}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


def test_attackers_see_the_first_draw_and_the_mean_of_all(tmp_path):
    path = with_draws(tmp_path / "draws", 7, 8)
    found = evaluate(path, "out", "--betas", "1", "--draws", "8", "--null", "140")
    assert found["settings"]["draws"] == 8
    scores = scores_of(path, "out")
    single = [name for name in scores if f"draws_{name}" in scores]
    assert len(single) == 15
    shares = []
    for row in range(7):
        draws = [np.load(path.parent / f"noisy{row}-{draw}.npy") for draw in range(8)]
        clean = torch.tensor(images(row)[1])[None]
        first = multi_attacker_scores(torch.tensor(draws[0])[None], clean, betas=(1.0,))
        mean = multi_attacker_scores(torch.tensor(np.mean(draws, axis=0))[None], clean, betas=(1.0,))
        for name in single:
            assert scores[name][row] == pytest.approx(float(first[name]), abs=1e-5)
            assert scores[f"draws_{name}"][row] == pytest.approx(float(mean[name]), abs=1e-5)
        assert scores["draws_pearson_gray"][row] > scores["pearson_gray"][row] + 0.1
        error = np.square(np.stack(draws).astype(float) - clean[0].numpy()).mean()
        shares.append(min(1.0, np.stack(draws).astype(float).var(axis=0, ddof=1).mean() / error))
    assert found["draws"]["random_share"] == pytest.approx(np.mean(shares), abs=1e-5)
    assert found["draws"]["random_share"] > 0.95
    assert found["draws"]["identical"] == 0
    assert set(found["null"]["anchors"]) == {*single, *(f"draws_{name}" for name in single)}
    assert found["null"]["anchors"]["draws_pearson_gray"]["ceiling"] == pytest.approx(1)
    raised = {flag["name"]: flag for flag in found["flags"]}
    gains = {name: np.mean(np.array(scores[f"draws_{name}"]) - np.array(scores[name])) for name in single}
    assert raised["averaging"]["value"] == pytest.approx(max(gains.values()), abs=1e-5)
    assert max(gains, key=gains.get) in raised["averaging"]["message"]
    assert "same_draws" not in raised
    assert "Several draws" in (path.parent / "out" / "report.html").read_text()


def test_identical_draws_are_told_and_change_nothing(tmp_path):
    path = with_draws(tmp_path / "draws", 3, 2)
    path.write_text(path.read_text().replace("-1.npy", "-0.npy"))
    found = evaluate(path, "out", "--betas", "1", "--draws", "2")
    assert (found["draws"]["identical"], found["draws"]["random_share"]) == (3, 0)
    (flag,) = (flag for flag in found["flags"] if flag["name"] in ("averaging", "same_draws"))
    assert (flag["name"], flag["value"]) == ("same_draws", 1)
    scores = scores_of(path, "out")
    assert scores["draws_pearson_gray"] == pytest.approx(scores["pearson_gray"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--draws", "7"), "noisy of row 1 lists 8 files, but there are 7 draws"),
        (("--draws", "1"), "a mean takes two draws or more"),
    ],
)
def test_draws_that_are_not_there_are_refused(tmp_path, capsys, options, message):
    path = with_draws(tmp_path / "draws", 2, 8)
    assert cli.main(["evaluate", "--manifest", str(path), "--output", str(tmp_path / "out"), *options]) == cli.BAD_USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_comparison_has_the_mean_of_the_sent_pictures_draws_and_fails_with_either_picture():
    class Prepared(BuiltInPairs):
        def load(self, index, row):
            found = super().load(index, row)
            failed = FailedPair(index, "gone")
            return failed if index == 7 else replace(found, noisy_eight_bit=True, mean=found.noisy / 2)

    pairs = unrelated.UnrelatedPairs(Prepared(), Selection([0, 7], [[1, 7], [1, -1]], [0] * 24, [5]))
    one, other, anchor = (BuiltInPairs().load(i, {}) for i in (0, 1, 5))
    found = pairs.load(0, {})
    assert torch.equal(found.mean, one.noisy / 2)
    assert found.shared == shared_content(one.clean, other.clean)
    assert not found.noisy_eight_bit
    assert [pairs.load(i, {}) for i in (1, 2)] == [FailedPair(i, "an image cannot be read any more.") for i in (1, 2)]
    bare, noisy = pairs.load(3, {}), pairs.load(4, {})
    assert torch.equal(bare.mean, anchor.clean)
    assert torch.equal(noisy.mean, noise_of_equal_error(anchor.noisy / 2, anchor.clean, seed=5))
    assert bare.shared is noisy.shared is None


def test_pairs_without_groups_and_files_are_unrelated_by_their_ids_and_compared_if_all_attackers_have_a_score():
    rows = pa.table({"id": list("abcde")})
    source = type("Rows", (), {"rows": lambda self, start, stop: rows.slice(start, stop - start)})()
    columns = {"one": np.ones(5, np.float32), "other": np.array([1, 1, 1, 1, np.nan], np.float32)}
    scores = RunScores(rows, columns, {}, np.zeros(5, bool), sizes=np.full((5, 2), 8, np.int32))
    chosen = unrelated.choose(source, scores, ["one", "other"], 100)
    assert chosen.pictures == chosen.anchors == [0, 1, 2, 3]
    assert [sorted(set(row) - {-1}) for row in chosen.originals] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    scores.skipped[0] = True
    with pytest.raises(ValueError, match="compared with 3 unrelated originals of its size at least"):
        unrelated.choose(source, scores, ["one", "other"], 100)


@pytest.mark.parametrize("room", [2**25, 1])
def test_comparisons_read_a_picture_once_where_there_is_room(monkeypatch, room):
    monkeypatch.setattr(unrelated, "_MOST_VALUES", room)
    reads = []

    class Counted(BuiltInPairs):
        def load(self, index, row):
            reads.append(index)
            return super().load(index, row)

    selection = Selection([0, 5], [[1, 2, 3], [6, 7, -1]], [0] * 24, [5])
    pairs = unrelated.UnrelatedPairs(Counted(), selection)
    loaded = [pairs.load(index, {}) for index in range(pairs.check()[0])]
    assert [pair.index for pair in loaded] == list(range(3 + 2 + 2))
    plain = BuiltInPairs()
    wanted = [(0, 1), (0, 2), (0, 3), (5, 6), (5, 7)]
    for pair, (sent, original) in zip(loaded, wanted, strict=False):
        assert torch.equal(pair.noisy, plain.load(sent, {}).noisy)
        assert torch.equal(pair.clean, plain.load(original, {}).clean)
    anchor = plain.load(5, {})
    assert torch.equal(loaded[5].noisy, anchor.clean)
    assert torch.equal(loaded[6].noisy, noise_of_equal_error(anchor.noisy, anchor.clean, seed=5))
    assert all(torch.equal(pair.clean, anchor.clean) for pair in loaded[5:])
    assert (sorted(reads) == [0, 1, 2, 3, 5, 6, 7]) == (room > 1)
    batches = list(batches_of_one_size(loaded, 16))
    if room > 1:
        assert [len(batch) for batch in batches] == [3, 2, 2]
        assert stacked([pair.noisy for pair in batches[0]]).stride(0) == 0
