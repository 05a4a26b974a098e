"""What the files of a run hide: a scale that seems to be another one, damage, files that were not used -> flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.pairs.conventions import DAMAGED, SCALE
from attacker_metrics.reading.strongest import Flag

_NAMED = 3


def notes_of(scores: RunScores) -> dict[str, dict[str, str]]:
    """Kind of a note -> id of a pair -> what it says; every pair that has one."""
    found: dict[str, dict[str, str]] = {SCALE: {}, DAMAGED: {}}
    for index in sorted(scores.notes):
        for note in scores.notes[index]:
            said = found.setdefault(note.kind, {})
            name = scores.id(index)
            said[name] = f"{said[name]} {note.message}" if name in said else note.message
    return found


def file_flags(scores: RunScores, unused: Mapping[str, Mapping[str, Any]]) -> list[Flag]:
    """The flags ``scale`` and ``damaged`` (how many pairs, and what of the first ones), and ``unused`` (how many files).

    Args:
        scores: the outcome of a run.
        unused: what a source says of files that are no images, by kind.
    """
    raised = []
    for kind, said in notes_of(scores).items():
        if said:
            shown = " ".join(f"{name}: {message}" for name, message in list(said.items())[:_NAMED])
            more = f" And {len(said) - _NAMED} more, in summary.json." if len(said) > _NAMED else ""
            raised.append(Flag(kind, float(len(said)), f"{len(said)} of {len(scores)} pairs: {shown}{more}"))
    if unused:
        kinds = [f"{found['count']} {kind} ({', '.join(found['such_as'])})" for kind, found in unused.items()]
        count = sum(found["count"] for found in unused.values())
        raised.append(Flag("unused", float(count), f"{count} files or folders were not used: {'; '.join(kinds)}."))
    return raised
