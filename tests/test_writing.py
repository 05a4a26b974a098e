"""What the commands write: nothing of the user's is lost, whatever paths are called, and nothing half-written stays."""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attacker_metrics.commands import cli
from attacker_metrics.files.drawing import drawn, plain
from attacker_metrics.files.lock import InUseError, held
from attacker_metrics.files.spreadsheet import escaped, unescaped
from attacker_metrics.files.terminal import json_escaped, printable
from attacker_metrics.files.writing import OutputError, check_outputs, write_whole
from attacker_metrics.jobs.parts import FOLDER, LOCK, ResumeError, UnfinishedRun

SMALL = ["--betas", "1"]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8))


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("a.png", "b.png")):
        picture(place).save(name)
    return tmp_path


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, side in enumerate(("clean", "noisy")):
        (tmp_path / side).mkdir()
        for index in range(6):
            picture(10 * place + index).save(tmp_path / side / f"{index}.png")
    return tmp_path


def evaluate(*options: str) -> int:
    return cli.main(["evaluate", "--clean", "clean", "--noisy", "noisy", "--output", "out", *SMALL, *options])


def views(output: str, *options: str) -> int:
    return cli.main(["views", "a.png", "b.png", "--output", output, *SMALL, *options])


@pytest.mark.parametrize("spelling", ["a.png", "./b.png", "hard.png", "soft.png", "deep/../a.png"])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_an_input_is_never_written_over_whatever_its_path_is_spelled_like(pair, capsys, spelling, options):
    (pair / "deep").mkdir()
    (pair / "hard.png").hardlink_to(pair / "a.png")
    (pair / "soft.png").symlink_to(pair / "b.png")
    before = {path.name: path.read_bytes() for path in pair.glob("*.png")}
    assert views(spelling, *options) == cli.BAD_USAGE
    assert "is an input" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in pair.glob("*.png")} == before


def test_a_foreign_file_needs_overwrite_and_our_own_does_not(pair, capsys):
    picture(5).save("mine.png")
    before = (pair / "mine.png").read_bytes()
    assert views("mine.png") == cli.BAD_USAGE
    assert "--overwrite" in capsys.readouterr().err
    assert (pair / "mine.png").read_bytes() == before
    assert views("mine.png", "--overwrite") == 0
    assert (pair / "mine.png").read_bytes() != before
    assert views("mine.png") == 0
    assert sorted(path.name for path in pair.iterdir()) == ["a.png", "b.png", "mine.png"]


@pytest.mark.parametrize("name", ["grid.xyz", "grid", "grid.jpg", "grid.png.txt"])
def test_an_unknown_suffix_is_refused_with_those_there_are(pair, capsys, name):
    assert views(name) == cli.BAD_USAGE
    assert "must end in .png" in capsys.readouterr().err
    assert not (pair / name).exists()


@pytest.mark.parametrize("name", ["summary.json", "scores.parquet", "report.html"])
def test_evaluate_leaves_a_folder_alone_that_holds_a_file_of_the_users(folders, capsys, name):
    (folders / "out").mkdir()
    (folders / "out" / name).write_text('{"mine": 1}')
    assert evaluate() == cli.BAD_USAGE
    assert name in capsys.readouterr().err
    assert [path.name for path in (folders / "out").iterdir()] == [name]
    assert (folders / "out" / name).read_text() == '{"mine": 1}'
    assert evaluate("--overwrite") == 0
    assert evaluate() == 0


def test_a_report_of_the_release_that_marked_nothing_may_be_written_anew(folders):
    assert evaluate() == 0
    summary = json.loads((folders / "out" / "summary.json").read_text())
    del summary["package_digest"]
    (folders / "out" / "summary.json").write_text(json.dumps(summary))
    (folders / "out" / "report.html").write_text("<title>attacker_metrics report</title>")
    table = pq.read_table(folders / "out" / "scores.parquet")
    pq.write_table(table.replace_schema_metadata(None), folders / "out" / "scores.parquet")
    assert evaluate() == 0


