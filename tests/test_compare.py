"""``attacker-metrics compare`` on runs that the command line made."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich", reason="needs the cli extra")
pytest.importorskip("statsmodels", reason="needs the cli extra")
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attacker_metrics import MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES
from attacker_metrics.commands import cli
from attacker_metrics.comparison.differences import LEVEL, Difference, compare_runs
from attacker_metrics.comparison.outputs import ComparedRuns, draw_differences
from attacker_metrics.comparison.runs import aligned, load_runs
from attacker_metrics.scoring.components import SPEC_VERSION
from attacker_metrics.statistics import Estimate, SignFlipTest

FIFTEEN = [*MS_SSIM_COMPONENT_NAMES, *PEARSON_COMPONENT_NAMES]
FILES = ["comparison.csv", "comparison.json", "comparison.tex", "differences.pdf", "differences.svg"]
PAIRS = 10
NOISE = {"weak": 15, "strong": 60, "alike": 15}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs on the same ten pictures under weak, strong, and other weak noise."""
    folder = tmp_path_factory.mktemp("runs")
    for index in range(PAIRS):
        random = np.random.default_rng(index)
        coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), np.uint8))
        clean = np.array(coarse.resize((26, 30), Image.Resampling.BICUBIC))
        for side, noise in {"clean": 0, **NOISE}.items():
            (folder / side).mkdir(exist_ok=True)
            noisy = np.clip(clean + random.normal(0, noise, clean.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / side / f"{index}.png")
    for name in NOISE:
        images = ["--clean", str(folder / "clean"), "--noisy", str(folder / name)]
        assert cli.main(["evaluate", *images, "--output", str(folder / "runs" / name), "--betas", "0.5", "0.5"]) == 0
    return folder / "runs"


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """A copy that a test may spoil, as working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*options: str) -> int:
    return cli.main(["compare", *options, "--output", "out"])


def result() -> dict:
    return json.loads(Path("out/comparison.json").read_text())


def differences(run="strong") -> dict[str, dict]:
    return {row["component"]: row for row in result()["differences"] if row["run"] == run}


def scores(run: str, name: str) -> np.ndarray:
    return np.array(pq.read_table(f"{run}/scores.parquet")[name].to_pylist(), dtype=np.float64)


def change_table(run: str, **columns) -> None:
    """Replace or append columns of a run's scores."""
    table = pq.read_table(f"{run}/scores.parquet")
    for name, values in columns.items():
        kept = table.drop_columns([name]) if name in table.column_names else table
        table = kept.append_column(name, pa.array(values))
    pq.write_table(table, f"{run}/scores.parquet")


def change_summary(run: str, change) -> None:
    path = Path(run, "summary.json")
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))


def test_more_noise_leaks_less(runs, capsys):
    assert compare("weak", "strong") == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert "strong leaks less than weak after 15 of 15 attackers, more after 0; 0 are undecided" in shown
    assert sorted(path.name for path in Path("out").iterdir()) == FILES
    assert all(name in shown for name in [*FIFTEEN, "ms_ssim", "pearson"])
    assert result()["sentences"][0] in shown


def test_the_numbers_are_those_of_scipy_and_statsmodels(runs):
    assert compare("weak", "strong") == 0
    found = differences()
    assert list(found) == [*FIFTEEN, "ms_ssim", "pearson"]
    p_values = {}
    for name, row in found.items():
        before, after = scores("weak", name), scores("strong", name)
        change = after - before
        assert row["n"] == PAIRS
        assert row["baseline_mean"] == pytest.approx(before.mean(), abs=1e-12)
        assert row["run_mean"] == pytest.approx(after.mean(), abs=1e-12)
        assert row["difference"] == pytest.approx(change.mean(), abs=1e-12)
        assert row["low"] < row["difference"] < row["high"]
        assert (row["pairs_lower"], row["pairs_higher"]) == ((change < 0).sum(), (change > 0).sum())
        p_values[name] = stats.permutation_test((after, before), paired_mean, permutation_type="samples").pvalue
        assert row["p"] == pytest.approx(p_values[name], abs=1e-12)
        assert (row["p_exact"], row["p_smallest"]) == (True, 2 / 2**PAIRS)
    for family in (FIFTEEN, ["ms_ssim", "pearson"]):
        corrected = multipletests([p_values[name] for name in family], method="holm")[1]
        np.testing.assert_allclose([found[name]["p_holm"] for name in family], corrected, atol=1e-12)


