"""Name of a score -> what it stands for: told by the tables of components and of learned attackers, not by its letters."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from attacker_metrics.reading.learned.standard import STANDARD_LEARNED
from attacker_metrics.scoring.components import MEANS, standard_components
from attacker_metrics.scoring.suites import SUITES, added_components


class Kind(NamedTuple):
    """What a score stands for.

    Args:
        family: ``"ms_ssim"`` or ``"pearson"``.
        attacker: short name of the attacker, such as ``"sobel"`` or ``"linear"``.
    """

    family: str
    attacker: str


@cache
def kinds() -> dict[str, Kind]:
    """What the fifteen, the scores that suites add, and those of the learned attackers stand for, by name.

    Example:
        >>> kinds()["pearson_sobel"], kinds()["linear_gray"]
        (Kind(family='pearson', attacker='sobel'), Kind(family='ms_ssim', attacker='linear'))
    """
    tables = (standard_components(), *map(added_components, SUITES))
    found = {name: Kind(row.family, row.attacker) for table in tables for name, row in table.items()}
    for word in STANDARD_LEARNED:
        found |= {f"{word}_gray": Kind("ms_ssim", word), f"pearson_{word}": Kind("pearson", word)}
    return found


@cache
def names() -> dict[Kind, str]:
    """The other way round: of ``rgb`` and ``gray`` the scores of the clamped pictures."""
    return {kind: name for name, kind in kinds().items()}


def family_of(name: str) -> str | None:
    """``"ms_ssim"`` or ``"pearson"``, also of the two means themselves; None for a score that is none of ours."""
    if name in MEANS:
        return name
    kind = kinds().get(name)
    return None if kind is None else kind.family
