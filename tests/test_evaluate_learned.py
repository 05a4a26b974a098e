"""``evaluate --learned``: fitted on one side of a split, scored on the other, the same for any number of processes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow as pa
import pyarrow.parquet as pq

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.commands import cli
from attacker_metrics.evaluation import fitting, run
from attacker_metrics.jobs.parts import FOLDER, ResumeError, UnfinishedRun
from attacker_metrics.pairs.manifest import ManifestPairs
from attacker_metrics.pairs.sources import BuiltInPairs
from attacker_metrics.pairs.split import Side, SplitError, fit_rows, sides
from attacker_metrics.reading.learned import LearnedAttackerMetric, LinearAttacker, in_fit_split, standard_learned
from attacker_metrics.reading.strongest.known_leaks import secret_filter
from attacker_metrics.scoring.similarity import MSSSIM, SquaredPearson
from attacker_metrics.scoring.suites import STANDARD_V1

SIDE, PAIRS, PEOPLE, BAD, NAN = 32, 240, 40, 3, 6
ASKED = ("--betas", "1", "--gamma", "2", "--part-size", "16", "--batch-size", "16")
LEARNED = ("--learned", "linear", "--learned", "block", "--null", "2400")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ATTACKER_METRICS_BACKEND": "torch"}


def images(row: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture behind a secret filter that only a learned attacker undoes."""
    generator = torch.Generator().manual_seed(row)
    coarse, fine = torch.rand(1, 3, 6, 6, generator=generator), torch.rand(3, SIDE, SIDE, generator=generator)
    clean = 0.8 * torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0] + 0.2 * fine
    return secret_filter(clean, generator).numpy(), clean.numpy()


def table(rows, path, head="id,clean,noisy,group"):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


def named(row: int) -> list[str]:
    return [f"pair {row}", f"clean{row}.npy", f"noisy{row}.npy", f"person {row % PEOPLE}"]