def paired_mean(first, second, axis):
    return (first - second).mean(axis=axis)


def test_csv_latex_and_plots_hold_the_same_comparison(runs):
    assert compare("weak", "strong", "alike") == 0
    with Path("out/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["component"]) for row in rows] == [
        (row["run"], row["component"]) for row in result()["differences"]
    ]
    assert [float(row["difference"]) for row in rows] == [row["difference"] for row in result()["differences"]]
    latex = Path("out/comparison.tex").read_text()
    assert r"\toprule" in latex
    assert latex.count(r"\\") == 18
    sobel = differences()["sobel_gray"]
    (line,) = (line for line in latex.splitlines() if line.startswith(r"sobel\_gray &"))
    assert f"{sobel['baseline_mean']:.3f} & {sobel['run_mean']:.3f} & {sobel['difference']:+.3f} [" in line
    assert "<svg" in Path("out/differences.svg").read_text()
    assert Path("out/differences.pdf").read_bytes().startswith(b"%PDF")


def test_the_same_command_writes_the_same_bytes(runs):
    assert compare("weak", "strong") == 0
    first = {name: Path("out", name).read_bytes() for name in FILES if not name.endswith(("svg", "pdf"))}
    assert compare("weak", "strong") == 0
    assert first == {name: Path("out", name).read_bytes() for name in first}


def test_a_run_and_its_copy_have_no_difference(runs, capsys):
    shutil.copytree("weak", "copy")
    change_table("copy", blur_gray=pa.array(scores("weak", "blur_gray") + 2e-5, pa.float32()))
    assert compare("weak", "copy") == 0
    assert result()["sentences"] == ["copy and weak have the same scores on every pair."]
    row = differences("copy")["blur_gray"]
    assert (row["p_holm"], row["low"], row["high"], row["leaks"]) == (1, None, None, "undecided")


def test_noise_of_the_same_strength_is_undecided_and_three_runs_share_one_correction(runs):
    assert compare("weak", "strong", "alike") == 0
    rows = [row for row in result()["differences"] if row["component"] in FIFTEEN]
    assert len(rows) == 30
    corrected = multipletests([row["p"] for row in rows], method="holm")[1]
    np.testing.assert_allclose([row["p_holm"] for row in rows], corrected, atol=1e-12)
    assert any(
        "alike leaks less than weak after 0 of 15 attackers, more after 0; 15 are" in s for s in result()["sentences"]
    )


def test_averages_that_hide_the_attacker_that_works_are_called_out(runs):
    shutil.copytree("weak", "hidden")
    lowered = {name: pa.array(scores("weak", name) / 4, pa.float32()) for name in MS_SSIM_COMPONENT_NAMES}
    change_table("hidden", **{**lowered, "sobel_gray": pa.array(np.full(PAIRS, 0.999), pa.float32())})
    assert compare("weak", "hidden") == 0
    (sentence,) = (s for s in result()["sentences"] if s.startswith("Strongest MS-SSIM"))
    assert "sobel_gray (0.999) on hidden. The best attacker still reads as much" in sentence


