"""The plan of the house: folders in the order of the data, and no import that runs back up it."""

import ast
from pathlib import Path

import pytest

import attacker_metrics

PACKAGE = Path(attacker_metrics.__file__).parent
ORDER = (
    "attackers",
    "engine",
    "scoring",
    "metrics",
    "obfuscations",
    "quality",
    "statistics",
    "files",
    "reading",
    "pairs",
    "jobs",
    "evaluation",
    "report",
    "comparison",
    "faithfulness",
    "annotation",
    "semsim",
    "attacks",
    "defenses",
    "study",
    "commands",
)
"""Every folder may import from itself and from those above it in this list; modules beside ``__init__`` serve all."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def folder_of(module: str) -> str:
    """The folder below the package, or the empty string for what lies beside ``__init__``."""
    inside = module.split(".")[1:]
    return inside[0] if inside and inside[0] in ORDER else ""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == PACKAGE.name}


def test_every_folder_has_its_place():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_runs_back_up(path):
    own = folder_of(name_of(path))
    for imported in imported_by(path):
        folder = folder_of(imported)
        if own:
            assert not folder or ORDER.index(folder) <= ORDER.index(own), f"{name_of(path)} imports {imported}"
            assert imported.count(".") > 1 or folder or imported.split(".")[1].startswith("_"), (
                f"through the root: {imported}"
            )


def test_folders_say_what_comes_in_and_what_goes_out():
    for folder in ORDER:
        tree = ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
        assert len((ast.get_docstring(tree) or "").splitlines()) >= 1, folder