@pytest.fixture(scope="module", autouse=True)
def _torch_engine():
    """The same bits whatever the batches and threads of the processes that share the pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTACKER_METRICS_BACKEND", "torch")
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As each process of torchrun has: the numbers are then equal to the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    for row in range(PAIRS):
        noisy, clean = images(row)
        if row == NAN:
            noisy[0, 0, 0] = np.nan
        np.save(folder / f"noisy{row}.npy", noisy)
        np.save(folder / f"clean{row}.npy", clean)
    (folder / f"noisy{BAD}.npy").write_bytes(b"broken")
    return table(map(named, range(PAIRS)), folder / "pairs.csv")


def arguments(manifest, output, *options: str) -> list[str]:
    return ["evaluate", "--manifest", str(manifest), "--output", str(output), *ASKED, *options]


def summary_of(output) -> dict:
    return json.loads((output / "summary.json").read_text())


def columns_of(output) -> dict:
    return pq.read_table(output / "scores.parquet").to_pydict()


@pytest.fixture(scope="module")
def alone(manifest):
    """The outputs of one process; one pair of the fit split is unreadable and one is not finite."""
    assert in_fit_split(f"person {BAD}")
    assert in_fit_split(f"person {NAN}")
    assert cli.main(arguments(manifest, manifest.parent / "alone", *LEARNED)) == cli.SOME_FAILED
    return manifest.parent / "alone"


def assert_same(output, wanted) -> None:
    ours, theirs = columns_of(output), columns_of(wanted)
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        if name in ("id", "group", "strongest_attacker"):
            assert ours[name] == values
        else:
            np.testing.assert_allclose(np.array(ours[name], float), np.array(values, float), rtol=0, atol=1e-7)
    then, now = summary_of(wanted), summary_of(output)
    assert now["learned"] == then["learned"]
    assert {**now["null"], "anchors": {}, "rates": {}} == {**then["null"], "anchors": {}, "rates": {}}
    for rate, found in then["null"]["rates"].items():
        assert now["null"]["rates"][rate]["success"] == found["success"]
    assert pq.read_table(output / "fit_pairs.parquet") == pq.read_table(wanted / "fit_pairs.parquet")
    assert not (output / FOLDER).exists()


def test_attackers_learn_from_one_side_and_read_the_other(alone):
    scores, summary = columns_of(alone), summary_of(alone)
    fitted = [row for row in range(PAIRS) if in_fit_split(f"person {row % PEOPLE}")]
    scored = [row for row in range(PAIRS) if row not in fitted]
    assert scores["id"] == [f"pair {row}" for row in scored]
    rows = pq.read_table(alone / "fit_pairs.parquet").to_pydict()
    assert rows["id"] == [f"pair {row}" for row in fitted]
    assert {name for name, reason in zip(rows["id"], rows["fit_failure"], strict=True) if reason} == {"pair 3", "pair 6"}
    learned = summary["learned"]
    assert (learned["pairs"], learned["split"]) == (len(fitted), "hash of group")
    assert learned["failed"]["pair 6"] == "a pixel is NaN or infinite."
    assert [found["pairs"] for found in learned["attackers"].values()] == [len(fitted) - 2] * 2
    assert (summary["pairs"], summary["failed"], summary["settings"]["fit_pairs"]) == (len(scored), 0, len(fitted))

    wanted = {metric.name: metric for metric in standard_learned(["linear", "block"], betas=(1.0,))}
    for attacker in {id(metric.attacker): metric.attacker for metric in wanted.values()}.values():
        for row in fitted:
            if row not in (BAD, NAN):
                attacker.fit_update(*(torch.tensor(image)[None] for image in images(row)))
        attacker.fit_compute()
    privacy = MultiAttackerPrivacy(betas=(1.0,), gamma_values=(2.0,), extra=list(wanted.values()))
    for position in (0, 17, len(scored) - 1):
        for name, value in privacy(*(torch.tensor(image)[None] for image in images(scored[position]))).items():
            assert scores[name][position] == pytest.approx(float(value), abs=1e-6)
    assert min(scores["pearson_block"]) > 0.6
    assert max(scores["pearson_gray"]) < 0.4


def test_the_learned_attackers_compete_and_are_reported(alone):
    summary = summary_of(alone)
    assert {"linear_gray", "pearson_block"} <= set(summary["null"]["anchors"])
    success = summary["null"]["rates"]["0.01"]["success"]
    assert success["strongest"]["successes"] == summary["evaluated"]
    assert set(summary["null"]["winners"]) <= {"linear_gray", "block_gray", "pearson_linear", "pearson_block"}
    assert success["gray_clamp"]["successes"] == 0
    page = (alone / "report.html").read_text()
    assert "LinearAttacker(kernel_size=8, stride=8)" in page
    assert "how rare the strongest attacker" in page  # the drawing of the unrelated pairs
    assert any("fit_pairs.parquet" in sentence for sentence in summary["readings"])


@pytest.mark.slow
def test_a_killed_job_resumes_its_fit_and_gives_the_outputs_of_one_process(manifest, alone, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*torchrun, "attacker_metrics", *arguments(manifest, output, *LEARNED)]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not parts_of(output / FOLDER / "fit"):
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    for other in (("--fit-split", "0.4"), ("--learned", "cnn")):
        assert cli.main([*arguments(manifest, output, *LEARNED, *other), "--resume"]) == cli.BAD_USAGE
    said = capsys.readouterr().err
    assert "fit_split is 0.4, was None" in said
    assert "learned is ['linear', 'block', 'cnn'], was ['linear', 'block']" in said

    before = parts_of(output / FOLDER / "fit")
    learn, learned = fitting._learn, []
    monkeypatch.setattr(fitting, "_learn", lambda *given: (learned.append(given[2]), learn(*given))[1])
    score_part, scored = run.score_part, []

    def interrupted(*given, **settings):
        scored.append(None)
        if len(scored) > 1:
            raise KeyboardInterrupt
        return score_part(*given, **settings)

    monkeypatch.setattr(run, "score_part", interrupted)
    resume = [*arguments(manifest, output, *LEARNED), "--resume"]
    assert cli.main(resume) == cli.INTERRUPTED
    assert len(learned) + 16 * len(before) >= summary_of(alone)["learned"]["pairs"] > len(learned)  # no finished part anew
    learned.clear()
    monkeypatch.setattr(run, "score_part", score_part)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=ENVIRONMENT, timeout=240)
    assert f"(exitcode: {cli.SOME_FAILED})" in done.stderr, done.stderr
    assert_same(output, alone)


def parts_of(folder) -> list:
    return list(folder.rglob("part-*.arrow"))


def test_a_finished_fit_is_not_repeated(manifest, alone, tmp_path, monkeypatch):
    output, score_part = tmp_path / "out", run.score_part

    def interrupted(*given, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "score_part", interrupted)
    assert cli.main(arguments(manifest, output, *LEARNED)) == cli.INTERRUPTED
    assert not parts_of(output / FOLDER / "fit")
    assert len(parts_of(output / FOLDER / "fitted")) == 1  # kept, though no pair is scored
    monkeypatch.setattr(run, "score_part", score_part)
    monkeypatch.setattr(fitting, "_take_in", interrupted)
    assert cli.main([*arguments(manifest, output, *LEARNED), "--resume"]) == cli.SOME_FAILED
    assert_same(output, alone)


FEW_STEPS = """
from attacker_metrics.reading.learned import CNNAttacker, CNNAttackerMSSSIM