def test_other_ids_are_counted_and_named_and_common_compares_the_rest(runs, capsys):
    pq.write_table(pq.read_table("strong/scores.parquet").slice(2).take(list(range(7, -1, -1))), "strong/scores.parquet")
    assert compare("weak", "strong") == cli.BAD_USAGE
    message = capsys.readouterr().err
    assert "8 in common: strong lacks 2 (0, 1). Evaluate the same pairs, or pass --common" in message
    assert not Path("out").exists()
    assert compare("weak", "strong", "--common") == 0
    assert (result()["pairs"], result()["left_out_pairs"]) == (8, ["0", "1"])
    wanted = scores("strong", "blur_gray")[::-1] - scores("weak", "blur_gray")[2:]
    assert differences()["blur_gray"]["difference"] == pytest.approx(wanted.mean(), abs=1e-12)
    assert "2 pairs that not all runs have are left out (--common)." in result()["notes"]
    change_table("strong", id=[f"other{index}" for index in range(8)])
    assert compare("weak", "strong", "--common") == cli.BAD_USAGE
    assert "no pair in common" in capsys.readouterr().err


def test_pairs_without_a_score_are_left_out_and_counted(runs):
    change_table("strong", rgb_clamp=pa.array([None, float("nan"), *scores("strong", "rgb_clamp")[2:]], pa.float32()))
    assert compare("weak", "strong") == 0
    row = differences()["rgb_clamp"]
    assert (row["n"], row["left_out"]) == (8, 2)
    wanted = (scores("strong", "rgb_clamp") - scores("weak", "rgb_clamp"))[2:].mean()
    assert row["difference"] == pytest.approx(wanted, abs=1e-12)
    assert differences()["rgb_minmax"]["n"] == PAIRS
    assert any(note.startswith("strong: 2 of 10 pairs lack a score") for note in result()["notes"])


def test_groups_are_the_unit_and_too_few_of_them_are_called_out(runs):
    for run in ("weak", "strong"):
        change_table(run, group=[f"person {index // 2}" for index in range(PAIRS)])
    assert compare("weak", "strong") == 0
    assert result()["groups"] == 5
    assert {row["p"] for row in result()["differences"]} == {2 / 2**5}
    assert {row["leaks"] for row in result()["differences"] if row["component"] in FIFTEEN} == {"undecided"}
    assert any("So few groups cannot show a difference of any single attacker" in note for note in result()["notes"])
    assert any("Only 5 groups" in note for note in result()["notes"])
    change_table("strong", group=["person 0"] * PAIRS)
    assert compare("weak", "strong") == cli.BAD_USAGE


def test_a_column_of_the_strongest_attacker_is_compared_but_is_no_attacker(runs):
    for run in ("weak", "strong"):
        change_table(run, strongest=scores(run, "blur_gray"), winner=["blur_gray"] * PAIRS)
    assert compare("weak", "strong") == 0
    assert differences()["strongest"]["difference"] == pytest.approx(differences()["blur_gray"]["difference"], abs=1e-6)
    assert "of 15 attackers" in result()["sentences"][0]
    assert "winner" not in differences()


def test_strongest_attackers_measured_against_other_unrelated_pairs_are_not_compared(runs):
    """The finest percentile depends on the number of unrelated pairs: the same scores would leak less in one run."""
    for run, finest in (("weak", 0.999), ("strong", 0.98)):
        change_table(run, strongest=np.full(PAIRS, finest))
        change_summary(run, lambda summary, finest=finest: refused(summary, "null_digest", str(finest)))
    assert compare("weak", "strong", "--utility-column", "rgb_clamp") == 0
    assert "strongest" not in differences()
    assert any(note.startswith("strongest is left out: ") for note in result()["notes"])
    change_summary("strong", lambda summary: refused(summary, "null_digest", "0.999"))
    assert compare("weak", "strong") == 0
    assert differences()["strongest"]["leaks"] == "less"
    assert not any("strongest" in note for note in result()["notes"])


