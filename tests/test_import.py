"""Importing the library brings in its core dependencies only."""

import subprocess
import sys

import pytest

import attacker_metrics

OPTIONAL = {
    "PIL",
    "cv2",
    "fsspec",
    "imagecodecs",
    "jinja2",
    "kornia",
    "krippendorff",
    "lightning",
    "matplotlib",
    "pandas",
    "pyarrow",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "statsmodels",
    "tensorboard",
    "tifffile",
}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_needs_nothing_that_torchmetrics_does_not_import_itself():
    assert (modules_after("import attacker_metrics") - modules_after("import torchmetrics")) & OPTIONAL == set()


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


def test_metric_and_quality_need_no_extra():
    code = "import attacker_metrics.quality, attacker_metrics.semsim"
    assert (modules_after(code) - modules_after("import torchmetrics")) & OPTIONAL == set()
