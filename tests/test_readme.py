"""What README and the checks promise is what the code holds."""

import re
from pathlib import Path

import pytest

import attacker_metrics
from attacker_metrics import MultiAttackerPrivacy, standard_components

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_components_is_the_one_of_the_code():
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in README.splitlines()
        if re.match(r"\| `\w+` \|", line)
    ]
    classes = {name: type(metric).__name__ for name, metric in MultiAttackerPrivacy().items()}
    assert [(row[0], row[3]) for row in rows] == list(classes.items())
    undoes = {name: component.undoes for name, component in standard_components().items()}
    assert {row[0]: row[2] for row in rows if row[0] in undoes} == undoes


@pytest.mark.parametrize("betas", range(1, 6))
def test_the_table_of_smallest_sides_is_the_one_of_the_code(betas):
    (row,) = (line for line in README.splitlines() if line.startswith("| smallest side in pixels"))
    sides = [int(cell) for cell in row.strip("|").split("|")[1:]]
    assert sides[betas - 1] == attacker_metrics.MSSSIM((0.2,) * betas).smallest_side


def test_the_checks_run_the_test_command_of_the_readme():
    if not (ROOT / ".ci").is_dir():
        pytest.skip("an unpacked source distribution has no .ci")
    (command,) = re.findall(r"^(pip install .* && pytest .*)$", README, flags=re.MULTILINE)
    install, test = command.split(" && ")
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert install in lines
    assert test in lines


def test_the_changelog_knows_this_version():
    assert f"## [{attacker_metrics.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