def test_the_attackers_of_a_suite_are_read_as_the_fifteen_are(runs):
    """They are named where they are the strongest, and rounding makes no difference of them."""
    rounding = np.where(np.arange(PAIRS) % 2, 3e-5, 1e-5)
    for run, mean in (("weak", 0.999), ("strong", 0.98)):
        added = {
            "affine_gray": np.full(PAIRS, mean),
            "draws_pearson_affine": np.full(PAIRS, mean),
            "jpeg_gray": 0.5 + (run == "weak") * rounding,
            "median_gray": np.zeros(PAIRS),
            "invert_gray": np.zeros(PAIRS),
        }
        change_table(run, **added)
        change_summary(run, lambda summary, added=added: summary["components"].update({name: {} for name in added}))
    assert compare("weak", "strong") == 0
    assert differences()["jpeg_gray"]["pairs_lower"] == 0
    assert differences()["jpeg_gray"]["difference"] == 0
    said = " ".join(result()["sentences"])
    assert "Strongest MS-SSIM attacker on average: affine_gray (0.999) on weak, affine_gray (0.980) on strong." in said
    assert "Strongest squared Pearson attacker on average: draws_pearson_affine (0.999) on weak" in said
    assert sum("1 MS-SSIM components are exactly 0" in note for note in result()["notes"]) == 2  # the negative's is no news


def refused(summary, name, value):
    summary["settings"][name] = value


@pytest.mark.parametrize(
    ("name", "value"), [("gamma", [0.7]), ("blur_sigma", 1.0), ("betas", [1.0]), ("resize", 64), ("suite", "standard-v1")]
)
def test_scores_that_measure_different_things_are_refused(runs, capsys, name, value):
    change_summary("strong", lambda summary: refused(summary, name, value))
    assert compare("weak", "strong") == cli.BAD_USAGE
    message = capsys.readouterr().err
    assert f"{name} differs: " in message
    assert f"{value} in strong" in message
    assert not Path("out").exists()


def test_another_specification_is_refused_other_differences_are_named(runs, capsys):
    change_summary("strong", lambda summary: summary.update(torch_version="2.9", noisy_8bit=0))
    change_summary("strong", lambda summary: refused(summary, "device", "cuda"))
    change_table("strong", mine=np.ones(PAIRS))
    change_summary("strong", lambda summary: summary["components"].update(mine={}))
    assert compare("weak", "strong") == 0
    notes = " ".join(result()["notes"])
    for words in (
        "torch_version differs: ",
        "2.9 in strong",
        "cuda in strong",
        "components differs",
        "10 in weak, 0 in strong",
    ):
        assert words in notes
    assert "mine" not in differences()
    change_summary("strong", lambda summary: summary.update(spec_version="0"))
    assert compare("weak", "strong") == cli.BAD_USAGE
    assert f"spec_version differs: {SPEC_VERSION} in weak, 0 in strong" in capsys.readouterr().err


def test_an_own_metric_beyond_one_is_compared_on_its_own_scale(runs):
    for run, factor in (("weak", 40.0), ("strong", 20.0)):
        change_table(run, psnr=factor + np.arange(PAIRS) * factor / 40)
        change_summary(run, lambda summary: summary["components"].update(psnr={}))
    assert compare("weak", "strong") == 0
    row = differences()["psnr"]
    assert row["difference"] == pytest.approx(-22.25)
    assert row["low"] < row["difference"] < row["high"] < -20


def test_own_metrics_are_named_since_their_direction_is_unknown(runs):
    for run in ("weak", "strong"):
        distance = np.append(scores(run, "blur_gray")[1:], np.inf if run == "weak" else 0.5)
        change_table(run, distance=distance, draw=[2**60 + 1] * PAIRS)
        change_summary(run, lambda summary: summary["components"].update(distance={}))
    change_summary("weak", lambda summary: refused(summary, "extra", ["mine:Distance"]))
    change_summary("strong", lambda summary: refused(summary, "extra", ["other:Distance"]))
    assert compare("weak", "strong") == 0
    notes = result()["notes"]
    assert "extra differs: ['mine:Distance'] in weak, ['other:Distance'] in strong." in notes
    assert any(note.startswith("mine:Distance, other:Distance: your own metrics are read like ours") for note in notes)
    assert differences()["distance"]["left_out"] == 1
    assert any(note.startswith("weak: 1 of 10 pairs lack a score") for note in notes)
    assert "(sign-flip test over 9 to 10 pairs, " in result()["sentences"][0]