class Network(CNNAttackerMSSSIM):
    def __init__(self):
        super().__init__(CNNAttacker(steps=3), betas=(1.0,))
"""


def test_two_processes_have_one_network_and_tell_that_it_had_not_converged(tmp_path, manifest, monkeypatch):
    (tmp_path / "few_steps.py").write_text(FEW_STEPS)
    few = table((named(row) for row in range(8, 24)), manifest.parent / "few.csv")
    options = ("--extra", "few_steps:Network", "--null", "6")
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments(few, tmp_path / "1", *options)) == cli.OK
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*torchrun, "attacker_metrics", *arguments(few, tmp_path / "2", *options)]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT, timeout=240)
    assert_same(tmp_path / "2", tmp_path / "1")
    summary = summary_of(tmp_path / "1")
    assert summary["learned"]["attackers"]["cnn"]["converged"] is False
    assert "not_converged" in [flag["name"] for flag in summary["flags"]]
    assert "not converged" in " ".join(summary["readings"])


def test_a_column_decides_and_one_of_your_own_metrics_may_learn(manifest, tmp_path):
    rows = [[*named(row)[:3], "fit" if row < 100 else "score"] for row in range(8, 130)]
    path = table(rows, manifest.parent / "column.csv", "id,clean,noisy,split")
    extra = ("--extra", "attacker_metrics.reading.learned:LinearAttackerPearson", "--null", "0")
    assert cli.main(arguments(path, tmp_path / "out", *extra)) == cli.OK
    summary, scores = summary_of(tmp_path / "out"), columns_of(tmp_path / "out")
    assert (summary["learned"]["split"], summary["learned"]["pairs"]) == ("column split", 92)
    assert scores["id"] == [f"pair {row}" for row in range(100, 130)]
    assert set(scores["split"]) == {"score"}
    assert min(scores["pearson_linear"]) > 0.5


def status_of(asked) -> int:
    try:
        return cli.main(asked)
    except SystemExit as end:  # of words that cannot be understood
        return end.code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--learned", "linear", "--fit-split", "0"), "'0' is not a share between 0 and 1"),
        (("--learned", "linear", "--fit-split", "1"), "'1' is not a share between 0 and 1"),
        (("--learned", "linear", "--fit-split", "nan"), "'nan' is not a share between 0 and 1"),
        (("--learned", "linear", "--fit-split", "half"), "'half' is not a share between 0 and 1"),
        (("--fit-split", "0.5"), "name one, or leave it out"),
        (("--learned", "linear", "--fit-split", "0.0001"), "none is left to fit on"),
        (("--learned", "linear", "--fail-above", "cnn_gray=0.5"), "there is no component 'cnn_gray'"),
        (("--fail-above", "pearson_keyed=0.5"), "read. Pass --learned keyed."),
        (("--learned", "linear", "--fail-above", "denoise_gray=0.5"), "read. Pass --suite standard-v2."),
        (("--fail-above", "draws_spectrum_gray=0.5"), "read. Pass --learned spectrum and --draws."),
        (("--fail-above", "draws_blur_gray=0.5"), "read. Pass --draws."),
        (("--fail-above", "keyed_grey=0.5"), "strongest, read.\n"),
    ],
)
def test_mistakes_are_one_message(manifest, tmp_path, capsys, options, message):
    assert status_of(arguments(manifest, tmp_path / "out", *options)) == cli.BAD_USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_built_in_photographs_are_no_split(tmp_path, capsys):
    assert cli.main(["evaluate", "--learned", "linear", "--output", str(tmp_path / "out")]) == cli.BAD_USAGE
    assert "hidden in six ways" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Pictures that are smaller than the network's tiles."""
    folder = tmp_path_factory.mktemp("small")
    rows = []
    for row in range(120):
        clean = np.random.default_rng(row).random((3, 24, 24), np.float32)
        np.save(folder / f"clean{row}.npy", clean)
        np.save(folder / f"noisy{row}.npy", 1 - clean)
        rows.append([f"pair {row}", f"clean{row}.npy", f"noisy{row}.npy", "fit" if row < 96 else "score"])
    return table(rows, folder / "pairs.csv", "id,clean,noisy,split")


