"""The plan of the house: folders in the order of the data, and no import that runs back up it."""

import ast
import re
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
    "testing",
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


# --- the page about it ----------------------------------------------------------------------------------------------------

PAGES = Path(__file__).parents[1] / ".github"
PAGE = (PAGES / "ARCHITECTURE.md").read_text(encoding="utf-8")


def picture_of(page: str) -> str:
    """The block of code in no language, without the explanations in parentheses."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    (picture,) = (block for language, block in blocks if not language)
    return re.sub(r"\(.*?\)", "", picture)


def test_the_page_lists_every_folder_in_order_with_what_comes_in_and_goes_out():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
    assert tuple(folder for folder, _, _ in rows) == ORDER


@pytest.mark.parametrize("page", ["ARCHITECTURE", "CONTRIBUTING"])
def test_the_picture_shows_folders_that_exist(page):
    shown = re.findall(r"[a-z_]+", picture_of((PAGES / f"{page}.md").read_text(encoding="utf-8")))
    assert set(shown) <= set(ORDER), sorted(set(shown) - set(ORDER))
    assert len(shown) == len(set(shown))
    if page == "ARCHITECTURE":
        assert set(shown) == set(ORDER)


def test_modules_that_serve_all_are_on_the_page():
    private = {path.stem for path in PACKAGE.glob("_*.py")} - {"__init__", "__main__"}
    assert private == set(re.findall(r"`(_[a-z]\w*)`", PAGE))


def test_the_pages_name_files_that_exist():
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", text):
            assert (PAGES / target).exists(), f"{page.name}: {target}"
        for name in re.findall(r"`((?:[\w.]+/)+[\w.]*\w\.(?:py|json|md))`", text):
            places = (PACKAGE.parent / name, PACKAGE / name)
            assert any(place.exists() for place in places), f"{page.name}: {name}"
