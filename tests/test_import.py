"""Importing the library brings in its core dependencies only."""

import subprocess
import sys

import pytest

import attacker_metrics

OPTIONAL = {
    "PIL",
    "cv2",
    "cyclopts",
    "fsspec",
    "imagecodecs",
    "jinja2",
    "kornia",
    "krippendorff",
    "lightning",
    "matplotlib",
    "opacus",
    "pandas",
    "pyarrow",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "skimage",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "statsmodels",
    "tensorboard",
    "tifffile",
    "torchvision",
    "triton",
    "yaml",
}


def modules_after(*statements: str) -> list[set[str]]:
    """What is imported after each of some statements, which one process runs in turn."""
    told = "; print(*{name.split('.')[0] for name in sys.modules})"
    code = "\n".join(["import sys", *(statement + told for statement in statements)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_the_loss_and_obfuscations_need_torch_alone_and_the_package_itself_not_even_that():
    package, loss, scores, obfuscations = modules_after(
        "import attacker_metrics",
        "from attacker_metrics import multi_attacker_privacy_loss",
        "from attacker_metrics import Pair, multi_attacker_scores, standard_components",
        "import attacker_metrics.obfuscations",
    )
    assert package & {"torch", "torchmetrics", "numpy", *OPTIONAL} == set()
    for found in (loss, scores, obfuscations):
        assert "torch" in found
        assert found & {"torchmetrics", *OPTIONAL} <= {"triton"}  # torch may look whether it is there


def test_metrics_quality_and_semsim_need_nothing_that_torchmetrics_does_not_import_itself():
    theirs, *ours = modules_after(
        "import torchmetrics",
        "from attacker_metrics import MultiAttackerPrivacy",
        "import attacker_metrics.quality",
        "import attacker_metrics.semsim",
    )
    for found in ours:
        assert "torchmetrics" in found
        assert (found - theirs) & OPTIONAL == set()


def test_import_warns_of_nothing_and_prints_nothing():
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import attacker_metrics"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_public_name_exists():
    assert all(hasattr(attacker_metrics, name) for name in attacker_metrics.__all__)
    assert sorted(attacker_metrics.__all__) == sorted(set(attacker_metrics.__all__))


def test_without_its_extra_the_command_line_says_what_to_install():
    code = (
        "import sys; sys.modules['rich'] = None; sys.argv = ['attacker-metrics', 'evaluate'];"
        "from attacker_metrics.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "[cli]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["krippendorff", "sklearn"])
def test_without_its_extra_faithfulness_says_what_to_install(missing, tmp_path):
    code = (
        f"import sys; sys.modules[{missing!r}] = None;"
        "sys.argv = ['attacker-metrics', 'faithfulness', '--scores', 'a.csv', '--annotations', 'b.csv'];"
        "from attacker_metrics.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "[faithfulness]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_first_score_without_gradient_does_not_wait_for_torchs_compiler():
    code = """
import sys, torch, attacker_metrics
from torch.utils._python_dispatch import TorchDispatchMode
images = torch.rand(1, 3, 176, 176)
alone = attacker_metrics.multi_attacker_scores(images, 1 - images)
assert "torch._dynamo.symbolic_convert" not in sys.modules
seen = []
class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        seen.append(str(function))
        return function(*args, **(kwargs or {}))
with Watch():
    watched = attacker_metrics.multi_attacker_scores(images, 1 - images)
assert "attacker_metrics.scores.default" in seen, seen  # who looks on sees one operator
assert all(torch.equal(alone[name], watched[name]) for name in alone)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
