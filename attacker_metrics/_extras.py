"""What to install where an optional dependency is missing: no registry has this package, so it comes from its source."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

OF_THE_COMMAND_LINE = (
    "PIL",
    "cyclopts",
    "fsspec",
    "imagecodecs",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "pandas",
    "pyarrow",
    "rich",
    "scipy",
    "statsmodels",
    "tifffile",
)
"""The modules that the extra ``cli`` brings."""


class MissingExtraError(ModuleNotFoundError):
    """A module that an extra would bring; the message names it and how to install it."""


def missing_extra(
    what: str, extra: str, error: ModuleNotFoundError | None = None, *, instead: str = ""
) -> MissingExtraError:
    """The error to raise where a module of an extra is missing.

    Args:
        what: needs what, as "LPIPS needs torchvision".
        extra: the extra that brings it.
        error: of the import, whose module is named.
        instead: what else helps, as "or pass a network of your own".

    Example:
        >>> str(missing_extra("LPIPS needs torchvision", "quality")).startswith("LPIPS needs torchvision: pip install ")
        True
    """
    more = f", {instead}" if instead else ""
    return MissingExtraError(f"{what}: {how_to_install(extra)}{more}.", name=None if error is None else error.name)


def without_cli(error: ModuleNotFoundError) -> str | None:
    """What to say of a module that the extra ``cli`` would bring; None for any other."""
    if error.name is None or error.name.split(".")[0] not in OF_THE_COMMAND_LINE:
        return None
    return f"the command line needs {error.name}: {how_to_install('cli')}"


def how_to_install(extra: str) -> str:
    """The command that adds an extra to this very installation, from the source that it came from.

    Args:
        extra: as in ``pyproject.toml``, also several, separated by commas.
    """
    source = _source(extra)
    if source is None:
        return f"pip install '.[{extra}]' in a clone of the repository that attacker_metrics came from"
    return f"pip install {source}"


def _source(extra: str) -> str | None:
    """What pip takes: this clone, or where the package was installed from; None if that is not known."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "pyproject.toml").is_file():
        return f"-e {shlex.quote(f'{clone}[{extra}]')}"
    from importlib import metadata  # which takes longer than the rest of --version

    try:
        found = json.loads(metadata.distribution("attacker-metrics").read_text("direct_url.json") or "{}")
        address, revision = found["url"], found.get("vcs_info", {})
    except (metadata.PackageNotFoundError, ValueError, KeyError):
        return None
    if revision:
        address = f"{revision['vcs']}+{address}@{revision['commit_id']}"
    return shlex.quote(f"attacker-metrics[{extra}] @ {address}")
