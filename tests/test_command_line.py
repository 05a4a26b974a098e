"""What every command has in common."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="needs the cli extra")
from attacker_metrics import _names
from attacker_metrics._options import Affects, affected_by, recorded, settings_that_matter
from attacker_metrics.commands import cli
from attacker_metrics.commands.parsing import parsed
from attacker_metrics.evaluation.gates import Gate
from attacker_metrics.evaluation.options import EvaluateOptions, Found

COMMANDS = ("evaluate", "views", "compare", "faithfulness", "semsim", "annotate", "study", "zoo", "selftest")
PARTS = (
    "semsim train",
    "semsim score",
    "zoo list",
    "zoo show",
    "zoo apply",
    "zoo compare",
    "study config",
    "study run",
    "study report",
)
HEAVY = {
    "torch",
    "torchmetrics",
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "pyarrow",
    "PIL",
    "lightning",
    "jinja2",
    "fsspec",
}
NONE: list[str] = []


def options_of(*words: str) -> EvaluateOptions:
    return parsed(cli._application("evaluate"), ["evaluate", *words]).args[0]


@pytest.mark.parametrize("command", ["", *COMMANDS, *PARTS])
def test_help_is_printed_whole(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: attacker-metrics {command}".rstrip())
    assert "%%" not in text
    assert "--help" in text


def test_help_lists_the_commands_in_their_order_and_the_options_with_their_defaults(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    lines = [line.strip("│ ").split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line in COMMANDS] == list(cli.COMMANDS)
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "(0.5, 2.0)",
        "[default: 16]",
        "choices: standard-v1",
        "Examples:",
        "--fail-above read=0.05",
        "Exit status",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        *(([*command.split(), "--help"], 0) for command in (*COMMANDS, *PARTS)),
        (NONE, 2),
        (["evaluat"], 2),
        (["evaluate", "--gamma", "two"], 2),
        (["evaluate", "--batch", "0"], 2),
        (["views", "a.png"], 2),
        (["zoo", "apply", "mosaic"], 2),
        (["compare", "--nonsense"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_help_version_and_mistakes_are_told_without_the_library(words, status):
    code = (
        "import sys; from attacker_metrics.__main__ import main\n"
        "try:\n    status = main()\n"
        "except SystemExit as end:\n    status = end.code\n"
        "print('imported:', *{name.split('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    said, _, imported = done.stderr.rpartition("imported:")
    assert set(imported.split()) & HEAVY == set()
    assert said.startswith("attacker-metrics: ") == (status == 2)
    assert bool(done.stdout) == (status == 0)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (NONE, {}),
        (["--gamma", "0.5", "2", "--gamma=3,4", "--betas", "1"], {"gamma": (0.5, 2.0, 3.0, 4.0), "betas": (1.0,)}),
        (["--batch-size", "3", "--batch-size=4", "--json", "--json"], {"batch_size": 4, "json": True}),
        (["--outp", "a", "--man=s3://b/c.csv"], {"output": Path("a"), "manifest": "s3://b/c.csv"}),
        (
            ["--manifest", "a/b.csv", "--extra", "m:A", "--extra", "m:B"],
            {"manifest": Path("a/b.csv"), "extra": ("m:A", "m:B")},
        ),
        (["--learned", "cnn", "--learned", "linear"], {"learned": ("linear", "cnn")}),
        (["--learned", "all"], {"learned": ("linear", "block", "cnn", "keyed", "spectrum")}),
        (
            ["--fail-above", "read=.05", "--fail-above=ms_ssim=1@max"],
            {"fail_above": (Gate("read", 0.05), Gate("ms_ssim", 1.0, "max"))},
        ),
        (["--clean", "@file", "--noisy", "b"], {"clean": Path("@file"), "noisy": Path("b")}),
        (["--gamma", "-1", "--null", "0"], {"gamma": (-1.0,), "null": 0}),
    ],
)
def test_words_become_options(words, options):
    assert options_of(*words) == EvaluateOptions(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate --o x", "--o could be --orientation or --output or --overwrite"),
        ("evaluate --output", "--output needs a value"),
        ("evaluate --output --json", "--output needs a value"),
        ("evaluate --batch-size 1.5", "'1.5' is not a whole number of at least 1"),
        ("evaluate --null many", "'many' is not a whole number of at least 0"),
        ("evaluate --timeout 0", "'0' is not a positive number of seconds"),
        ("evaluate --gamma", "--gamma needs a value"),
        ("evaluate --blur-sigma wide", "'wide' is not a number"),
        ("evaluate --suite standard-v0", "standard-v1"),
        ("evaluate --learned all --learned tree", "'tree' is not one of linear, block, cnn, keyed, spectrum, all"),
        ("evaluate pictures/", "pictures/"),
        ("evaluate --nonsense 3", "--nonsense"),
        ("evaluate --no-json", "--no-json"),
        ("semsim", "required: COMMAND, one of train, score"),
        ("semsim tarin", "there is no command 'tarin', one of train, score"),
        ("zoo apply mosaic --input a --output b --seed small", "'small' is not a whole number"),
        ("zoo compare --clean a --noisy b", "required: NAMES, --output"),
        ("zoo compare grey --clean a --noisy b --output c --learned tree", "'tree' is not one of linear, block, cnn, keyed"),
        ("faithfulness --scores a", "required: --annotations"),
        ("zoo list --family tune", "tone"),
    ],
)
def test_a_mistake_names_the_words_the_limit_and_where_help_is(words, message):
    with pytest.raises(cli.UsageError) as error:
        parsed(cli._application(words.split()[0]), words.split())
    assert message in str(error.value)
    assert "--help' shows what there is." in str(error.value)


def test_what_a_run_records_and_what_must_agree_follow_from_the_options():
    options = EvaluateOptions(clean=Path("a"), noisy=Path("b"), fail_above=(Gate("read", 0.05),), resume=True, gamma=(1.0,))
    noted = recorded(options)
    assert {"json", "resume", "overwrite"}.isdisjoint(noted)
    assert (noted["clean"], noted["fail_above"], noted["gamma"]) == ("a", ["read=0.05@mean"], [1.0])
    needed = settings_that_matter(options)
    assert needed["clean"] == str(Path("a").resolve())
    assert {"batch_size", "output", "device", "null", "timeout", "gallery", "fail_above"}.isdisjoint(needed)
    assert {"gamma", "blur_sigma", "betas", "suite", "draws", "resize", "extra", "learned", "manifest", "noisy"} <= {*needed}
    assert {*settings_that_matter(Found(0, 0, None, 1, "d", [], {}))} == {"fit_pairs", "split_by", "pairs", "pairs_digest"}
    assert settings_that_matter(EvaluateOptions(manifest="s3://a/b.csv"))["manifest"] == "s3://a/b.csv"
    assert settings_that_matter(EvaluateOptions(manifest=Path("b.csv")))["manifest"] == str(Path("b.csv").resolve())


def test_an_option_that_does_not_say_what_it_affects_is_a_mistake():
    @dataclasses.dataclass(frozen=True)
    class Silent:
        size: int = 3
        seed: typing.Annotated[int, Affects.NUMBERS] = 0

    with pytest.raises(TypeError, match=r"Silent.size must say what it affects"):
        affected_by(Silent)


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EvaluateOptions().gamma = (1.0,)


def test_names_for_the_help_are_those_of_what_they_name():
    from attacker_metrics.obfuscations import FAMILIES, UNDONE_BY, ZOO
    from attacker_metrics.reading.learned import STANDARD_LEARNED
    from attacker_metrics.scoring.suites import SUITES

    assert typing.get_args(_names.SuiteName) == tuple(SUITES)
    assert typing.get_args(_names.LearnedKind) == tuple(STANDARD_LEARNED)
    assert tuple(dict.fromkeys(entry.family for entry in ZOO.values())) == FAMILIES
    assert {entry.undone_by for entry in ZOO.values()} <= {*UNDONE_BY}