def test_a_manifest_among_the_outputs_and_a_folder_of_inputs_as_output_are_refused(folders, capsys):
    assert evaluate() == 0
    rows = {"id": ["1"], "clean": ["../clean/1.png"], "noisy": ["../noisy/1.png"]}
    pq.write_table(pa.table(rows), "out/scores.parquet")
    assert cli.main(["evaluate", "--manifest", "out/scores.parquet", "--output", "out", "--overwrite", *SMALL]) == 2
    assert cli.main(["evaluate", "--clean", "clean", "--noisy", "noisy", "--output", "clean", *SMALL]) == 2
    assert "folder of inputs" in capsys.readouterr().err
    assert pq.read_table("out/scores.parquet").column_names == ["id", "clean", "noisy"]
    assert sorted(path.suffix for path in (folders / "clean").iterdir()) == [".png"] * 6


def test_compare_writes_over_nothing_of_the_users(folders, capsys):
    for name in ("one", "two"):
        assert cli.main(["evaluate", "--clean", "clean", "--noisy", "noisy", "--output", name, *SMALL]) == 0
    (folders / "out").mkdir()
    (folders / "out" / "comparison.csv").write_text("run,utility\none,1\ntwo,2\n")
    command = ["compare", "one", "two", "--output", "out"]
    assert cli.main(command) == cli.BAD_USAGE
    assert cli.main([*command, "--utility", "out/comparison.csv", "--overwrite"]) == cli.BAD_USAGE
    assert "is an input" in capsys.readouterr().err
    assert (folders / "out" / "comparison.csv").read_text().startswith("run,utility")
    assert cli.main([*command, "--overwrite"]) == 0
    assert cli.main(command) == 0


def test_a_file_keeps_its_mode_a_new_one_has_the_masks_and_a_link_stays_one(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "link").symlink_to("old")
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "link", b"new")
        write_whole(tmp_path / "fresh", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_bytes() == b"new"
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o640
    with pytest.raises(OutputError, match="no regular file"):
        check_outputs([tmp_path])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "link", "old"]


def test_a_second_job_learns_who_holds_the_folder_and_a_killed_one_blocks_nobody(tmp_path):
    path = tmp_path / "new" / "lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom attacker_metrics.files.lock import held\n"
        "with held(Path(sys.argv[1]), 'here'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "held\n"
    with pytest.raises(InUseError, match=rf"at work in here \(process {job.pid} on .+, since \d{{4}}-"), held(path, "here"):
        pass
    job.send_signal(signal.SIGKILL)
    job.wait()
    job.stdout.close()
    assert path.exists()
    with held(path, "here"), pytest.raises(InUseError), held(path, "here"):
        pass
    assert not path.exists()


def test_of_evaluations_that_start_together_in_one_folder_one_does_the_work(folders, capsys):
    with held(folders / "out" / LOCK, "out"):
        assert evaluate() == cli.BAD_USAGE
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    command = [sys.executable, "-m", "attacker_metrics", "evaluate", "--clean", "clean", "--noisy", "noisy", *SMALL]
    jobs = [subprocess.Popen([*command, "--output", "out", "--resume"], stderr=subprocess.PIPE) for _ in range(2)]
    said = [job.communicate()[1].decode() for job in jobs]
    statuses = [job.returncode for job in jobs]
    assert 0 in statuses
    assert all("at work in out" in text for text, status in zip(said, statuses, strict=True) if status)
    assert sorted(path.name for path in (folders / "out").iterdir()) == ["report.html", "scores.parquet", "summary.json"]