@pytest.mark.parametrize("asked", [("all",), ("linear", "cnn")])
def test_an_attacker_that_cannot_be_fitted_is_left_out_and_named(small, tmp_path, asked, capsys):
    output, options = tmp_path / "out", [part for kind in asked for part in ("--learned", kind)]
    assert cli.main(arguments(small, output, *options)) == cli.OK
    summary, scores = summary_of(output), columns_of(output)
    reason = summary["learned"]["refused"]["cnn"]
    assert list(summary["learned"]["refused"]) == ["cnn"]
    assert reason.startswith("CNNAttacker saw no finite pair")
    assert "96 of 96 pairs of the fit split could not be used, such as pair 0: cnn: images must have sides of" in reason
    assert f"networks (cnn could not be fitted: {reason})" in summary["not_tried"]
    assert sum("networks" in entry for entry in summary["not_tried"]) == 1
    assert "linear" in summary["learned"]["attackers"]
    assert "cnn" not in summary["learned"]["attackers"]
    assert summary["learned"]["failed"] == {}  # those that were fitted have learned from all of them
    assert min(scores["pearson_linear"]) > 0.99
    assert not {"cnn_gray", "pearson_cnn"} & {*scores, *summary["components"], *summary["null"]["anchors"]}
    assert summary["read"]["rate"] > 0.9
    assert reason in " ".join(summary["readings"])
    assert "CNNAttacker saw no finite pair" in (output / "report.html").read_text()


def test_a_limit_on_an_attacker_that_could_not_be_fitted_is_not_kept(small, tmp_path):
    output = tmp_path / "out"
    limits = ("--fail-above", "pearson_cnn=0.9", "--fail-above", "linear_gray=1")
    assert cli.main(arguments(small, output, "--learned", "all", *limits)) == cli.GATE_EXCEEDED
    refused, kept = summary_of(output)["gates"]
    assert (refused["value"], refused["exceeded"], kept["exceeded"]) == (None, True, False)
    assert "cnn could not be fitted: CNNAttacker saw no finite pair" in refused["unsupported"]


