"""Loaded pairs -> one score per pair and component: a part at a time, then all parts side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from attacker_metrics.jobs.parts import ResumeError
from attacker_metrics.metrics.attacker_metric import AttackerMetric
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.pairs.conventions import Note
from attacker_metrics.pairs.sources import FailedPair, LoadedPair
from attacker_metrics.reading.strongest import attackers_of, clipped_share
from attacker_metrics.scoring.batches import batches_of_one_size, stacked
from attacker_metrics.scoring.pair import Pair

_SCORES, _COLLAPSED, _FINITE, _FAILURE, _EIGHT_BIT, _SIZE, _CLIPPED, _RANDOM, _NOTES, _SHARED = RESERVED = tuple(
    f"_{name}"
    for name in ("scores", "collapsed", "finite", "failure", "8bit", "size", "clipped", "random", "notes", "shared")
)
"""Columns of a part's table beside those of its rows."""
_NOTE = pa.list_(pa.struct([("kind", pa.string()), ("message", pa.string())]))
DRAWS = "draws_"
"""Begins the names of attackers that see the mean of all draws instead of the first."""


def columns_of(privacy: MultiAttackerPrivacy, *, draws: bool) -> list[str]:
    """The columns of a run: the members of the collection, then every attacker once more on the mean of the draws.

    All of them, not some: averaging can precede any attack, and costs little beside reading the draws.
    """
    names = list(map(str, privacy.keys(keep_base=True)))
    return names + [DRAWS + name for name in attackers_of(privacy)] if draws else names


def competing(privacy: MultiAttackerPrivacy, *, draws: bool) -> list[str]:
    """Those of the columns that stand for one attacker each."""
    names = list(attackers_of(privacy))
    return names + [DRAWS + name for name in names] if draws else names


@dataclass
class Seconds:
    """Where the time of one process went, in seconds, and for how many pairs.

    ``read`` and ``decode`` are sums over the threads that load; ``wait`` is how long the computation waited for them.
    """

    pairs: int = 0
    read: float = 0.0
    decode: float = 0.0
    compute: float = 0.0
    wait: float = 0.0
    total: float = 0.0


@dataclass
class PartScores:
    """The scores of one part: row by row, a column per member of the collection.

    Args:
        start: number of the first row.
        values: ``(rows, members)`` float32; NaN where there is none.
        collapsed: ``(rows, members)`` bool: an MS-SSIM is 0 because a term was not positive.
        finite: ``(rows,)`` bool: no pixel is NaN or infinite.
        eight_bit: ``(rows,)`` bool: the noisy file held 8-bit values.
        failures: why a pair could not be scored, or None.
        sizes: ``(rows, 2)`` int32: height and width; 0 where the pair could not be read.
        clipped: ``(rows,)`` float32: of an 8-bit noisy file the share of values at 0 or 1; NaN for other files.
        random: ``(rows,)`` float32: how much of the error varies from draw to draw; NaN where there is one draw.
        notes: what a reader of each score must know about the files.
        shared: ``(rows, 2)`` float32: what the two originals of a comparison have in common; NaN for other pairs.
    """

    start: int
    values: NDArray[np.float32]
    collapsed: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    eight_bit: NDArray[np.bool_]
    failures: list[str | None]
    sizes: NDArray[np.int32]
    clipped: NDArray[np.float32]
    random: NDArray[np.float32]
    notes: list[tuple[Note, ...]]
    shared: NDArray[np.float32]

    @classmethod
    def empty(cls, start: int, rows: int, members: int) -> PartScores:
        """Before anything is scored."""
        flags = (np.zeros((rows, members), bool), np.ones(rows, bool), np.zeros(rows, bool))
        images = np.zeros((rows, 2), np.int32), np.full(rows, np.nan, np.float32), np.full(rows, np.nan, np.float32)
        shared = np.full((rows, 2), np.nan, np.float32)
        return cls(start, np.full((rows, members), np.nan, np.float32), *flags, [None] * rows, *images, [()] * rows, shared)

    def beside(self, rows: pa.Table) -> pa.Table:
        """The rows with their scores, as one table that :meth:`RunScores.of_tables` understands."""
        width = self.values.shape[1]
        columns = {
            _SCORES: pa.FixedSizeListArray.from_arrays(pa.array(self.values.ravel()), width),
            _COLLAPSED: pa.FixedSizeListArray.from_arrays(pa.array(self.collapsed.ravel()), width),
            _FINITE: pa.array(self.finite),
            _FAILURE: pa.array(self.failures, pa.string()),
            _EIGHT_BIT: pa.array(self.eight_bit),
            _SIZE: pa.FixedSizeListArray.from_arrays(pa.array(self.sizes.ravel()), 2),
            _CLIPPED: pa.array(self.clipped),
            _RANDOM: pa.array(self.random),
            _NOTES: pa.array([[asdict(note) for note in notes] for notes in self.notes], _NOTE),
            _SHARED: pa.FixedSizeListArray.from_arrays(pa.array(self.shared.ravel()), 2),
        }
        for name, column in columns.items():
            rows = rows.append_column(name, column)
        return rows