def test_a_name_is_shown_as_it_is_in_table_and_legend(runs, capsys):
    name = "_[v2] $x_1^2$"
    Path("strong").rename(name)
    assert compare("weak", name) == 0
    assert f"{name} against weak" in capsys.readouterr().out
    found, _ = aligned(load_runs([Path("weak"), Path(name)]))
    legend = draw_differences(ComparedRuns(found, [], compare_runs(found), [])).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [name.replace("$", r"\$")]


def test_runs_that_agree_on_the_few_pairs_that_both_scored_are_not_called_the_same(runs):
    shutil.copytree("weak", "copy")
    lost = {name: pa.array([*scores("copy", name)[:3], *[None] * 7], pa.float32()) for name in FIFTEEN}
    change_table("copy", **lost)
    assert compare("weak", "copy") == 0
    assert result()["sentences"] == ["copy and weak have the same scores on every pair that has them in both."]


def test_the_trade_off_of_an_earlier_comparison_does_not_stay(runs):
    Path("u.csv").write_text("run,utility\nweak,0.9\nstrong,0.6\n")
    assert compare("weak", "strong", "--utility", "u.csv") == 0
    Path("out/mine.txt").write_text("kept")
    assert compare("weak", "strong") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [*FILES, "mine.txt"]


def test_a_utility_file_adds_a_plot_of_the_trade_off(runs):
    Path("u.csv").write_text("run,utility,lower,upper\nweak,0.9,0.85,0.92\nstrong,0.6,,\nother,,,\n")
    assert compare("weak", "strong", "--utility", "u.csv") == 0
    assert [run["utility"] for run in result()["runs"]] == [[0.9, 0.85, 0.92], [0.6, None, None]]
    assert sorted(path.name for path in Path("out").iterdir()) == [*FILES, "privacy_utility.pdf", "privacy_utility.svg"]


def test_a_column_can_be_the_utility(runs):
    for run, worth in (("weak", 0.8), ("strong", 0.2)):
        change_table(run, accuracy=np.linspace(worth - 0.1, worth + 0.1, PAIRS))
    assert compare("weak", "strong", "--utility-column", "accuracy") == 0
    (weak, low, high), (strong, _, _) = (run["utility"] for run in result()["runs"])
    assert (weak, strong) == (pytest.approx(0.8), pytest.approx(0.2))
    assert low < weak < high
    assert "accuracy" not in differences()
    assert Path("out/privacy_utility.svg").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("name,utility\nweak,1\n", "needs the columns run and utility, got name, utility"),
        ("run,utility\nweak,1\n", "has no line for strong; it has weak"),
        ("run,utility\nweak,1\nstrong,high\n", "line 3: utility is 'high', not a number"),
        ("run,utility\nweak,1\nstrong,\n", "line 3: utility is empty"),
        ("run,utility\nweak,1\nweak,2\nstrong,1\n", "line 3: run weak is there twice"),
        ("run,utility,lower,upper\nweak,1,2,3\nstrong,1,,\n", "line 2: lower <= utility <= upper does not hold"),
        ("", "got none"),
        ("utility,run\n0.5\n", "has no line for weak, strong; it has "),
        ("run,utility\nweak,1\nstrong,1\n\udce9,1\n", "is no CSV file in UTF-8"),
    ],
)
def test_a_wrong_utility_file_is_named(runs, capsys, lines, message):
    Path("u.csv").write_text(lines, encoding="utf-8", errors="surrogateescape")
    assert compare("weak", "strong", "--utility", "u.csv") == cli.BAD_USAGE
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def broken_table():
    Path("strong/scores.parquet").write_bytes(b"broken")


def broken_summary():
    Path("strong/summary.json").write_text("{")


def empty_summary():
    Path("strong/summary.json").write_text("{}")


def list_summary():
    Path("strong/summary.json").write_text("[]")


