"""Copies: pickled, stored, merged, in a collection, on ranks with uneven shares."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from attacker_metrics.attackers.standard import clamp
from attacker_metrics.metrics.attacker_metric import AttackerMetric
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.scoring.components import Component
from attacker_metrics.scoring.similarity import SquaredPearson
from attacker_metrics.testing.subject import Subject, broken, copied, demand_equal

_AT_THE_TOP = "define its class and its attackers at the top of a module, not as a lambda or inside of a function"


def copies_go_on_alone(subject: Subject) -> None:
    """Pickles, deep copies and clones hold the same state and settings, and count for themselves."""
    first, last = subject.shares[0], slice(3, len(subject.noisy))
    value = subject.updated(first).compute()
    total = subject.updated(first, last).compute()
    ways: dict[str, Callable[[AttackerMetric], Any]] = {
        "pickled": lambda metric: pickle.loads(_pickled(metric)),  # noqa: S301 - made just now # nosec B301
        "deep": copy.deepcopy,
        "cloned": lambda metric: metric.clone(),
    }
    for way, make in ways.items():
        unseen = subject.fresh()
        if _names(make(unseen)) != _names(unseen):
            broken(f"a {way} copy counts as another metric, so that the two cannot be merged: {_identity(unseen)}")
        metric = subject.updated(first)
        other = make(metric)
        demand_equal(other.compute(), value, f"a {way} copy has the value {{found}} instead of {{wanted}}.")
        other.update(subject.noisy[last], subject.clean[last])
        demand_equal(other.compute(), total, f"a {way} copy that goes on ends at {{found}} instead of {{wanted}}.")
        demand_equal(metric.compute(), value, f"updates of a {way} copy reach the original: {{found}}, was {{wanted}}.")


def _pickled(metric: AttackerMetric) -> bytes:
    try:
        return pickle.dumps(metric)
    except Exception as error:
        broken(f"it cannot be pickled, so it reaches no worker: {type(error).__name__}: {error}; {_AT_THE_TOP}.")


def _names(metric: AttackerMetric) -> set[str]:
    metric.settle()
    return set(metric.metric_state)


def _identity(metric: AttackerMetric) -> str:
    return metric.advice().strip() or "give its class a method __metric_identity__() that returns its settings."


def the_state_is_stored(subject: Subject) -> None:
    """A ``state_dict`` gives another copy the same value."""
    metric = subject.updated(subject.shares[0])
    metric.persistent(True)
    other = subject.fresh()
    other.persistent(True)
    result = other.load_state_dict(metric.state_dict(), strict=False)
    if result.missing_keys or result.unexpected_keys:
        broken(
            f"a copy does not take its state_dict: missing {result.missing_keys}, unexpected {result.unexpected_keys};"
            f" {_identity(metric)}"
        )
    demand_equal(
        other.compute(),
        metric.compute(),
        "after load_state_dict the value is {found}, that of the stored metric {wanted}.",
    )


def parts_merge(subject: Subject) -> None:
    """Parts add up to one pass: before and after updates, from a worker's pickle, as a state, and after a compute."""
    wanted = subject.updated(slice(0, len(subject.noisy))).compute()
    parts = [pickle.loads(_pickled(subject.updated(share))) for share in subject.shares]  # noqa: S301 - made just now # nosec B301
    totals = {
        "new": subject.fresh(),
        "updated": subject.updated(subject.shares[0]),
        "computed": subject.updated(subject.shares[0]),
    }
    totals["computed"].compute()
    for kind, total in totals.items():
        for part in parts if kind == "new" else parts[1:]:
            total.merge_state(part.metric_state if kind == "computed" else part)
        demand_equal(
            total.compute(),
            wanted,
            f"parts merged into a {kind} metric give {{found}}, one pass {{wanted}}.",
        )
    for number, other in enumerate(subject.others, 1):
        if _names(other) == _names(subject.metric):
            broken(
                f"metric {number} of the others counts as the same, and would be merged silently: its settings must be"
                " attributes, or part of the component, or be returned by __metric_identity__()."
            )


