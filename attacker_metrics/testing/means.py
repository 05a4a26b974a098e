"""The mean: of all pictures, whatever the batches, without empty ones and those that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from attacker_metrics.metrics.attacker_metric import NonFiniteImageError
from attacker_metrics.testing.subject import Subject, broken, demand_equal

_NOTHING = slice(0, 0)


def means_are_of_all_pictures(subject: Subject) -> None:
    """Any batches give the same value, twice; reset forgets; forward returns the batch's and adds it."""
    everything = slice(0, len(subject.noisy))
    whole = subject.updated(everything)
    value = whole.compute()
    if not isinstance(value, Tensor) or value.ndim or not value.dtype.is_floating_point:
        broken(f"compute must return a floating scalar tensor, got {value!r}.")
    demand_equal(whole.compute(), value, "a second compute returns {found}, the first one {wanted}.")
    demand_equal(
        subject.updated(*subject.shares).compute(),
        value,
        (
            "the value depends on the batches: {found} of batches of different sizes, {wanted} of all pictures at once; add"
            " up scores and count pictures, never average the batches' means."
        ),
    )
    _demand_count(int(whole.count), len(subject.noisy), "update")
    whole.reset()
    whole.update(subject.noisy[:3], subject.clean[:3])
    first = subject.updated(subject.shares[0]).compute()
    demand_equal(whole.compute(), first, "reset forgets not everything: {found} after it, {wanted} of a new metric.")
    called = subject.fresh()
    returned = called(subject.noisy[:3], subject.clean[:3])
    demand_equal(returned.detach(), first, "forward returns {found}, but compute of the same batch is {wanted}.")
    called(subject.noisy[3:], subject.clean[3:])
    demand_equal(
        called.compute(),
        value,
        "after forward compute is {found}, after update of the same pictures {wanted}.",
    )
    _demand_count(int(called.count), len(subject.noisy), "forward")
    for name, state in called.metric_state.items():
        if isinstance(state, Tensor) and state.requires_grad:
            broken(
                f"the state {name!r} keeps the graph of every batch, so that memory grows without end; add detached values."
            )


def empty_batches_are_nothing(subject: Subject) -> None:
    """A batch of no picture changes nothing, before others and after."""
    value = subject.updated(subject.shares[0]).compute()
    found = subject.updated(_NOTHING, subject.shares[0], _NOTHING)
    demand_equal(found.compute(), value, "with an empty batch the value is {found}, without it {wanted}.")
    found(subject.noisy[:0], subject.clean[:0])
    demand_equal(found.compute(), value, "an empty batch in forward makes the value {found}, before {wanted}.")
    _demand_count(int(found.count), 3, "an empty batch")
    nothing = subject.updated(_NOTHING).compute()
    if not bool(nothing.isnan()):
        broken(f"of no picture at all compute returns {float(nothing):g}, which reads as a score; it must be NaN.")


def bad_pictures_are_left_out(subject: Subject) -> None:
    """A pair with a NaN or infinite pixel is counted as skipped, changes no other, and is refused where one asks for it."""
    for bad in (torch.nan, torch.inf):
        noisy = subject.noisy.clone()
        noisy[1, 0, 3, 4] = bad
        metric = subject.fresh()
        metric.nan_strategy = "ignore"
        metric.update(noisy, subject.clean)
        kept = [k for k in range(len(noisy)) if k != 1]
        without = subject.fresh()
        without.update(subject.noisy[kept], subject.clean[kept])
        demand_equal(
            metric.compute(),
            without.compute(),
            (
                f"a picture with a pixel that is {bad} makes the mean {{found}} instead of {{wanted}}: it must be left out,"
                " and leave the others as they are."
            ),
        )
        if int(metric.skipped) != 1:
            broken(f"a picture with a pixel that is {bad} is not counted: skipped is {int(metric.skipped)} instead of 1.")
        strict = subject.fresh()
        strict.nan_strategy = "error"
        try:
            strict.update(noisy, subject.clean)
            strict.compute()
        except NonFiniteImageError:
            continue
        broken(f"nan_strategy='error' does not refuse a picture with a pixel that is {bad}; call super().check(pair).")


def _demand_count(found: int, wanted: int, call: str) -> None:
    if found != wanted:
        broken(f"after {call} count is {found}, but {wanted} pictures were given; let the base class count them.")
