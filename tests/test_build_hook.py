"""What the package's build makes: wheels with and without the compiled kernel, and editable installations."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from attacker_metrics.engine import native
from attacker_metrics.engine.native import recipe, trust

ROOT = Path(__file__).parents[1]
FOLDER = Path(native.__file__).parent.relative_to(ROOT)
BUILD = """
import sys
from hatchling import build
getattr(build, sys.argv[1])(sys.argv[2])
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the project as a distribution of its sources holds it."""
    pytest.importorskip("hatchling", reason="hatchling, the build backend, is not installed")
    if not (ROOT / ".build").is_dir():
        pytest.skip("the package is not beside its project")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".building-*")
    for name in ("attacker_metrics", ".build"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / "project" / name)
    return tmp_path / "project"


@pytest.fixture
def quick(tmp_path):
    """A compiler that makes something at once."""
    if os.name != "posix":
        pytest.skip("shells are POSIX's")
    path = tmp_path / "quick"
    path.write_text("#!/bin/sh\nfor out; do :; done\necho made > $out\n")
    path.chmod(0o755)
    return str(path)


def built(project, *, kind="build_wheel", failing=False, **environment):
    """What the build says, and the wheel that it makes."""
    output = project.parent / "dist"
    command = [sys.executable, "-c", BUILD, kind, str(output)]
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("ATTACKER_METRICS")}
    ran = subprocess.run(command, cwd=project, env={**cleared, **environment}, capture_output=True, text=True)
    assert bool(ran.returncode) == failing, ran.stderr
    assert not list((project / FOLDER).glob(".building-*"))
    return ran.stdout + ran.stderr, None if failing else next(output.iterdir())


def libraries(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith(".so")]


def test_a_wheel_carries_the_kernel_for_one_platform_and_every_python(project, tmp_path, remembering):
    _, wheel = built(project, CXX=remembering)
    assert re.fullmatch(r"attacker_metrics-[^-]+-py3-none-(linux|macosx|win)_\w+\.whl", wheel.name)
    assert libraries(wheel) == [f"{FOLDER.as_posix()}/{recipe.SHIPPED}"]
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(libraries(wheel)[0], tmp_path)
        (description,) = (name for name in archive.namelist() if name.endswith("/WHEEL"))
        assert "Root-Is-Purelib: false" in archive.read(description).decode()
    trust.load(tmp_path / FOLDER / recipe.SHIPPED, recipe.fingerprint(), private=False)
    assert not (project / FOLDER / recipe.SHIPPED).exists()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ATTACKER_METRICS_NATIVE": "0"}, ""),
        ({"CXX": "no-such-compiler"}, "The CPU kernel is not compiled, the engine will run in torch: no C++ compiler"),
        ({"CXX": "false"}, "The CPU kernel is not compiled, the engine will run in torch: .*exit status 1"),
        ({"PATH": "", "CXX": ""}, "no C++ compiler: c++, g++, clang++ not found"),
    ],
    ids=["not wanted", "no such compiler", "a failing compiler", "an empty path"],
)
@pytest.mark.parametrize("kind", ["build_wheel", "build_editable"])
def test_without_the_kernel_the_wheel_is_for_all(project, kind, environment, said):
    if kind == "build_editable":
        pytest.importorskip("editables", reason="editables, for editable installations, is not installed")
    (project / FOLDER / recipe.SHIPPED).touch()  # of an earlier time
    output, wheel = built(project, kind=kind, **environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert re.search(said.replace("+", r"\+"), output)
    assert said or "kernel" not in output
    assert libraries(wheel) == []
    assert (project / FOLDER / recipe.SHIPPED).exists() == (kind == "build_wheel")


def test_a_kernel_that_is_insisted_on_and_cannot_be_compiled_fails_the_build(project):
    said, _ = built(project, failing=True, ATTACKER_METRICS_NATIVE="1", CXX="no-such-compiler")
    assert "no C++ compiler: no-such-compiler not found" in said


def test_an_editable_installation_has_it_beside_its_sources_anew_each_time(project, quick):
    pytest.importorskip("editables", reason="editables, for editable installations, is not installed")
    library = project / FOLDER / recipe.SHIPPED
    library.write_text("old")
    _, wheel = built(project, kind="build_editable", CXX=quick)
    assert libraries(wheel) == []
    assert library.read_bytes().startswith(b"made\n")
    assert library.read_bytes()[: -len(trust._checksum("", b""))].endswith(trust.MARK)


def test_the_distribution_of_sources_holds_what_the_build_needs(project):
    command = [sys.executable, "-c", BUILD, "build_sdist", str(project.parent / "dist")]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (archive,) = (project.parent / "dist").iterdir()
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    sources = {(FOLDER / file.name).as_posix() for file in (project / FOLDER).iterdir() if file.is_file()}
    assert {".build/hook.py", *sources} <= names
