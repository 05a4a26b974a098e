"""The command line as a user meets it: real processes where the process matters, its entry point otherwise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from attacker_metrics import (
    MS_SSIM_COMPONENT_NAMES,
    PEARSON_COMPONENT_NAMES,
    AttackerMetricsWarning,
    backend,
    multi_attacker_scores,
)
from attacker_metrics.commands import cli
from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.evaluation.tails import estimate_as_json, tails_among, tails_of, why_unsupported
from attacker_metrics.pairs.demonstration import OBFUSCATIONS
from attacker_metrics.pairs.sources import BuiltInPairs, LoadedPair
from attacker_metrics.report import outputs as report
from attacker_metrics.scoring.batches import batches_of_one_size
from attacker_metrics.statistics import mean_interval, tail_summary

SEVENTEEN = [*MS_SSIM_COMPONENT_NAMES, *PEARSON_COMPONENT_NAMES, "ms_ssim", "pearson"]
SMALL = ["--betas", "0.5", "0.5"]


def picture(seed: int, height: int = 30, width: int = 26) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def folders(tmp_path):
    """Six pairs of two sizes, one of them below a folder; the noisy side is weakly disturbed."""
    for index in range(6):
        name = Path("deep" if index == 5 else "", f"pair{index}.png")
        clean = picture(index, height=30 if index % 2 else 40)
        noisy = np.clip(clean + np.random.default_rng(index).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
        for side, pixels in (("clean", clean), ("noisy", noisy)):
            (tmp_path / side / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / side / name)
    return tmp_path


def evaluate(folder: Path, *options: str) -> int:
    return cli.main(
        [
            *("evaluate", "--clean", str(folder / "clean"), "--noisy", str(folder / "noisy")),
            *("--output", str(folder / "out"), *SMALL, *options),
        ]
    )


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "summary.json").read_text())


def test_without_arguments_it_shows_the_point_of_the_library_on_built_in_photographs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "attacker_metrics", "evaluate"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert all(name in done.stdout for name in [*SEVENTEEN, *OBFUSCATIONS])
    report = tmp_path / "attacker-metrics-report"
    assert sorted(path.name for path in report.iterdir()) == ["report.html", "scores.parquet", "summary.json"]
    assert [path.name for path in tmp_path.iterdir()] == [report.name]
    summary = json.loads((report / "summary.json").read_text())
    assert summary["pairs"] == summary["evaluated"] == 24
    assert list(summary["groups"]) == list(OBFUSCATIONS)
    inverted = {name: part["mean"] for name, part in summary["groups"]["inversion"]["components"].items()}
    assert [name for name in MS_SSIM_COMPONENT_NAMES if inverted[name] == 0] == [
        name for name in MS_SSIM_COMPONENT_NAMES if name != "sobel_gray"
    ]
    assert inverted["sobel_gray"] > 0.9999
    assert all(inverted[name] > (0.8 if name == "pearson_gamma" else 0.99) for name in PEARSON_COMPONENT_NAMES)
    shuffled = summary["groups"]["block_permutation"]["components"]
    assert all(shuffled[name]["mean"] < 0.2 for name in SEVENTEEN)


def test_a_marked_cell_is_the_largest_of_its_column(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate"]) == 0
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in re.split("[│|]", line)[1:-1]]
        if cells and cells[0] in MS_SSIM_COMPONENT_NAMES + PEARSON_COMPONENT_NAMES:
            rows[cells[0]] = cells[1:]
    assert len(rows) == 15
    for column in zip(*rows.values(), strict=True):
        values = [float(cell.rstrip(" *")) for cell in column]
        assert [cell.endswith("*") for cell in column] == [value == max(values) for value in values]


def test_scores_are_those_of_the_functions_whatever_the_batch_size_and_workers(folders):
    tables = []
    for options in (["--batch-size", "4"], ["--batch-size", "1"], ["--batch-size", "3", "--workers", "2"]):
        assert evaluate(folders, *options) == 0
        tables.append(pq.read_table(folders / "out" / "scores.parquet").to_pydict())
    assert list(tables[0]) == ["id", *SEVENTEEN]
    assert tables[0]["id"] == ["deep/pair5", *(f"pair{index}" for index in range(5))]
    for table in tables[1:]:
        assert table["id"] == tables[0]["id"]
        for name in SEVENTEEN:
            np.testing.assert_allclose(table[name], tables[0][name], rtol=0, atol=1e-6)
    for row, name in enumerate(tables[0]["id"]):
        pair = [
            torch.from_numpy(np.array(Image.open(folders / side / f"{name}.png"))).permute(2, 0, 1)[None] / 255
            for side in ("noisy", "clean")
        ]
        for component, value in multi_attacker_scores(*pair, betas=(0.5, 0.5)).items():
            assert tables[0][component][row] == pytest.approx(float(value), abs=1e-6)


def test_summary_statistics_are_those_of_the_scores(folders):
    assert evaluate(folders, "--gamma", "0.7,1.5", "--blur-sigma", "1.5", "--wavelet-threshold", "0.2") == 0
    summary = summary_of(folders)
    table = pq.read_table(folders / "out" / "scores.parquet").to_pydict()
    assert list(summary["components"]) == SEVENTEEN
    for name in SEVENTEEN:
        values, given = np.array(table[name], dtype=np.float64), summary["components"][name]
        interval = mean_interval(values.clip(0, 1))
        wanted = [values.mean(), values.std(ddof=1), interval.low, interval.high, np.median(values), values.max()]
        reached = [given["mean"], given["std"], *given["ci95"], given["median"], given["max"]]
        np.testing.assert_allclose(reached, wanted, rtol=0, atol=1e-9)
        assert given["p95"] is None  # of six pairs
        assert "at least" in given["refused"]["p95"]
        assert given["worst_pair"] == table["id"][int(values.argmax())]
    settings = summary["settings"]
    assert settings["gamma"] == [0.7, 1.5]
    assert (settings["blur_sigma"], settings["wavelet_threshold"], settings["betas"]) == (1.5, 0.2, [0.5, 0.5])
    assert {"attacker_metrics_version", "spec_version", "torch_version", "torchmetrics_version"} <= summary.keys()
    assert summary["backend"] == str(backend())
    assert summary["backend"] in (folders / "out" / "report.html").read_text()
    assert sum(summary["strongest"].values()) == 6
    assert summary["noisy_8bit"] == 6
    assert "clipped and quantised" in (folders / "out" / "report.html").read_text()


def test_json_output_is_the_summary_and_nothing_else(folders, capsys):
    assert evaluate(folders, "--json") == 0
    assert json.loads(capsys.readouterr().out) == summary_of(folders)


def test_a_single_pair_has_no_interval(folders, capsys):
    for path in sorted((folders / "clean").rglob("*.png"))[1:]:
        path.unlink()
    assert evaluate(folders, "--allow-unmatched") == 0
    statistics = summary_of(folders)["components"]["rgb_clamp"]
    assert statistics["std"] is None
    assert statistics["ci95"] is None
    assert statistics["mean"] == statistics["max"] == statistics["median"]
    assert len(summary_of(folders)["settings"]["unmatched"]) == 5


def test_one_bad_pair_of_each_kind_is_named_and_the_rest_is_evaluated(folders, capsys):
    (folders / "noisy" / "pair0.png").write_bytes(b"broken")
    Image.fromarray(picture(1, 31)).save(folders / "noisy" / "pair1.png")
    (folders / "noisy" / "pair2.png").unlink()
    np.save(folders / "noisy" / "pair2.npy", np.full((3, 40, 26), np.nan, np.float32))
    Image.fromarray(picture(3, 12, 12)).save(folders / "clean" / "pair3.png")
    Image.fromarray(picture(3, 12, 12)).save(folders / "noisy" / "pair3.png")
    (folders / "clean" / "pair4.png").unlink()
    np.save(folders / "clean" / "pair4.npy", np.full((3, 40, 26), 3.0, np.float32))
    assert evaluate(folders) == cli.SOME_FAILED
    summary, errors = summary_of(folders), capsys.readouterr().err
    assert (summary["pairs"], summary["evaluated"], summary["skipped"], summary["failed"]) == (6, 1, 1, 4)
    assert summary["skipped_pairs"] == ["pair2"]
    reasons = summary["failed_pairs"]
    for name, words in {
        "pair0": "cannot be read",
        "pair1": "a pair must have one size",
        "pair3": "too small for MS-SSIM",
        "pair4": "leaves [0, 1]",
    }.items():
        assert words in reasons[name]
        assert f"failed: {name}: " in errors
    assert "Traceback" not in errors
    table = pq.read_table(folders / "out" / "scores.parquet").to_pydict()
    assert [value is None for value in table["ms_ssim"]] == [False, True, True, True, True, True]


def test_no_pair_left_gives_null_and_a_gate_that_fails(folders):
    for path in (folders / "noisy").rglob("*.png"):
        path.write_bytes(b"broken")
    assert evaluate(folders) == cli.SOME_FAILED
    assert summary_of(folders)["components"]["ms_ssim"]["mean"] is None
    assert evaluate(folders, "--fail-above", "ms_ssim=0.9") == cli.GATE_EXCEEDED


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_a_gate_compares_its_statistic_and_names_component_value_and_images(folders, capsys, statistic):
    assert evaluate(folders) == 0
    value = summary_of(folders)["components"]["rgb_clamp"][statistic]
    assert evaluate(folders, "--fail-above", f"rgb_clamp={value + 1e-4}@{statistic}") == 0
    capsys.readouterr()
    limit = value - 1e-4
    assert evaluate(folders, "--fail-above", "pearson=1", "--fail-above", f"rgb_clamp={limit!r}@{statistic}") == 3
    errors = capsys.readouterr().err
    assert f"rgb_clamp {statistic} is {value:.6g}" in errors
    table = pq.read_table(folders / "out" / "scores.parquet").to_pydict()
    above = [name for name, score in zip(table["id"], table["rgb_clamp"], strict=True) if score > limit]
    assert above
    assert all(name in errors for name in above)
    assert [gate["exceeded"] for gate in summary_of(folders)["gates"]] == [False, True]


def test_the_default_statistic_of_a_gate_is_the_mean(folders):
    assert evaluate(folders, "--fail-above", "blur_gray=0.001") == cli.GATE_EXCEEDED
    assert summary_of(folders)["gates"][0]["statistic"] == "mean"


def test_pixels_are_stored_only_on_request(folders):
    assert evaluate(folders) == 0
    assert "data:image" not in (folders / "out" / "report.html").read_text()
    assert evaluate(folders, "--gallery", "2") == 0
    page = (folders / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "holds image data" in page
    assert not re.search(r"(src|href)=[\"']?(http|//)", page)


def test_unmatched_files_stop_the_run_before_any_work(folders, capsys):
    (folders / "clean" / "pair0.png").unlink()
    (folders / "noisy" / "deep" / "pair5.png").unlink()
    assert evaluate(folders) == cli.BAD_USAGE
    errors = capsys.readouterr().err
    assert str(folders / "noisy" / "pair0.png") in errors
    assert str(folders / "clean" / "deep" / "pair5.png") in errors
    assert "--allow-unmatched" in errors
    assert not (folders / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clean", "{0}/clean"], "--clean and --noisy belong together"),
        (["--clean", "{0}/nowhere", "--noisy", "{0}/noisy"], "nowhere is not a folder"),
        (["--clean", "{0}/empty", "--noisy", "{0}/empty"], "no pairs"),
        (["--gamma", "-1"], "gamma_values must be a positive number, got -1.0"),
        (["--blur-sigma", "0"], "blur_sigma must be a positive number of pixels, got 0.0"),
        (["--wavelet-threshold", "-0.1"], "wavelet_threshold must be at least 0, got -0.1"),
        (["--betas", "0"], "betas must be one or more positive numbers"),
        (["--device", "warp"], "--device warp: not available here"),
        (["--extra", "nowhere:Metric"], "--extra nowhere:Metric: ModuleNotFoundError"),
        (["--extra", "json:JSONDecoder"], "not a torchmetrics Metric"),
        (["--fail-above", "rgb=0.5"], "there is no component 'rgb'"),
        (["--manifest", "m.csv", "--clean", "{0}/clean", "--noisy", "{0}/noisy"], "--manifest lists the pairs"),
        (["--manifest", "{0}/nowhere.csv"], "nowhere.csv"),
        (["--manifest", "{0}/clean/pair0.png"], "must end in .csv or .parquet"),
        (["--resize", "64"], "--resize and --allow-unmatched need --clean and --noisy"),
        (["--output", "{0}/clean/pair0.png"], "exists and is not a folder"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_two(folders, capsys, monkeypatch, options, message):
    monkeypatch.chdir(folders)
    (folders / "empty").mkdir()
    before = sorted(folders.rglob("*"))
    assert cli.main(["evaluate", *(option.format(folders) for option in options)]) == cli.BAD_USAGE
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("attacker-metrics: ")
    assert captured.out == ""
    assert sorted(folders.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--fail-above", "rgb_clamp"], "is not COMPONENT=VALUE"),
        (["evaluate", "--fail-above", "rgb_clamp=high"], "is not COMPONENT=VALUE"),
        (["evaluate", "--fail-above", "rgb_clamp=0.5@p99"], "is not COMPONENT=VALUE"),
        (["evaluate", "--batch-size", "0"], "is not a whole number of at least 1"),
        (["evaluate", "--workers", "-1"], "is not a whole number of at least 0"),
        (["evaluate", "--gamma", "two"], "is not a number"),
        (["views", "a.png"], "required: NOISY, --output"),
        ([], "required: COMMAND"),
    ],
)
def test_unreadable_arguments_are_status_two(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert message in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_report_and_the_scores_to_resume_with(folders, monkeypatch):
    assert evaluate(folders) == 0
    before = {path: path.read_bytes() for path in (folders / "out").iterdir()}

    def full_disk(*_arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("attacker_metrics.report.outputs.as_html", full_disk)
    assert evaluate(folders, "--gamma", "3") == cli.BAD_USAGE
    assert {path: path.read_bytes() for path in (folders / "out").iterdir() if path.is_file()} == before
    assert sorted(path.name for path in folders.iterdir()) == ["clean", "noisy", "out"]
    monkeypatch.undo()
    assert evaluate(folders, "--gamma", "3", "--resume") == 0
    speed = summary_of(folders)["throughput"]
    assert (speed["pairs"], speed["pairs_resumed"]) == (0, 6)
    assert not (folders / "out" / ".unfinished").exists()


def test_an_interrupt_writes_nothing(folders, monkeypatch, capsys):
    def interrupt(*_arguments, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("attacker_metrics.evaluation.run.load_ahead", interrupt)
    assert evaluate(folders) == cli.INTERRUPTED
    assert not (folders / "out").exists()
    assert "interrupted; nothing was written" in capsys.readouterr().err


EXTRA = """
import torch
from torchmetrics.image import PeakSignalNoiseRatio
from attacker_metrics import AttackerMetric, Component, MSSSIM

