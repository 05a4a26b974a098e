"""The zoo: obfuscations that are used, sold or published, as a frozen table with what is known about each.

A user compares a cloak with its neighbours here. Each file holds a family: its functions, then its part of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

from attacker_metrics._names import ZOO_VERSION, Family
from attacker_metrics._spelling import known_as
from attacker_metrics.obfuscations.block_encryption import BLOCK_ENCRYPTION
from attacker_metrics.obfuscations.blur import BLUR
from attacker_metrics.obfuscations.cloaks import CLOAKS
from attacker_metrics.obfuscations.colour import COLOUR
from attacker_metrics.obfuscations.covers import COVERS
from attacker_metrics.obfuscations.geometry import GEOMETRY
from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.mixing import MIXING
from attacker_metrics.obfuscations.noise import NOISE
from attacker_metrics.obfuscations.obfuscation import KEYS, UNDONE_BY, Obfuscation, Strength
from attacker_metrics.obfuscations.pads import PADS
from attacker_metrics.obfuscations.permutation import PERMUTATION
from attacker_metrics.obfuscations.quantisation import QUANTISATION
from attacker_metrics.obfuscations.safe import SAFE
from attacker_metrics.obfuscations.tone import TONE
from attacker_metrics.obfuscations.transform import TRANSFORM

__all__ = ["FAMILIES", "KEYS", "UNDONE_BY", "ZOO", "ZOO_VERSION", "Key", "Obfuscation", "Strength", "obfuscation", "zoo"]

_ENTRIES = (
    *TONE,
    *COLOUR,
    *NOISE,
    *BLUR,
    *GEOMETRY,
    *PERMUTATION,
    *TRANSFORM,
    *BLOCK_ENCRYPTION,
    *PADS,
    *COVERS,
    *MIXING,
    *CLOAKS,
    *QUANTISATION,
    *SAFE,
)
ZOO: Mapping[str, Obfuscation] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Name -> obfuscation, family by family."""
FAMILIES: tuple[Family, ...] = get_args(Family)


def obfuscation(name: str) -> Obfuscation:
    """The obfuscation of that name, in British or American spelling.

    Raises:
        KeyError: if there is none; the message names similar ones.

    Example:
        >>> obfuscation("xor-pad").undone_by
        'pairs'
    """
    name = known_as(name, ZOO) if isinstance(name, str) else name
    if name not in ZOO:
        import difflib

        near = difflib.get_close_matches(name, ZOO, n=3, cutoff=0.4)
        raise KeyError(
            f"{ZOO_VERSION} has no obfuscation {name!r}; " + (f"near: {', '.join(near)}." if near else "see ZOO.")
        )
    return ZOO[name]


def zoo(*, family: str | None = None, undone_by: str | None = None) -> tuple[Obfuscation, ...]:
    """The obfuscations of a family, or those that someone can undo; by default all.

    Args:
        family: one of :data:`FAMILIES`.
        undone_by: one of :data:`UNDONE_BY`.

    Raises:
        ValueError: for another family or another value of ``undone_by``.

    Example:
        >>> [entry.name for entry in zoo(family="safe", undone_by="key")]
        ['one-time-xor-pad', 'one-time-modulo-pad', 'one-time-byte-pad']
    """
    family = None if family is None else known_as(family, FAMILIES)
    for value, known, what in ((family, FAMILIES, "family"), (undone_by, UNDONE_BY, "undone_by")):
        if value is not None and value not in known:
            raise ValueError(f"{what} is {value!r}; it is one of {', '.join(known)}.")
    return tuple(e for e in ZOO.values() if family in (None, e.family) and undone_by in (None, e.undone_by))
