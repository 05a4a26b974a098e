"""The pairs of a finished run, matched anew: noisy images against clean ones of other pictures, and the anchors' pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from torch import Tensor

from attacker_metrics.evaluation.scoring import Scores
from attacker_metrics.files.images import one_spelling
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, PairSource, Unused
from attacker_metrics.reading.strongest import noise_of_equal_error, unrelated_pairs

SEED = 0
MOST_ANCHORS = 200
"""Images of which ceiling and noise of equal error are scored."""
_ROWS = 4096


@dataclass(frozen=True)
class Selection:
    """Which images are matched.

    Args:
        noisy: rows of the noisy images of the unrelated pairs.
        clean: rows of their clean images.
        anchors: rows of which the anchors are scored.
    """

    noisy: list[int]
    clean: list[int]
    anchors: list[int]

    @property
    def total(self) -> int:
        """Number of pairs to score."""
        return len(self.noisy) + 2 * len(self.anchors)

    def digest(self, scores: Scores, names: list[str], fit: str | None = None) -> str:
        """Tells another null apart: other pairs, another order, other attackers, or others to fit on.

        It says on what scale a run is, not what was found: two obfuscations of the same pictures have one digest, though the
        scores of their unrelated pairs differ.
        """
        pairs = [(scores.id(i), scores.id(j)) for i, j in zip(self.noisy, self.clean, strict=True)]
        return hashlib.blake2b(json.dumps([names, pairs, fit]).encode(), digest_size=16).hexdigest()


def choose(source: PairSource, scores: Scores, names: list[str], limit: int) -> Selection:
    """Match the scored images of a run with clean ones of one size and another group, at most ``limit`` of them.

    Groups are those of the column ``group``; without it, pairs of one clean file are of one group. A clean file that is in
    several groups is not matched with itself either.

    Args:
        source: the pairs.
        scores: their scores.
        names: the attackers, all of which an image must have a score of.
        limit: the largest number of pairs.

    Raises:
        ValueError: if no two images can be matched.
    """
    complete = np.isfinite([scores.columns[name] for name in names]).all(axis=0)
    rows = np.flatnonzero(scores.scored & complete)
    groups = scores.clusters or list(_clean_files(source, len(scores)))
    sizes = [tuple(size) for size in scores.sizes[rows].tolist()]
    noisy, clean = unrelated_pairs([groups[i] for i in rows], kinds=sizes, seed=SEED, limit=limit)
    chosen = list(zip(rows[noisy].tolist(), rows[clean].tolist(), strict=True))
    files = {i: _clean_file(source.rows(i, i + 1))[0] for i in sorted({*chain.from_iterable(chosen)})}
    pairs = [(i, j) for i, j in chosen if files[i] != files[j]]
    if not pairs:
        raise ValueError("no unrelated pairs: all groups show the same clean pictures; add images of others.")
    matched, partners = map(list, zip(*pairs, strict=True))
    return Selection(matched, partners, matched[:: -(-len(matched) // MOST_ANCHORS)])


class UnrelatedPairs:
    """The unrelated pairs, then every anchor image against itself, then under noise of the noisy image's error.

    Args:
        source: the pairs of the run.
        selection: what is matched.
    """

    groups: list[str] | None = None
    unmatched: tuple[str, ...] = ()
    unused: Unused = MappingProxyType({})

    def __init__(self, source: PairSource, selection: Selection) -> None:
        self._source, self._selection = source, selection
        # In ascending order, as a CSV file is read from its begin.
        wanted = sorted({*selection.noisy, *selection.clean})
        self._rows = {i: source.rows(i, i + 1).to_pylist()[0] for i in wanted}

    def check(self) -> tuple[int, str]:
        """Number of pairs, and nothing to tell them apart by: the run's own check has done so."""
        return self._selection.total, ""

    def rows(self, start: int, stop: int) -> pa.Table:
        """Numbers for names."""
        return pa.table({"id": pa.array(map(str, range(start, stop)), pa.string())})

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:  # noqa: ARG002
        """Read the images of a pair."""
        pairs, anchors = len(self._selection.noisy), len(self._selection.anchors)
        if index < pairs:
            one, other = self._load(self._selection.noisy[index]), self._load(self._selection.clean[index])
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