def test_parts_of_another_run_are_not_mixed_in(tmp_path):
    runs = [UnfinishedRun(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        run.begin({}, 2, 1, 1, resume=False)
        run.write(0, pa.table({"run": [run.identity]}))
    (stranger,) = runs[0].folder.glob("part-*")
    (own,) = runs[1].folder.glob("part-*")
    own.unlink()
    stranger.rename(runs[1].folder / stranger.name)
    assert UnfinishedRun(tmp_path / "two").begin({}, 2, 1, 1, resume=True).remaining == [0, 1]


def test_parts_of_other_code_and_of_an_earlier_release_are_refused_in_words(tmp_path):
    run = UnfinishedRun(tmp_path)
    run.begin({"package_digest": "a"}, 2, 1, 1, resume=False)
    with pytest.raises(ResumeError, match="other code of attacker_metrics"):
        UnfinishedRun(tmp_path).begin({"package_digest": "b"}, 2, 1, 1, resume=True)
    (run.folder / "run.json").write_text(json.dumps({"part_size": 1, "settings": {"spec_version": "1"}}))
    with pytest.raises(ResumeError, match=r"saved by an earlier release.*delete"):
        UnfinishedRun(tmp_path).begin({}, 2, 1, 1, resume=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"3", b"{", b"\xff\xfe", b"[" * 100_000, b'{"what": 1}', b'{"part_size": "1", "settings": []}'],
)
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_broken_settings_file_is_a_clear_error_and_is_kept(folders, capsys, content, resume):
    (folders / "out" / FOLDER).mkdir(parents=True)
    (folders / "out" / FOLDER / "run.json").write_bytes(content)
    assert evaluate(*resume) == cli.BAD_USAGE
    assert "run.json" in capsys.readouterr().err
    assert (folders / "out" / FOLDER / "run.json").read_bytes() == content


def test_what_the_user_keeps_in_a_folder_called_unfinished_stays(folders, capsys):
    (folders / "out" / FOLDER).mkdir(parents=True)
    (folders / "out" / FOLDER / "thesis.txt").write_text("mine")
    assert evaluate() == cli.BAD_USAGE
    assert "thesis.txt" in capsys.readouterr().err
    (folders / "out" / FOLDER / "thesis.txt").rename(folders / "thesis.txt")
    run = UnfinishedRun(folders / "out")
    run.begin({}, 2, 1, 1, resume=False)
    (run.folder / "thesis.txt").write_text("mine")
    run.write(0, pa.table({"a": [1]}))
    UnfinishedRun(folders / "out").begin({}, 2, 1, 1, resume=True)
    run.remove()
    assert [path.name for path in run.folder.iterdir()] == ["thesis.txt"]
    (run.folder / "thesis.txt").unlink()
    run.folder.rmdir()
    run.folder.write_text("a file")
    assert evaluate() == cli.BAD_USAGE
    assert run.folder.read_text() == "a file"


def test_an_unexpected_error_has_a_status_and_words_of_its_own(folders, monkeypatch, capsys):
    def broken(*_arguments):
        raise RuntimeError("odd \x1b[31m")

    monkeypatch.setattr("attacker_metrics.report.outputs.as_html", broken)
    assert evaluate() == cli.BUG == 70
    errors = capsys.readouterr().err
    assert "this is a bug, nothing was lost: RuntimeError: odd \\x1b[31m" in errors
    assert "1 finished parts are kept" in errors
    assert "Traceback" not in errors
    monkeypatch.setenv("ATTACKER_METRICS_TRACEBACK", "1")
    assert evaluate("--resume") == cli.BUG
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.undo()
    os.chdir(folders)
    assert evaluate("--resume") == 0


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a POSIX shell does")
@pytest.mark.parametrize("shell", ["{} | true", "{} >&-", "{} 2>&- >&-"])
def test_a_reader_that_leaves_costs_no_report(folders, shell):
    command = f"{sys.executable} -m attacker_metrics evaluate --clean clean --noisy noisy --output out --betas 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell.format(command)}"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (folders / "out" / "report.html").exists()
    assert not (folders / "out" / FOLDER).exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that never answers")
def test_a_signal_ends_the_process_even_if_a_thread_hangs(folders):
    code = (
        "import sys, threading, time\nfrom attacker_metrics import __main__\nfrom attacker_metrics.evaluation import run\n"
        "def hang(*_arguments, **_options):\n"
        "    threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "    print('hangs', flush=True)\n    time.sleep(600)\n"
        "run.load_ahead = hang\nsys.exit(__main__.main())"
    )
    arguments = ["evaluate", "--clean", "clean", "--noisy", "noisy", "--output", "out", *SMALL]
    job = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert job.stdout.readline() == b"hangs\n"
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=60)  # Python itself would wait ten minutes
    assert job.returncode == cli.TERMINATED
    assert b"interrupted; nothing was written" in errors