def test_all_may_come_to_none_but_attackers_that_were_named_may_not(small, tmp_path, capsys):
    for row in range(96):
        np.save(tmp_path / f"nothing{row}.npy", np.full((3, 24, 24), np.nan, np.float32))
    rows = list(csv.reader(small.read_text().splitlines()))[1:]
    rows = [
        [name, small.parent / clean, tmp_path / f"nothing{row}.npy" if side == "fit" else small.parent / noisy, side]
        for row, (name, clean, noisy, side) in enumerate(rows)
    ]
    path = table(rows, tmp_path / "pairs.csv", "id,clean,noisy,split")
    assert cli.main(arguments(path, tmp_path / "out", "--learned", "all")) == cli.SOME_FAILED
    summary = summary_of(tmp_path / "out")
    assert list(summary["learned"]["refused"]) == ["linear", "block", "cnn", "keyed", "spectrum"]
    assert summary["learned"]["attackers"] == {}
    assert summary["learned"]["failed"] == {f"pair {row}": "a pixel is NaN or infinite." for row in range(96)}
    assert sum("could not be fitted" in entry for entry in summary["not_tried"]) == 5
    assert summary["read"]["n"] == 24
    capsys.readouterr()
    options = ("--learned", "linear", "--learned", "keyed")
    assert cli.main(arguments(path, tmp_path / "none", *options)) == cli.BAD_USAGE
    said = capsys.readouterr().err
    assert "--learned linear: " in said
    assert "--learned keyed: the attacker saw no finite pair" in said
    assert not (tmp_path / "none").exists()


def test_a_resumed_run_remembers_who_could_not_be_fitted(small, tmp_path, monkeypatch):
    output, score = tmp_path / "out", run.score_part

    def killed(*given, **named):
        raise KeyboardInterrupt

    options = ("--learned", "linear", "--learned", "cnn", "--null", "0")
    monkeypatch.setattr(run, "score_part", killed)
    assert cli.main(arguments(small, output, *options)) == cli.INTERRUPTED
    monkeypatch.setattr(run, "score_part", score)
    monkeypatch.setattr(fitting, "_solve", killed)  # it is not done again
    assert cli.main(arguments(small, output, *options, "--resume")) == cli.OK
    assert list(summary_of(output)["learned"]["refused"]) == ["cnn"]


def test_attackers_are_named_by_what_they_are_not_by_letters():
    linear = LinearAttacker()
    own = [
        LearnedAttackerMetric("pearson_first", linear, SquaredPearson()),
        LearnedAttackerMetric("first_gray", LinearAttacker(8, 8), MSSSIM()),
        LearnedAttackerMetric("again", linear, MSSSIM()),
        LearnedAttackerMetric("one_of_two", LinearAttacker(3), MSSSIM(), kind="linear"),
        *standard_learned(["linear", "keyed"]),
    ]
    found = fitting.fittable(MultiAttackerPrivacy(extra=own))
    assert list(found) == ["pearson_first", "first_gray", "linear", "linear_gray", "keyed"]
    assert len({id(attacker) for attacker in found.values()}) == 5


def test_pairs_that_are_too_small_to_fit_on_are_named_and_nothing_is_left(small, tmp_path, capsys):
    output = tmp_path / "out"
    assert cli.main(arguments(small, output, "--learned", "cnn")) == cli.BAD_USAGE
    said = capsys.readouterr().err
    assert "--learned cnn: CNNAttacker saw no finite pair" in said
    assert "images must have sides of at least 32 pixels to fit on, got (24, 24)" in said
    assert "nothing was written" in said
    assert not output.exists()