@dataclass
class RunScores:
    """The outcome of a run.

    Args:
        rows: a row per pair: ``id`` and whatever else the source knows.
        columns: component -> score of every pair, float32; NaN where there is none.
        collapsed: component -> bool per pair: its MS-SSIM is 0 because a term was not positive.
        skipped: per pair whether it has a NaN or infinite pixel.
        failures: index of a pair -> why it could not be scored.
        noisy_eight_bit: number of pairs whose noisy file held 8-bit values.
        groups: group of every pair by which the source presents them (the obfuscation, in the demonstration), or None.
        sizes: ``(pairs, 2)`` int32: height and width; 0 where the pair could not be read.
        clipped: per pair, for an 8-bit noisy file the share of values at 0 or 1; NaN for other files.
        random: per pair, how much of the error varies from draw to draw; NaN where there is one draw.
        notes: index of a pair -> what a reader of its score must know about the files.
        shared: ``(pairs, 2)`` float32: what the two originals of a comparison have in common; NaN for other pairs.
    """

    rows: pa.Table
    columns: dict[str, NDArray[np.float32]]
    collapsed: dict[str, NDArray[np.bool_]]
    skipped: NDArray[np.bool_]
    failures: dict[int, str] = field(default_factory=dict)
    noisy_eight_bit: int = 0
    groups: list[str] | None = None
    sizes: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    clipped: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    random: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    notes: dict[int, list[Note]] = field(default_factory=dict)
    shared: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    @classmethod
    def of_tables(
        cls, tables: Iterable[pa.Table], names: list[str], total: int, groups: list[str] | None = None
    ) -> RunScores:
        """Put the parts' tables side by side, in the order of the rows.

        Args:
            tables: what :meth:`PartScores.beside` made.
            names: the columns, as :func:`columns_of` names them.
            total: number of pairs.
            groups: group of every pair, or None.

        Raises:
            ResumeError: if a table is none of such a run.
        """
        columns = {name: np.full(total, np.nan, np.float32) for name in names}
        scores = cls(
            pa.table({}),
            columns,
            {name: np.zeros(total, bool) for name in names},
            np.zeros(total, bool),
            groups=groups,
            sizes=np.zeros((total, 2), np.int32),
            clipped=np.full(total, np.nan, np.float32),
            random=np.full(total, np.nan, np.float32),
            shared=np.full((total, 2), np.nan, np.float32),
        )
        rows, start = list[pa.Table](), 0
        for table in tables:
            stop = start + len(table)
            _check_part(table, len(names), rows[:1], total - start)
            values, collapsed = (
                table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
                for name in (_SCORES, _COLLAPSED)
            )
            for position, name in enumerate(names):
                scores.columns[name][start:stop] = values[:, position]
                scores.collapsed[name][start:stop] = collapsed[:, position]
            scores.skipped[start:stop] = ~table[_FINITE].to_numpy()
            scores.sizes[start:stop] = table[_SIZE].combine_chunks().flatten().to_numpy().reshape(-1, 2)
            scores.clipped[start:stop] = table[_CLIPPED].to_numpy()
            scores.random[start:stop] = table[_RANDOM].to_numpy()
            scores.shared[start:stop] = table[_SHARED].combine_chunks().flatten().to_numpy().reshape(-1, 2)
            failures = table[_FAILURE]
            if failures.null_count < len(failures):
                reasons = enumerate(failures.to_pylist(), start)
                scores.failures |= {index: reason for index, reason in reasons if reason is not None}
            for index, notes in enumerate(table[_NOTES].to_pylist(), start):
                if notes:
                    scores.notes[index] = [Note(**note) for note in notes]
            scores.noisy_eight_bit += int(table[_EIGHT_BIT].to_numpy().sum())
            rows.append(table.drop_columns(list(RESERVED)))
            start = stop
        if start != total:
            raise _foreign(f"there are {start} pairs of {total}")
        scores.rows = pa.concat_tables(rows)
        return scores

    def __len__(self) -> int:
        return len(self.skipped)

    def id(self, index: int | np.integer[Any]) -> str:
        """The name of a pair."""
        name: str = self.rows["id"][int(index)].as_py()
        return name

    @property
    def clusters(self) -> list[str] | None:
        """The column ``group`` (identity, source): pairs of one group are no independent evidence. None without it."""
        if "group" not in self.rows.column_names:
            return None
        names = self.rows["group"].to_pylist()
        return None if None in names or "" in names else list(map(str, names))

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Whether each pair has scores."""
        mask = ~self.skipped
        mask[list(self.failures)] = False
        return mask


def _check_part(table: pa.Table, members: int, others: list[pa.Table], room: int) -> None:
    """Refuse a part that is not what :meth:`PartScores.beside` makes: its digest tells mix-ups, not who wrote it.

    Raises:
        ResumeError: naming what it holds.
    """
    schema = PartScores.empty(0, 0, members).beside(pa.table({"id": pa.array([], pa.string())})).schema
    for wanted in schema:
        place = table.schema.get_field_index(wanted.name)  # -1 also where it is there twice
        if place < 0 or table.schema.field(place).type != wanted.type:
            raise _foreign(f"the column {wanted.name} is missing or of another kind")
        column = table[place].combine_chunks()
        if wanted.name != _FAILURE and any(cells.null_count for cells in _levels(column)):
            raise _foreign(f"the column {wanted.name} has gaps")
    if any(table.drop_columns(list(RESERVED)).schema != other.schema for other in others):
        raise _foreign("two parts have other columns")
    if len(table) > room:
        raise _foreign("there are more pairs than in the run")


def _levels(column: pa.Array) -> Iterator[pa.Array]:
    """An array, and those that it is made of."""
    yield column
    if pa.types.is_struct(column.type):
        for child in column.flatten():
            yield from _levels(child)
    elif pa.types.is_nested(column.type):
        yield from _levels(column.flatten())


def _foreign(reason: str) -> ResumeError:
    return ResumeError(
        f"the finished parts are not those of this run: {reason}. Delete .unfinished in the output to start over."
    )


def score_part(
    pairs: Iterator[LoadedPair | FailedPair],
    part: PartScores,
    privacy: MultiAttackerPrivacy,
    *,
    device: torch.device,
    batch_size: int,
    seconds: Seconds,
    on_done: Callable[[int], None],
) -> None:
    """Score the pairs of a part by every member of a collection; a pair that fails does not stop the rest.

    Args:
        pairs: all pairs of the part.
        part: takes the scores.
        privacy: the collection, on ``device``; its members' settings count, their states are not touched. A foreign metric
            given as ``extra`` is called once per image.
        device: where to compute.
        batch_size: pairs of equal size that are scored at once.
        seconds: takes the times.
        on_done: called with the number of pairs that were finished just now.
    """

    def readable() -> Iterator[LoadedPair]:
        while True:
            begin = time.perf_counter()
            pair = next(pairs, None)
            seconds.wait += time.perf_counter() - begin
            if pair is None:
                return
            seconds.pairs += 1
            if isinstance(pair, FailedPair):
                part.failures[pair.index - part.start] = pair.reason
                on_done(1)
                continue
            seconds.read += pair.read_s
            seconds.decode += pair.decode_s
            row = pair.index - part.start
            part.eight_bit[row], part.sizes[row] = pair.noisy_eight_bit, pair.clean.shape[-2:]
            part.random[row], part.notes[row] = pair.random_share, pair.notes
            if pair.shared is not None:
                part.shared[row] = pair.shared
            if pair.noisy_eight_bit:
                (part.clipped[row],) = clipped_share(pair.noisy[None])
            yield pair

    with torch.inference_mode():
        for batch in batches_of_one_size(readable(), batch_size):
            begin = time.perf_counter()
            try:
                _score_batch(batch, privacy, device, part)
            except Exception:  # find out which pair it is
                for pair in batch:
                    try:
                        _score_batch([pair], privacy, device, part)
                    except Exception as error:  # noqa: PERF203
                        part.failures[pair.index - part.start] = f"{type(error).__name__}: {error}"
            seconds.compute += time.perf_counter() - begin
            on_done(len(batch))


def _score_batch(batch: list[LoadedPair], privacy: MultiAttackerPrivacy, device: torch.device, part: PartScores) -> None:
    members = dict(privacy.items(keep_base=True, copy_state=False))
    clean = torch.stack([pair.clean for pair in batch]).to(device)
    scored = [_scores_of(members, stacked([pair.noisy for pair in batch], device), clean)]
    means = [pair.mean for pair in batch if pair.mean is not None]
    if means:
        scored.append(_scores_of(attackers_of(privacy), stacked(means, device), clean))
    values, collapsed, pairs = zip(*scored, strict=True)
    table, flags = (torch.cat(columns, dim=1).cpu().numpy() for columns in (values, collapsed))
    finite = torch.stack([pair.finite for pair in pairs]).all(dim=0).tolist()
    in_range = pairs[0].clean_in_range.tolist()
    for position, item in enumerate(batch):
        row = item.index - part.start
        if not in_range[position]:
            part.failures[row] = "the clean image leaves [0, 1] by more than 1e-3; denormalise it."
            continue
        part.finite[row], part.values[row], part.collapsed[row] = finite[position], table[position], flags[position]


def _scores_of(members: Mapping[str, Metric], noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor, Pair]:
    """Scores, and which of them are collapsed, ``(images, members)``; and the pair of which they are."""
    pair = Pair(noisy, clean)
    ours = [metric for metric in members.values() if isinstance(metric, AttackerMetric)]
    pair.scores(component for metric in ours for component in metric.components)
    values, collapsed = [], []
    for metric in members.values():
        if isinstance(metric, AttackerMetric):
            values.append(metric.scores(pair).float())
            collapsed.append(metric.collapsed_images(pair))
        else:
            # A foreign metric reduces over its batch: it sees one image at a time.
            single: list[Any] = [float(metric(noisy[i : i + 1], clean[i : i + 1])) for i in range(len(pair))]
            metric.reset()
            values.append(torch.tensor(single, device=pair.device).where(pair.finite, torch.nan))
            collapsed.append(torch.zeros_like(pair.finite))
    return torch.stack(values, dim=1), torch.stack(collapsed, dim=1), pair