@pytest.mark.parametrize(
    ("options", "spoil", "message"),
    [
        (["weak"], None, "at least two runs are needed, got 1"),
        (["weak", "./weak"], None, "is given twice"),
        (["weak", "nowhere"], None, "nowhere holds no summary.json; pass folders that attacker-metrics evaluate wrote"),
        (["weak", "strong"], broken_table, "strong cannot be read"),
        (["weak", "strong"], broken_summary, "strong cannot be read"),
        (["weak", "strong"], empty_summary, "strong is no run"),
        (["weak", "strong"], list_summary, "strong is no run"),
        (["weak", "strong"], lambda: change_table("strong", id=["a"] * PAIRS), "1 ids are there more than once (a)"),
        (["weak", "strong"], lambda: change_table("weak", group=["a", *[None] * 9]), "9 of 10 pairs have no group"),
        (["weak", "strong", "--utility-column", "worth"], None, "weak has no column 'worth'; it has "),
        (["weak", "strong", "--utility", "nowhere.csv"], None, "nowhere.csv"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_two(runs, capsys, options, spoil, message):
    if spoil:
        spoil()
    assert compare(*options) == cli.BAD_USAGE
    error = capsys.readouterr().err
    assert error.startswith("attacker-metrics: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()


def test_runs_without_any_score_have_nothing_to_compare(runs, capsys):
    for name in [*FIFTEEN, "ms_ssim", "pearson"]:
        change_table("strong", **{name: pa.array([None] * PAIRS, pa.float32())})
    assert compare("weak", "strong") == cli.BAD_USAGE
    assert "nothing to compare" in capsys.readouterr().err


@pytest.mark.parametrize(("p_holm", "verdict"), [(LEVEL, "less"), (np.nextafter(LEVEL, 1), "undecided")])
def test_a_difference_at_the_level_itself_is_significant(p_holm, verdict):
    """As everywhere: a test rejects where p <= 5 %."""
    test = SignFlipTest(p_value=0.01, smallest=0.001, exact=True)
    change = Estimate(-0.5, -0.6, -0.4)
    found = Difference("b", "a", "rgb_clamp", 10, 0, 0.9, 0.4, change, 10, 0, test, p_holm)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    "summary",
    [
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"components": [], "settings": {}}',
        b'{"components": {}, "settings": {"extra": 3}}',
        b'{"components": {}, "settings": {"extra": [[]]}}',
        b'{"components": {}, "settings": {}, "noisy_8bit": []}',
        b'{"components": {}, "settings": {"null_digest": []}}',
    ],
)
def test_a_hostile_summary_is_one_message(runs, capsys, summary):
    Path("strong/summary.json").write_bytes(summary)
    assert compare("weak", "strong") == 2
    assert capsys.readouterr().err.startswith("attacker-metrics: strong")
    assert not Path("out").exists()


def test_a_column_that_is_there_twice_is_named(runs, capsys):
    table = pq.read_table("strong/scores.parquet")
    pq.write_table(table.append_column("id", table["id"]), "strong/scores.parquet")
    assert compare("weak", "strong") == 2
    assert "'id' is there twice" in capsys.readouterr().err


def test_scores_that_are_no_text_and_a_utility_that_is_a_pipe_are_one_message(runs, capsys):
    os.mkfifo("pipe.csv")
    assert compare("weak", "strong", "--utility", "pipe.csv") == 2
    assert "it is a named pipe, not a regular file; save it as one" in capsys.readouterr().err
    table = pq.read_table("strong/scores.parquet")
    text = pa.StringArray.from_buffers(PAIRS, *pa.array([b"\xff"] * PAIRS).buffers()[1:])
    pq.write_table(table.set_column(table.schema.get_field_index("id"), "id", text), "strong/scores.parquet")
    assert compare("weak", "strong") == 2
    error = capsys.readouterr().err
    assert "strong/scores.parquet cannot be read as Parquet" in error
    assert "Invalid UTF8" in error