def plain_collections_keep_metrics_apart(subject: Subject) -> None:
    """A plain ``MetricCollection`` takes it for no other metric, even after a flat first batch; an extra it may be, too."""
    plain = AttackerMetric(Component("check_attacker_plain", SquaredPearson(), (clamp,)), nan_strategy="ignore")
    twin = AttackerMetric(Component(subject.metric.name, SquaredPearson(), (clamp,), (clamp,)), nan_strategy="ignore")
    neighbours = {"plain": plain, "twin": twin, **{f"other_{k}": other for k, other in enumerate(subject.others)}}
    flat = torch.full_like(subject.clean[:2], 0.5)
    batches = ((flat, flat), (subject.noisy, subject.clean))

    def after(metric: Any) -> Any:
        for noisy, clean in batches:
            metric.update(noisy, clean)
        return metric.compute()

    members = {"own": subject.fresh(), "same": subject.fresh(), **{name: copy.deepcopy(m) for name, m in neighbours.items()}}
    together = after(MetricCollection(dict(members)))
    for name, metric in members.items():
        demand_equal(
            together[name],
            after(copied(metric)),
            (
                f"in a plain MetricCollection {'it' if name == 'own' else name!r} has the value {{found}}, alone {{wanted}}:"
                " torchmetrics took two metrics for the same after a flat first batch; leave the names of the states"
                " to the base class."
            ),
        )
    collection = MultiAttackerPrivacy(
        compute_ms_ssim=False, nan_strategy="ignore", extra={"check_attacker": subject.fresh()}
    )
    demand_equal(
        after(collection)["check_attacker"],
        after(subject.fresh()),
        "as an extra of MultiAttackerPrivacy it has the value {found}, alone {wanted}.",
    )


def _differ(old: Any, new: Any) -> bool:
    return isinstance(old, Tensor) and not torch.equal(old, new)


class _Ranks:
    """Threads in the place of processes: a gather that waits for all, and fails where one never comes."""

    def __init__(self, size: int) -> None:
        self._size, self._sent, self._left = size, dict[int, dict[int, Tensor]](), set[int]()
        self._calls, self._changed = [0] * size, threading.Condition()

    def gather_of(self, rank: int) -> Callable[..., list[Tensor]]:
        def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
            del group
            with self._changed:
                call = self._calls[rank]
                self._calls[rank] += 1
                here = self._sent.setdefault(call, {})
                here[rank] = tensor
                self._changed.notify_all()
                self._changed.wait_for(lambda: len(here) == self._size or self._left - here.keys())
                if len(here) < self._size:
                    broken(
                        f"processes with uneven shares would wait for ever: rank {rank} gathers {call + 1} times, another"
                        f" one {call} times; keep sums, which every rank has, instead of lists."
                    )
                return [here[other] for other in range(self._size)]

        return gather

    def leave(self, rank: int) -> None:
        with self._changed:
            self._left.add(rank)
            self._changed.notify_all()


def uneven_ranks_agree(subject: Subject) -> None:
    """Four ranks, one without any picture, return one process's value, and keep their own state."""
    shares: Sequence[Sequence[slice]] = (subject.shares[:2], (), subject.shares[2:], (slice(0, 0),))
    ranks, wanted = _Ranks(len(shares)), subject.updated(*subject.shares).compute()
    metrics = [subject.updated(*share) for share in shares]
    for metric in metrics:
        metric.settle()  # names its states, also where it has seen nothing
    before = [copy.deepcopy(metric.metric_state) for metric in metrics]
    found: list[Any] = [None] * len(shares)

    def run(rank: int, metric: AttackerMetric) -> None:
        metric.dist_sync_fn, metric.distributed_available_fn = ranks.gather_of(rank), lambda: True
        metric.sync_on_compute = metric._to_sync = True
        try:
            found[rank] = metric.compute()
        except Exception as error:
            found[rank] = error
        finally:
            ranks.leave(rank)

    threads = [threading.Thread(target=run, args=(rank, metric)) for rank, metric in enumerate(metrics)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value in found:
        if isinstance(value, Exception):
            raise value
        demand_equal(
            value,
            wanted,
            (
                f"{len(shares)} ranks with uneven shares compute {{found}}, one process {{wanted}}; states must add up"
                " to those of one."
            ),
        )
    for metric, state in zip(metrics, before, strict=True):
        if any(_differ(old, metric.metric_state[name]) for name, old in state.items()):
            broken("after compute a rank holds the sums of all ranks, so that the next compute counts them again.")
