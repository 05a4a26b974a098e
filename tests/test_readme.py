"""What README and the checks promise is what the code holds."""

import re
from pathlib import Path

import pytest
import torch

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


SECTION = README.split("## Training loops")[1].split("\n## ")[0]
SET_UP, *LOOPS = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run one of the loops in a folder of its own; the result is its variables."""
    monkeypatch.chdir(tmp_path)

    def run(word):
        (loop,) = (loop for loop in LOOPS if word in loop)
        variables = {"__name__": "__main__"}
        exec(SET_UP, variables)
        variables["before"] = variables["cloak"].weight.detach().clone()
        exec(loop, variables)
        assert variables["loss"].components["total"].isfinite()
        return variables

    return run


others_may_warn = pytest.mark.filterwarnings("ignore", "error::attacker_metrics.AttackerMetricsWarning")


@others_may_warn
def test_the_loop_with_mixed_precision_trains_and_logs_to_tensorboard(run):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = run("SummaryWriter")
    assert not torch.equal(found["cloak"].weight.cpu(), found["before"])
    assert found["scaler"].get_scale() == 2.0**16  # no step was skipped
    log = EventAccumulator("runs").Reload()
    names = [tag.removeprefix("train/") for tag in log.Tags()["scalars"]]
    assert names == list(found["loss"].components)
    assert [event.step for event in log.Scalars("train/ms_ssim")] == [0, 1]


@others_may_warn
def test_the_loop_in_lightning_trains_logs_the_collection_and_resumes(run):
    pytest.importorskip("lightning", reason="needs lightning")
    found = run("LightningModule")
    assert found["trainer"].global_step == 2
    assert found["resumed"].global_step == 4  # two from the checkpoint, two of its own
    assert found["resumed"].current_epoch == 2
    logged = found["resumed"].callback_metrics
    assert {f"val/{name}" for name in MultiAttackerPrivacy()} <= set(logged)
    assert {"train/total", "train/task", "train/privacy"} <= set(logged)
    assert not torch.equal(found["cloak"].weight, found["before"])


@others_may_warn
def test_the_loop_with_accelerate_trains(run):
    pytest.importorskip("accelerate", reason="needs accelerate")
    found = run("Accelerator")
    assert not torch.equal(found["accelerator"].unwrap_model(found["cloak"]).weight.cpu(), found["before"])
