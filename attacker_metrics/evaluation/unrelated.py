"""The pairs of a finished run, matched anew: sent pictures with originals of other groups, and the anchors' pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.files.images import one_spelling
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, PairSource, Unused
from attacker_metrics.reading.strongest import noise_of_equal_error, shared_content, unrelated_originals
from attacker_metrics.reading.strongest.originals import FEWEST, PER_PICTURE, numbered

SEED = 0
MOST_ANCHORS = 200
"""Images of which ceiling and noise of equal error are scored."""
_ROWS = 4096


@dataclass(frozen=True)
class Selection:
    """Which images are compared with which originals.

    Args:
        pictures: rows of the pictures that have a null of their own.
        originals: of each the rows of the unrelated originals, as many as there are; -1 for none.
        sources: the group of every row, as a number.
        anchors: rows of which the anchors are scored.
    """

    pictures: list[int]
    originals: list[list[int]]
    sources: list[int]
    anchors: list[int]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Rows of the sent picture and of the original of every comparison, picture after picture."""
        together = zip(self.pictures, self.originals, strict=True)
        return [(picture, original) for picture, row in together for original in row if original >= 0]

    @property
    def total(self) -> int:
        """Number of comparisons to score, those of the anchors included."""
        return len(self.pairs) + 2 * len(self.anchors)

    def table(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What was found of every comparison, laid out as ``originals``; NaN for none."""
        places = np.array(self.originals) >= 0
        table = np.full(places.shape, np.nan)
        table[places] = values
        return table

    def digest(self, scores: RunScores, names: list[str], fit: str | None = None) -> str:
        """Tells another null apart: other pairs, another order, other attackers, or others to fit on.

        It says on what scale a run is, not what was found: two obfuscations of the same pictures have one digest, though the
        scores of their comparisons differ.
        """
        pairs = [(scores.id(i), scores.id(j)) for i, j in self.pairs]
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
        self._source, self._selection, self._pairs = source, selection, selection.pairs
        # In ascending order, as a CSV file is read from its begin.
        wanted = sorted({*chain.from_iterable(self._pairs), *selection.anchors})
        self._rows = {i: source.rows(i, i + 1).to_pylist()[0] for i in wanted}

    def check(self) -> tuple[int, str]:
        """Number of pairs, and nothing to tell them apart by: the run's own check has done so."""
        return self._selection.total, ""

    def rows(self, start: int, stop: int) -> pa.Table:
        """Numbers for names."""
        return pa.table({"id": pa.array(map(str, range(start, stop)), pa.string())})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:  # noqa: ARG002
        """Read the images of a pair."""
        pairs, anchors = len(self._pairs), len(self._selection.anchors)
        if index < pairs:
            one, other = (self._load(i) for i in self._pairs[index])
            if isinstance(one, FailedPair) or isinstance(other, FailedPair):
                return FailedPair(index, "an image cannot be read any more.")
            return LoadedPair(
                index,
                one.noisy,
                other.clean,
                one.noisy_eight_bit,
                one.read_s + other.read_s,
                one.decode_s + other.decode_s,
                one.mean,
                shared=shared_content(one.clean, other.clean),
            )
        which, position = divmod(index - pairs, anchors)
        anchor = self._selection.anchors[position]
        pair = self._load(anchor)
        if isinstance(pair, FailedPair):
            return FailedPair(index, pair.reason)

        def anchored(draw: Tensor) -> Tensor:
            return pair.clean if which == 0 else noise_of_equal_error(draw, pair.clean, seed=SEED + anchor)

        mean = None if pair.mean is None else anchored(pair.mean)
        return LoadedPair(
            index,
            anchored(pair.noisy),
            pair.clean,
            noisy_eight_bit=False,
            read_s=pair.read_s,
            decode_s=pair.decode_s,
            mean=mean,
        )

    def _load(self, row: int) -> LoadedPair | FailedPair:
        return self._source.load(row, self._rows[row])


def _clean_files(source: PairSource, total: int) -> Iterator[str]:
    for start in range(0, total, _ROWS):
        yield from _clean_file(source.rows(start, min(start + _ROWS, total)))


def _clean_file(table: pa.Table) -> list[str]:
    """Per pair what tells its clean picture from others: the manifest's cell, or else the pair's own name."""
    if "clean" in table.column_names:
        return list(map(one_spelling, table["clean"].to_pylist()))
    names: list[str] = table["id"].to_pylist()
    return names
