"""What release 0.1 left on a disk: finished runs are compared, what is unfinished is refused or done again, in words.

``data/release_0.1.zip`` was made by release 0.1: a finished run and an interrupted one, on eight crops of a photograph, and
the records and classifiers of a study.
"""

import shutil
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="needs the cli extra")

from attacker_metrics.commands.cli import main

STORED = Path(__file__).parent / "data" / "release_0.1.zip"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with zipfile.ZipFile(STORED) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def evaluate(*options):
    return main(["evaluate", "--clean", "clean", "--noisy", "noisy", "--betas", "0.5", "0.5", *options])


def test_finished_runs_are_compared_with_each_other_and_not_with_todays(folder, capsys):
    before = content(folder / "finished")
    shutil.copytree("finished", "copy")
    assert main(["compare", "finished", "copy", "--output", "alike"]) == 0
    assert "the same scores on every pair" in capsys.readouterr().out
    assert evaluate("--output", "now") == 0
    capsys.readouterr()
    assert main(["compare", "finished", "now", "--output", "unlike"]) == 2
    assert "spec_version differs: 2 in finished, 3 in now" in capsys.readouterr().err
    assert content(folder / "finished") == before


def test_parts_of_other_code_are_not_continued_and_stay(folder, capsys):
    before = content(folder / "stopped")
    assert evaluate("--part-size", "3", "--output", "stopped", "--resume") == 2
    told = capsys.readouterr().err
    assert "made by other code of attacker_metrics" in told
    assert "delete stopped/.unfinished to start over" in told
    assert content(folder / "stopped") == before


def test_a_study_is_done_again_step_by_step_and_then_stands(folder, capsys):
    assert main(["study", "report", "study.yaml", "--output", "study"]) == 2
    assert "train data has to be done first (changed: this library's code)" in capsys.readouterr().err
    assert main(["study", "train", "study.yaml", "--output", "study"]) == 0
    again = capsys.readouterr().out
    assert again.count("done again: changed: this library's code") == 3
    assert main(["study", "train", "study.yaml", "--output", "study"]) == 0
    assert "train: 3 done before, skipped" in capsys.readouterr().out
