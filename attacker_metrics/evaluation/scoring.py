"""Pairs -> one score per pair and component, streamed: only the scores are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from attacker_metrics.attacker_metric import AttackerMetric
from attacker_metrics.collection import MultiAttackerPrivacy
from attacker_metrics.evaluation.pairs import FailedPair, LoadedPair, PairSource, batches_of_one_size
from attacker_metrics.pair import Pair


@dataclass
class Scores:
    """The outcome of a run.

    Args:
        ids: name of every pair.
        groups: group of every pair, or None.
        columns: component -> score of every pair, float32; NaN where there is none.
        collapsed: component -> bool per pair: its MS-SSIM is 0 because a term was not positive.
        skipped: indices of pairs with a NaN or infinite pixel.
        failures: index of a pair -> why it could not be scored.
        noisy_eight_bit: number of pairs whose noisy file held 8-bit values.
    """

    ids: list[str]
    groups: list[str] | None
    columns: dict[str, NDArray[np.float32]]
    collapsed: dict[str, NDArray[np.bool_]]
    skipped: list[int] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    noisy_eight_bit: int = 0

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Whether each pair has scores."""
        mask = np.ones(len(self.ids), dtype=bool)
        mask[[*self.skipped, *self.failures]] = False
        return mask


def score_pairs(
    source: PairSource,
    privacy: MultiAttackerPrivacy,
    *,
    device: torch.device,
    batch_size: int = 16,
    workers: int = 0,
    on_done: Callable[[int], None] = lambda _count: None,
) -> Scores:
    """Score every pair of a source by every member of a collection; a pair that fails does not stop the rest.

    Args:
        source: the pairs.
        privacy: the collection; its members' settings count, their states are not touched. A foreign metric given as
            ``extra`` is called once per image.
        device: where to compute.
        batch_size: pairs of equal size that are scored at once.
        workers: processes that read files; 0 reads in this one.
        on_done: called with the number of pairs that were finished just now.
    """
    members = dict(privacy.items(keep_base=True, copy_state=False))
    count = len(source)
    scores = Scores(
        ids=list(source.ids),
        groups=None if source.groups is None else list(source.groups),
        columns={name: np.full(count, np.nan, dtype=np.float32) for name in members},
        collapsed={name: np.zeros(count, dtype=bool) for name in members},
    )

    def readable() -> Iterable[LoadedPair]:
        loader: DataLoader[LoadedPair | FailedPair] = DataLoader(
            source,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
        )
        for item in loader:
            if isinstance(item, FailedPair):
                scores.failures[item.index] = item.reason
                on_done(1)
            else:
                scores.noisy_eight_bit += item.noisy_eight_bit
                yield item

    privacy = privacy.to(device)
    with torch.inference_mode():
        for batch in batches_of_one_size(readable(), batch_size):
            try:
                _score_batch(batch, privacy, device, scores)
            except Exception:  # find out which pair it is
                for pair in batch:
                    try:
                        _score_batch([pair], privacy, device, scores)
                    except Exception as error:  # noqa: PERF203
                        scores.failures[pair.index] = f"{type(error).__name__}: {error}"
            on_done(len(batch))
    return scores


def _score_batch(batch: list[LoadedPair], privacy: MultiAttackerPrivacy, device: torch.device, scores: Scores) -> None:
    noisy = torch.stack([pair.noisy for pair in batch]).to(device)
    clean = torch.stack([pair.clean for pair in batch]).to(device)
    pair = Pair(noisy, clean)
    members = dict(privacy.items(keep_base=True, copy_state=False))
    ours = {name: metric for name, metric in members.items() if isinstance(metric, AttackerMetric)}
    pair.scores(component for metric in ours.values() for component in metric.components)
    values, collapsed = {}, {}
    for name, metric in members.items():
        if isinstance(metric, AttackerMetric):
            values[name] = metric.scores(pair).float().cpu().numpy()
            collapsed[name] = metric.collapsed_images(pair).cpu().numpy()
        else:
            # A foreign metric reduces over its batch: it sees one image at a time.
            single = [float(metric(noisy[i : i + 1], clean[i : i + 1])) for i in range(len(batch))]
            metric.reset()
            values[name] = np.where(pair.finite.cpu().numpy(), np.asarray(single, dtype=np.float32), np.nan)
            collapsed[name] = np.zeros(len(batch), dtype=bool)
    finite, in_range = pair.finite.tolist(), pair.clean_in_range.tolist()
    for position, item in enumerate(batch):
        if not in_range[position]:
            scores.failures[item.index] = "the clean image leaves [0, 1] by more than 1e-3; denormalise it."
            continue
        if not finite[position]:
            scores.skipped.append(item.index)
        for name in members:
            scores.columns[name][item.index] = values[name][position]
            scores.collapsed[name][item.index] = collapsed[name][position]


def _unchanged(item: Any) -> Any:
    return item
