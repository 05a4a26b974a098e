"""The pairs of a finished run, matched anew: sent pictures with originals of other groups, and the anchors' pairs."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from threading import Lock
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from torch import Tensor

from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.files.images import one_spelling
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, PairSource, Unused
from attacker_metrics.reading.strongest import Selection, shared_content, unrelated_originals
from attacker_metrics.reading.strongest.originals import FEWEST, PER_PICTURE, numbered

SEED = 0
MOST_ANCHORS = 200
"""Images of which ceiling and noise of equal error are scored."""
_ROWS = 4096
_MOST_VALUES = 2**25
"""Numbers in images that are kept for further comparisons: 128 MiB, a hundred pairs of 224 pixels."""
Loaded = LoadedPair | FailedPair


def digest_of(selection: Selection, scores: RunScores, names: list[str], fit: str | None = None) -> str:
    """Tells another null apart: other pairs, another order, other attackers, or others to fit on.

    It says on what scale a run is, not what was found: two obfuscations of the same pictures have one digest, though the
    scores of their comparisons differ.
    """
    pairs = [(scores.id(i), scores.id(j)) for i, j in selection.comparisons]
    return hashlib.blake2b(json.dumps([names, pairs, fit]).encode(), digest_size=16).hexdigest()


def choose(source: PairSource, scores: RunScores, names: list[str], limit: int) -> Selection:
    """Choose for the scored images of a run originals of one size and other groups.

    Groups are those of the column ``group``; without it, pairs of one clean file are of one group. Groups that share a clean
    file are one.

    Args:
        source: the pairs.
        scores: their scores.
        names: the attackers, all of which an image must have a score of.
        limit: the largest number of comparisons, twenty of every image; beyond it, images at random have none.

    Raises:
        ValueError: if no image has three originals to be compared with.
    """
    complete = np.isfinite([scores.columns[name] for name in names]).all(axis=0)
    rows = np.flatnonzero(scores.scored & complete)
    files = list(_clean_files(source, len(scores)))
    groups: list[str] = scores.clusters or files
    sizes = [tuple(size) for size in scores.sizes[rows].tolist()]
    own = [groups[i] for i in rows], [files[i] for i in rows]
    chosen = unrelated_originals(own[0], kinds=sizes, seed=SEED, originals=own[1], limit=limit)
    compared = np.flatnonzero((chosen >= 0).sum(axis=1) >= FEWEST)
    if not len(compared):
        raise ValueError(
            f"not enough pictures: a picture is compared with {FEWEST} unrelated originals of its size at least, with"
            f" {PER_PICTURE} if there are so many, and no two of different groups and files suffice; add images of others."
        )
    originals = np.where(chosen[compared] >= 0, rows[chosen[compared]], -1)
    pictures = rows[compared].tolist()
    sources = numbered(groups).tolist()
    return Selection(pictures, originals.tolist(), sources, pictures[:: -(-len(pictures) // MOST_ANCHORS)])


class UnrelatedPairs:
    """The comparisons, then every anchor image against itself, then under noise of the noisy image's error.

    Args:
        source: the pairs of the run.
        selection: what is compared.
    """

    groups: list[str] | None = None
    unmatched: tuple[str, ...] = ()
    unused: Unused = MappingProxyType({})

    def __init__(self, source: PairSource, selection: Selection) -> None:
        self._source, self._selection = source, selection
        # In ascending order, as a CSV file is read from its begin.
        wanted = sorted({*chain.from_iterable(selection.comparisons), *selection.anchors})
        self._rows = {i: source.rows(i, i + 1).to_pylist()[0] for i in wanted}
        self._load = _remembering(lambda row: source.load(row, self._rows[row]))

    def check(self) -> tuple[int, str]:
        """Number of pairs, and nothing to tell them apart by: the run's own check has done so."""
        return self._selection.total, ""

    def rows(self, start: int, stop: int) -> pa.Table:
        """Numbers for names."""
        return pa.table({"id": pa.array(map(str, range(start, stop)), pa.string())})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:  # noqa: ARG002
        """Read the images of a pair."""
        sent, original = self._selection.rows(index)
        one, other = self._load(sent), self._load(original)
        if isinstance(one, FailedPair) or isinstance(other, FailedPair):
            return FailedPair(index, "an image cannot be read any more.")

        def seen(draw: Tensor) -> Tensor:
            return self._selection.sent(index, draw, one.clean, seed=SEED + sent)

        return replace(
            one,
            index=index,
            noisy=seen(one.noisy),
            clean=other.clean,
            noisy_eight_bit=False,  # the run itself has told what is clipped
            mean=None if one.mean is None else seen(one.mean),
            shared=None if sent == original else shared_content(one.clean, other.clean),
        )


def _remembering(load: Callable[[int], Loaded]) -> Callable[[int], Loaded]:
    """The same, keeping the latest: a picture is compared twenty times, and is the original of twenty others."""
    kept: OrderedDict[int, Loaded] = OrderedDict()
    lock, room = Lock(), _MOST_VALUES

    def remembered(row: int) -> Loaded:
        nonlocal room
        with lock:
            if row in kept:
                kept.move_to_end(row)
                return kept[row]
        found = load(row)
        with lock:
            if row in kept:  # of two threads that read one picture, the first's
                return kept[row]
            kept[row] = found
            room -= _values(found)
            while room < 0 and len(kept) > 1:
                room += _values(kept.popitem(last=False)[1])
        return found

    return remembered


def _values(pair: Loaded) -> int:
    """How many numbers the images of a pair have."""
    if isinstance(pair, FailedPair):
        return 0
    return sum(images.numel() for images in (pair.noisy, pair.clean, pair.mean) if images is not None)


def _clean_files(source: PairSource, total: int) -> Iterator[str]:
    for start in range(0, total, _ROWS):
        yield from _clean_file(source.rows(start, min(start + _ROWS, total)))


def _clean_file(table: pa.Table) -> list[str]:
    """Per pair what tells its clean picture from others: the manifest's cell, or else the pair's own name."""
    if "clean" in table.column_names:
        return list(map(one_spelling, table["clean"].to_pylist()))
    names: list[str] = table["id"].to_pylist()
    return names