def negative(x):
    return 1 - x

class NegativeMSSSIM(AttackerMetric):
    def __init__(self, **kwargs):
        super().__init__(Component("negative", MSSSIM((0.5, 0.5)), noisy=(negative,)), **kwargs)

class PSNR(PeakSignalNoiseRatio):
    def __init__(self):
        super().__init__(data_range=1.0)
"""


def test_a_users_metrics_appear_in_table_scores_summary_and_report(folders, monkeypatch, capsys):
    (folders / "mine.py").write_text(EXTRA)
    monkeypatch.chdir(folders)
    assert evaluate(folders, "--extra", "mine:NegativeMSSSIM", "--extra", "mine:PSNR", "--fail-above", "PSNR=99") == 0
    table = pq.read_table(folders / "out" / "scores.parquet").to_pydict()
    assert list(table) == ["id", *SEVENTEEN, "negative", "PSNR"]
    noisy, clean = (np.array(Image.open(folders / side / "pair0.png")) / 255 for side in ("noisy", "clean"))
    psnr = -10 * np.log10(((noisy - clean) ** 2).mean())
    assert table["PSNR"][table["id"].index("pair0")] == pytest.approx(psnr, abs=1e-4)
    assert all(score == 0 for score in table["negative"])
    assert summary_of(folders)["components"]["negative"]["collapsed"] == 6
    assert "negative" in capsys.readouterr().out
    assert ">PSNR<" in (folders / "out" / "report.html").read_text()


RARELY_DEFINED = """
import torch
from torchmetrics import Metric