NAMES = ["$x$_^{", "a\\b$", "line\nbreak", "\u202eevil", "=1+1", "n" * 200, "<b>&", "\x1b[2J", "\u4e2d\u6587"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_drawn_as_it_is(name):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(plain(name))
    assert drawn(figure, "png").startswith(b"\x89PNG")
    assert len(plain("n" * 300)) < 100


def test_odd_file_names_go_through_evaluate_views_and_compare(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    odd = "pay $x^2_ $ or {"
    for place, side in enumerate(("clean", "noisy")):
        (tmp_path / side).mkdir()
        for number in range(3):
            picture(10 * place + number).save(tmp_path / side / f"{odd}{number}\x1b[31m.png")
    for name in ("a $1$", "b_$"):
        arguments = ["evaluate", "--clean", "clean", "--noisy", "noisy", "--output", name, *SMALL, "--gallery", "2"]
        assert cli.main([*arguments, "--fail-above", "pearson=0"]) == cli.GATE_EXCEEDED
    files = [str(next((tmp_path / side).iterdir())) for side in ("clean", "noisy")]
    assert cli.main(["views", *files, "--output", "grid.png", *SMALL]) == 0
    assert cli.main(["compare", "a $1$", "b_$", "--output", "comparison"]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\\x1b[31m" in captured.err
    assert r"a \$1\$" in (tmp_path / "comparison" / "comparison.tex").read_text()


@given(st.text(st.sampled_from("=+-@\t\r'1.e a\u202e"), max_size=6))
def test_cells_are_read_back_as_they_were_and_none_is_a_formula(text):
    assert unescaped(escaped(text)) == text
    cell = escaped(text)
    try:
        float(cell)
    except ValueError:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_stay_numbers_and_printed_text_commands_nothing():
    assert [escaped(value) for value in (-0.5, "-0.5", "+3", -1)] == [-0.5, "-0.5", "+3", -1]
    assert printable("a\x1b]0;x\x07\x9b\u202e\ud800") == "a\\x1b]0;x\\x07\\x9b\\u202e\\ud800"
    assert json.loads(json_escaped(json.dumps({"a": "\x9b\u202e\U000e0041"}, ensure_ascii=False))) == {
        "a": "\x9b\u202e\U000e0041"
    }


def test_a_table_of_formulas_is_read_back(tmp_path):
    from attacker_metrics.faithfulness.tables import read_table

    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], [escaped("=1+1"), escaped("-2")]])
    assert "'=1+1" in (tmp_path / "t.csv").read_text()
    assert read_table(tmp_path / "t.csv") == {"a": ["=1+1"], "b": ["-2"]}


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (["ms_ssim=30"], r"ms_ssim lies in [0, 1]"),
        (["pearson_blur=-0.1"], r"pearson_blur lies in [0, 1]"),
        (["ms_ssim=0.3", "ms_ssim=0.5"], "two limits on one statistic"),
        (["strongest=0.5"], "pass --null or --suite"),
        (["read=0.05"], "pass --null or --suite"),
        (["linear_gray=0.5"], "Pass --learned linear"),
    ],
)
def test_a_limit_that_cannot_close_is_refused_by_name(folders, capsys, gates, message):
    assert evaluate(*(word for gate in gates for word in ("--fail-above", gate))) == cli.BAD_USAGE
    assert message in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_read_is_one_rate(folders, capsys):
    assert evaluate("--null", "20", "--fail-above", "read=0.1@p95") == cli.BAD_USAGE
    assert "read is one rate" in capsys.readouterr().err