@pytest.mark.parametrize(
    ("rows", "head", "share", "message"),
    [
        ([("a", "x", "y", "train"), ("b", "z", "y", "fit")], "split", None, r"must hold fit or score, but row 1: 'train'\."),
        (
            [("a", "x", "y", "fit"), ("b", "x", "y", "score")],
            "split",
            None,
            r"1 values of clean are on both .* 'x' \(row 1 is",
        ),
        (
            [("a", "d/x", "y", "fit"), ("b", "./e/../d//x", "y", "score")],  # one file, spelt in two ways
            "split",
            None,
            r"1 values of clean are on both .* 'd/x' \(row 1 is",
        ),
        (
            [("a", "x", "y", "fit"), ("b", "z", "y", "fit")],
            "split",
            None,
            "all 2 pairs are for fitting, none is left to score",
        ),
        ([("a", "x", "y", "fit"), ("b", "z", "y", "score")], "split", 0.5, "leave --fit-split out"),
        ([("a", "x", "y", "1"), ("b", "x", "y", "0")], "group", 0.5, "1 values of clean are on both sides"),
    ],
)
def test_splits_that_cannot_be_are_named(tmp_path, rows, head, share, message):
    assert in_fit_split("1") != in_fit_split("0")
    source = ManifestPairs(str(table(rows, tmp_path / "pairs.csv", f"id,clean,noisy,{head}")))
    with pytest.raises(SplitError, match=message):
        fit_rows(source, 2, share)


class Cells:
    """A source whose rows are given."""

    def __init__(self, **columns):
        self.columns = columns

    def rows(self, start, stop):
        return pa.table({name: cells[start:stop] for name, cells in self.columns.items()})


def test_what_is_on_both_sides_is_found_however_far_apart_and_named_by_its_rows():
    count = 3 * 4096 + 5
    side = ["fit" if i % 2 else "score" for i in range(count)]
    clean = [f"c{i}" for i in range(count)]
    fit, rule = fit_rows(Cells(id=clean, clean=clean, split=side), count, None)
    assert (rule, fit.tolist()) == ("column split", [bool(i % 2) for i in range(count)])
    far = [*clean[:-1], clean[1]]  # row 2 is for fitting, the last is scored
    with pytest.raises(
        SplitError, match=rf"but 1 values of clean .* 'c1' \(row 2 is for fitting, row {count} is scored\)\. Put"
    ):
        fit_rows(Cells(id=clean, clean=far, split=side), count, None)
    with pytest.raises(SplitError, match=r"but 6 values of group .* and 1 more\. Put all pairs of one group"):
        fit_rows(Cells(id=clean, group=[f"g{i // 2}" for i in range(12)] + clean[12:], split=side), count, None)
    with pytest.raises(SplitError, match=r"but 5 values of group .*scored\)\. Put all pairs of one group"):
        fit_rows(Cells(id=clean, group=[f"g{i // 2}" for i in range(10)] + clean[10:], split=side), count, None)
    for empty in ("", None):  # no file, no group: shared by nobody
        fit_rows(Cells(id=clean, clean=[empty] * count, split=side), count, None)


def test_cells_of_the_column_that_are_neither_are_counted_from_the_first_row_on():
    side = ["fit", "score", "Fit", "", None, "train", "test", "x"]
    cells = Cells(id=list("abcdefgh"), split=side)
    with pytest.raises(SplitError, match=r"row 3: 'Fit'; row 4: ''; row 5: ''; row 6: 'train'; row 7: 'test'; \.\.\.\."):
        fit_rows(cells, 8, None)
    with pytest.raises(SplitError, match=r"row 3: 'x'\."):
        fit_rows(Cells(id=list("abc"), split=["fit", "score", "x"]), 3, None)
    late = ["fit"] * 5000
    late[4999] = "x"
    with pytest.raises(SplitError, match=r"row 5000: 'x'\."):
        fit_rows(Cells(id=list(map(str, range(5000))), split=late), 5000, None)
    with pytest.raises(SplitError, match="all 2 pairs are for scoring, none is left to fit on"):
        fit_rows(Cells(id=list("ab"), split=["score", "score"]), 2, None)


