"""Old names: every module of release 0.1 is importable and is the module that took its place, once."""

import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attacker_metrics as am
from attacker_metrics import _moved

RETIRED = {f"evaluation.commands.{name}" for name in ("evaluate_options", "options", "reading_options")}
"""Parsers of the command line, which nobody could have used: cyclopts took their place."""
RELEASED = [
    name for name in json.loads((Path(__file__).parent / "data" / "modules_0.1.json").read_text()) if name not in RETIRED
]
"""Names of all modules of release 0.1, below the package."""
PACKAGE = "attacker_metrics"


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def imported(name):
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(PACKAGE):
            raise
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.parametrize("old", RELEASED)
def test_a_module_of_release_0_1_is_found_under_its_old_name_and_is_the_same(old):
    found = imported(old)
    new = _moved._new_name(f"{PACKAGE}.{old}")
    assert found.__name__ == (new or f"{PACKAGE}.{old}")
    assert sys.modules[found.__name__] is found
    assert sys.modules[f"{PACKAGE}.{old}"] is found


def test_every_old_name_leads_to_a_file_and_none_of_its_own_is_left():
    root = Path(am.__file__).parent
    for old, new in _moved._MOVED.items():
        places = [root / Path(*new.split(".")).with_suffix(".py"), root / Path(*new.split(".")) / "__init__.py"]
        assert sum(place.exists() for place in places) == 1, f"{old} -> {new}"
        assert not (root / Path(*old.split(".")).with_suffix(".py")).exists(), f"{old} is both an old name and a file"


def test_no_file_is_imported_twice_whichever_name_comes_first():
    program = f"""
import importlib, json, sys
for name in json.loads({json.dumps(json.dumps(RELEASED))}):
    try:
        importlib.import_module("{PACKAGE}." + name)
    except ModuleNotFoundError as error:
        assert not error.name.startswith("{PACKAGE}"), error
modules = {{name: module for name, module in sys.modules.items() if name.split(".")[0] == "{PACKAGE}"}}
files = {{}}
for module in {{id(module): module for module in modules.values()}}.values():
    files.setdefault(module.__file__, []).append(module.__name__)
print([names for names in files.values() if len(names) > 1])
"""
    assert run(program).strip() == "[]"


CLASSES = (
    ("attacker_metric", "metrics.attacker_metric", "AttackerMetric"),
    ("similarity", "scoring.similarity", "MSSSIM"),
    ("components", "scoring.components", "Component"),
    ("filters", "attackers.filters", "invert"),
    ("attackers", "attackers.standard", "Blur"),
    ("metrics", "metrics.standard", "BlurPearson"),
    ("learned.linear", "reading.learned.linear", "LinearAttacker"),
    ("learned.keyed", "reading.learned.keyed", "KeyedAttacker"),
    ("strongest.null", "reading.strongest.null", "NullDistribution"),
    ("evaluation.images", "files.images", "LoadedImage"),
    ("backends.native", "engine.native", "build_native"),
)


@pytest.mark.parametrize(("old", "new", "name"), CLASSES)
def test_pickles_under_old_names_load_as_the_same_class(old, new, name):
    pickled = f"c{PACKAGE}.{old}\n{name}\n.".encode()
    assert pickle.loads(pickled) is getattr(imported(new), name)


def test_pickles_under_old_names_load_before_anything_else_is_imported():
    program = f"""
import importlib, pickle
for old, new, name in {CLASSES!r}:
    found = pickle.loads(f"c{PACKAGE}.{{old}}\\n{{name}}\\n.".encode())
    assert found is getattr(importlib.import_module("{PACKAGE}." + new), name), found
print("same")
"""
    assert run(program).strip() == "same"


def test_a_metric_pickled_under_old_names_goes_on():
    metric = am.BlurPearson()
    clean = torch.rand(2, 3, 24, 24)
    metric.update(clean.flip(3), clean)
    old = pickle.dumps(metric, protocol=0)
    for new_name, old_name in (
        (b"scoring.components", b"components"),
        (b"scoring.similarity", b"similarity"),
        (b"attackers.standard", b"attackers"),
        (b"metrics.standard", b"metrics"),
    ):
        old = old.replace(b"c" + PACKAGE.encode() + b"." + new_name, b"c" + PACKAGE.encode() + b"." + old_name)
    assert b"scoring.components" not in old
    loaded = pickle.loads(old)
    assert type(loaded) is am.BlurPearson
    assert loaded.compute() == metric.compute()
    loaded.merge_state(metric)
    assert int(loaded.count) == 4


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(ModuleNotFoundError, match=r"backends\.none"):
        importlib.import_module(f"{PACKAGE}.backends.none")
    with pytest.raises(ModuleNotFoundError, match=r"attacker_metrics\.none"):
        importlib.import_module(f"{PACKAGE}.none")