class OfBright(Metric):
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("score", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, noisy, clean):
        self.score = torch.tensor(float("nan") if torch.equal(noisy, clean) else 0.0)

    def compute(self):
        return self.score
"""


def test_a_users_metric_may_be_infinite_or_undefined(folders, monkeypatch, capsys):
    """Numbers that are none are null; and a pair that the metric cannot score still heads the list of the leaking ones."""
    (folders / "mine.py").write_text(EXTRA)
    (folders / "other.py").write_text(RARELY_DEFINED)
    (folders / "noisy" / "pair0.png").write_bytes((folders / "clean" / "pair0.png").read_bytes())
    monkeypatch.chdir(folders)
    assert evaluate(folders, "--extra", "mine:PSNR", "--extra", "other:OfBright", "--fail-above", "PSNR=99@max") == 3
    assert "limit exceeded: PSNR max is no score to judge by" in capsys.readouterr().err
    found = summary_of(folders)
    psnr = found["components"]["PSNR"]
    assert (psnr["mean"], psnr["std"], psnr["ci95"], psnr["max"], psnr["worst_pair"]) == (None,) * 4 + ("pair0",)
    assert 0 < psnr["median"] < 99
    assert found["components"]["OfBright"]["mean"] == 0
    assert np.isinf(pq.read_table(folders / "out" / "scores.parquet")["PSNR"].to_pylist()).sum() == 1

    assert evaluate(folders, "--extra", "other:OfBright") == 0
    most_leaking = (folders / "out" / "report.html").read_text().split("Most leaking pairs")[-1]
    assert most_leaking.index("<td>pair0</td>") < most_leaking.index("<td>pair1</td>")


def test_tails_are_those_of_the_pairs_that_have_a_score_within_the_bounds_of_it():
    generator = np.random.default_rng(0)
    share = generator.random(400).astype(np.float32)
    share[:2] = np.nextafter(np.float32(1), np.float32(2)), np.nan  # a hair above 1; without a score
    columns = {"share": share, "any": 9 * share, "none": np.full(400, np.nan, np.float32), "endless": share.copy()}
    columns["endless"][5] = np.inf
    rows = pa.table({"id": list(map(str, range(400))), "group": [f"g{i // 2}" for i in range(400)]})
    scores = RunScores(rows, columns, {}, np.arange(400) >= 390)
    found, groups = tails_of(scores, frozenset({"share", "none"})), scores.clusters[:390]
    for name, bounds in (("share", (0.0, 1.0)), ("any", (-np.inf, np.inf))):
        values = columns[name][:390].astype(float)
        wanted = tail_summary(values.clip(max=1) if name == "share" else values, np.array(groups), bounds=bounds)
        assert (found[name]["n"], found[name]["left_out"], found[name]["groups"]) == (389, 1, 195)
        assert found[name]["mean"] == estimate_as_json(wanted.mean)
        assert found[name]["p95"] == estimate_as_json(wanted.quantiles["p95"]) is not None
        assert found[name]["p99"] is None
        assert found[name]["cvar5"] == estimate_as_json(wanted.cvar5)
        assert found[name]["refused"] == wanted.refused
        assert why_unsupported(scores, name, "p95") is None
        assert why_unsupported(scores, name, "p99") == wanted.refused["p99"]
    for name, reason in (("none", "no pair has a score."), ("endless", found["endless"]["refused"]["mean"])):
        assert (found[name]["n"], found[name]["left_out"], found[name]["groups"]) == (0, 390, None)
        assert found[name]["mean"] is found[name]["p95"] is found[name]["cvar5"] is None
        assert found[name]["refused"] == dict.fromkeys(("mean", "p90", "p95", "p99", "cvar5"), reason)
    assert "finite" in reason
    assert why_unsupported(scores, "none", "p95") == "no pair has a score."
    first = tails_among(scores, np.arange(400) < 40, frozenset())["share"]
    assert (first["n"], first["left_out"], first["p95"]) == (39, 1, None)
    rows = RunScores(rows.drop_columns(["group"]), columns, {}, np.zeros(400, bool))
    assert tails_of(rows, frozenset({"share"}))["share"]["groups"] is None
    assert why_unsupported(rows, "share", "p99") is None


def test_an_interval_without_an_end_is_shown_and_stored_as_such():
    """A score without bounds that hardly ever differs: resamples without spread leave its mean unbounded."""
    estimate = mean_interval([0.5] * 40 + [0.7], bounds=(-np.inf, np.inf))
    stored = estimate_as_json(estimate)
    assert stored == {"value": pytest.approx(0.5 + 0.2 / 41), "low": pytest.approx(estimate.low), "high": None}
    assert report._interval(stored) == f"{estimate.low:.3f} .. -"


def test_resize_brings_small_images_to_five_scales(folders):
    arguments = ["evaluate", "--clean", str(folders / "clean"), "--noisy", str(folders / "noisy")]
    arguments += ["--output", str(folders / "out")]
    assert cli.main(arguments) == cli.SOME_FAILED
    assert cli.main([*arguments, "--resize", "176"]) == 0
    assert summary_of(folders)["evaluated"] == 6


def test_views_writes_a_picture_and_says_that_it_holds_image_data(folders, capsys):
    names = [str(folders / side / "pair0.png") for side in ("clean", "noisy")]
    assert cli.main(["views", *names, "--output", str(folders / "new" / "grid.png"), *SMALL]) == 0
    assert "holds image data" in capsys.readouterr().out
    with Image.open(folders / "new" / "grid.png") as grid:
        assert grid.width > 1000
    assert cli.main(["views", names[0], str(folders / "noisy" / "pair1.png"), "--output", str(folders / "g.png")]) == 2
    assert "a pair must have one size" in capsys.readouterr().err
    assert not (folders / "g.png").exists()


def test_batches_hold_one_size_and_few_pairs_wait():
    sizes = np.random.default_rng(0).integers(1, 30, 500)
    waiting = 0

    def source():
        nonlocal waiting
        for index, side in enumerate(sizes):
            waiting += 1
            assert waiting <= 8 * 4
            image = torch.zeros(3, int(side), 2)
            yield LoadedPair(index, image, image, noisy_eight_bit=False)

    seen = []
    for batch in batches_of_one_size(source(), 4):
        assert 1 <= len(batch) <= 4 or len({pair.clean.shape for pair in batch}) == 1
        assert len({pair.clean.shape for pair in batch}) == 1
        waiting -= len(batch)
        seen += [pair.index for pair in batch]
    assert sorted(seen) == list(range(500))


def test_built_in_pairs_are_the_same_in_every_run_and_leave_their_photographs_alone():
    first, second = BuiltInPairs(), BuiltInPairs()
    assert first.check() == second.check()
    assert first.check()[0] == len(set(first.rows(0, 24)["id"].to_pylist())) == 24
    for index in range(24):
        one, two = first.load(index, {}), second.load(index, {})
        assert isinstance(one, LoadedPair)
        assert torch.equal(one.noisy, two.noisy)
        assert one.clean.shape == (3, 256, 256)
        assert 0 <= one.clean.min() <= one.clean.max() <= 1
    negative = first.load(0, {})
    assert torch.equal(negative.noisy, 1 - negative.clean)


def test_a_terminal_shows_a_progress_bar(folders):
    """A pipe does not: see the first test."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX only")
    command = [sys.executable, "-m", "attacker_metrics", "evaluate", "--clean", "clean", "--noisy", "noisy", *SMALL]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folders, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"6/6" in shown


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak in /proc")
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path):
    """Peak memory over 120 pairs stays within 40 MB of that over 24: 96 more pairs would hold 300 MB of pixels."""
    image = picture(0, 512, 512)
    code = "import sys; from attacker_metrics.commands import cli"
    for count in (24, 120):
        for side in ("clean", "noisy"):
            folder = tmp_path / f"{side}{count}"
            folder.mkdir()
            for index in range(count):
                Image.fromarray(image).save(folder / f"{index}.bmp")
        code += (
            f"\nassert cli.main(['evaluate', '--clean', 'clean{count}', '--noisy', 'noisy{count}', '--betas', '1',"
            f" '--batch-size', '2', '--resize', '64', '--output', 'out{count}', '--json']) == 0\n"
            # Not ru_maxrss: that begins with what pytest holds.
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
        )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    few, many = (int(line) / 1024 for line in done.stderr.split())
    assert many - few < 40


def test_warnings_of_the_library_do_not_reach_the_console(folders, recwarn):
    np.save(folders / "noisy" / "deep" / "pair5.npy", np.full((3, 30, 26), np.inf, np.float32))
    (folders / "noisy" / "deep" / "pair5.png").unlink()
    assert evaluate(folders) == 0
    assert summary_of(folders)["skipped"] == 1
    assert not [warning for warning in recwarn if issubclass(warning.category, AttackerMetricsWarning)]