def test_what_cannot_be_judged_counts_as_exceeded(folders, capsys):
    for gate in ("read=1", "ms_ssim=1@p95"):
        assert evaluate("--null", "20", "--fail-above", gate) == cli.GATE_EXCEEDED
        assert "it cannot be judged" in capsys.readouterr().err
    assert evaluate("--null", "20", "--fail-above", "strongest=1@max") == 0
    assert evaluate("--null", "20", "--fail-above", "strongest=0@mean") == cli.GATE_EXCEEDED


def test_a_mean_has_one_interval_and_no_p95_without_support(folders):
    assert evaluate() == 0
    summary = json.loads((folders / "out" / "summary.json").read_text())
    for name, found in summary["components"].items():
        mean = summary["tails"][name]["mean"]
        assert found["ci95"] == [mean["low"], mean["high"]]
        assert found["p95"] is None
        assert found["refused"]["p95"] == summary["tails"][name]["refused"]["p95"]


def test_a_column_of_a_manifest_is_read_as_its_cells_are():
    from attacker_metrics.files.spreadsheet import unescaped_column

    texts = ["=a", "'=a", "''=a", "'a", "-1", "'-1", "\t", "", "\uff1da", None, "a'=b"]
    cells = [text if text is None else escaped(text) for text in texts]
    assert unescaped_column(pa.array(cells)).to_pylist() == texts


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("given", ["folders", "manifest", "draws", "url"])
def test_a_picture_that_is_read_is_no_output_even_with_overwrite(folders, capsys, given, link):
    """A report's place may be a link to a picture that a table names."""
    clean, noisy = (next((folders / side).glob("*.png")) for side in ("clean", "noisy"))
    (folders / "out").mkdir()
    getattr(folders / "out" / "report.html", link)(noisy)
    places = {"draws": f"{noisy};{noisy}", "url": f"file://{noisy}"}
    (folders / "m.csv").write_text(f"id,clean,noisy\na,{clean},{places.get(given, noisy)}\n")
    options = ["--clean", "clean", "--noisy", "noisy"] if given == "folders" else ["--manifest", "m.csv"]
    options += ["--draws", "2"] if given == "draws" else []
    before = noisy.read_bytes()
    assert cli.main(["evaluate", *options, "--output", "out", "--overwrite", *SMALL]) == cli.BAD_USAGE
    assert "is an input" in capsys.readouterr().err
    assert noisy.read_bytes() == before


def test_a_manifest_that_is_given_as_a_url_is_an_input_too(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="is an input"):
        check_outputs([tmp_path / "b"], inputs=[f"FILE://{tmp_path}/a"], overwrite=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that never answers")
@pytest.mark.parametrize("name", ["summary.json", "report.html"])
def test_a_pipe_in_the_place_of_an_output_is_told_and_never_waited_for(folders, capsys, name):
    (folders / "out").mkdir()
    os.mkfifo(folders / "out" / name)
    assert cli.main(["evaluate", "--clean", "clean", "--noisy", "noisy", "--output", "out", *SMALL]) == cli.BAD_USAGE
    assert f"{name} exists and is no regular file" in capsys.readouterr().err


def test_a_name_commands_no_terminal_out_of_a_report(folders):
    clean, noisy = (next((folders / side).glob("*.png")) for side in ("clean", "noisy"))
    (folders / "m.csv").write_text(f"id,clean,noisy\na\x1b[31m\x9b\u202eb,{clean},{noisy}\n", "utf-8")
    assert cli.main(["evaluate", "--manifest", "m.csv", "--output", "out", *SMALL]) == cli.OK
    page = (folders / "out" / "report.html").read_text("utf-8")
    assert r"a\u001b[31m\u009b\u202eb" in page
    assert not {"\x1b", "\x9b", "\u202e"} & set(page)