@pytest.mark.parametrize(
    ("columns", "known"),
    [
        ({"group": "g", "clean": "c"}, "group"),
        ({"group": None, "clean": "c"}, "clean"),
        ({"group": "", "clean": "c"}, "clean"),
        ({"clean": None}, "id"),
        ({}, "id"),
    ],
)
def test_the_first_that_is_known_of_group_clean_and_id_decides_and_half_is_the_default(columns, known):
    cells = {name: [letter and f"{letter}{i // 2}" for i in range(400)] for name, letter in columns.items()}
    cells["id"] = [f"id{i}" for i in range(400)]
    fit, rule = fit_rows(Cells(**cells), 400, None)
    assert rule == f"hash of {known}"
    assert fit.tolist() == [in_fit_split(key, share=0.5) for key in cells[known]]


def test_a_group_is_on_one_side_by_its_name(tmp_path):
    path = table(([f"{i}", f"c{i}", "n", f"g{i // 3}"] for i in range(600)), tmp_path / "pairs.csv")
    fit, rule = fit_rows(ManifestPairs(str(path)), 600, 0.3)
    assert rule == "hash of group"
    assert fit.tolist() == [in_fit_split(f"g{i // 3}", share=0.3) for i in range(600)]
    assert 0.2 < fit.mean() < 0.4


class Numbers:
    """A source whose rows are their numbers, and which counts what is read at once."""

    groups, unmatched, largest = None, (), 0

    def rows(self, start, stop):
        self.largest = max(self.largest, stop - start)
        return pa.table({"id": [str(i) for i in range(start, stop)]})


def test_a_side_reads_its_rows_and_no_long_run_of_the_others():
    fit = np.zeros(100_000, bool)
    fit[[*range(0, 50, 3), 70_000, 70_001, 99_999]] = True
    source = Numbers()
    to_fit, to_score = sides(source, fit)
    assert to_fit.rows(0, 20)["id"].to_pylist() == [str(i) for i in np.flatnonzero(fit)]
    assert source.largest < 5000
    assert to_fit.rows(3, 3)["id"].to_pylist() == []
    assert to_score.check()[0] + to_fit.check()[0] == 100_000
    assert isinstance(to_score, Side)
    assert to_score.rows(30, 40)["id"].to_pylist() == [str(i) for i in np.flatnonzero(~fit)[30:40]]
    assert to_score.groups is None


def test_a_side_loads_its_pairs_under_its_own_numbers():
    source = BuiltInPairs()
    _, to_score = sides(source, np.arange(24) % 3 == 0)
    assert to_score.groups == [group for i, group in enumerate(source.groups) if i % 3]
    found, wanted = to_score.load(2, {}), source.load(4, {})
    assert found.index == 2
    assert torch.equal(found.noisy, wanted.noisy)
    assert torch.equal(found.clean, wanted.clean)


def test_the_built_in_settings_of_the_standard_attackers():
    linear, block, *_ = (metric.attacker for metric in standard_learned(["linear", "block"]))
    assert repr(linear) == repr(LinearAttacker(5))
    assert repr(block) == repr(LinearAttacker(8, 8))
    assert tuple(metric.name for metric in standard_learned()) == STANDARD_V1.learned
    with pytest.raises(ValueError, match="kinds must be among linear, block, cnn, keyed, spectrum, got 'gan'"):
        standard_learned(["gan"])


@pytest.mark.parametrize("forged", [b"no state", None, {"linear": {}}, {"linear": None}, {"other": {}}, [1]])
def test_a_fit_of_a_stranger_with_a_right_digest_is_refused_in_words(tmp_path, forged):
    content = io.BytesIO()
    torch.save(forged, content)
    cell = forged if isinstance(forged, bytes) else content.getvalue()
    rows = {"id": pa.array(["a"]), "fit_failure": pa.array([None], pa.string())}
    fitted = UnfinishedRun(tmp_path)
    fitted.begin({}, 1, 1, 1, resume=False)
    fitted.write(0, pa.table({**rows, fitting._STATE: pa.array([cell], pa.large_binary())}))
    attackers = {"linear": standard_learned(["linear"])[0].attacker}
    with pytest.raises(ResumeError, match="is no fit of this run"):
        fitting._load(attackers, fitted)
