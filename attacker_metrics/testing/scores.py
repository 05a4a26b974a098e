"""Scores: of every picture by itself, the same every time, in range, and nothing is written to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacker_metrics.attackers.modules import evaluating, modules_in
from attacker_metrics.attackers.standard import Attacker
from attacker_metrics.engine.program import is_built_in
from attacker_metrics.testing.pictures import odd_pictures
from attacker_metrics.testing.subject import ROUNDING, Subject, broken, demand_equal


def attackers_keep_shape_and_dtype(subject: Subject) -> None:
    """Each attacker by itself: one view per picture, in the dtype it was given."""
    metric = subject.fresh()
    for component in metric.components:
        for noisy_side, clean_side in component.branches:
            for images, chain in ((subject.noisy, noisy_side), (subject.clean, clean_side)):
                doubles = not modules_in(list(chain))  # weights of a module have a dtype of their own
                for dtype in (torch.float32, torch.float64)[: 1 + doubles]:
                    view = images.to(dtype)
                    for attacker in chain:
                        with torch.no_grad(), evaluating(metric._module_attackers):
                            view = _view_of(attacker, view)


def _view_of(attacker: Attacker, images: Tensor) -> Tensor:
    if is_built_in(attacker, one_way=True):
        return attacker(images)
    view: Any = attacker(images.clone())
    if not isinstance(view, Tensor) or view.ndim == 0 or len(view) != len(images):
        got = f"shape {tuple(view.shape)}" if isinstance(view, Tensor) else f"a {type(view).__name__}"
        broken(
            f"the attacker {attacker!r} must return a tensor with one view per image, ({len(images)}, C, H, W), got {got}"
            f" for {tuple(images.shape)}."
        )
    if view.dtype != images.dtype:
        broken(
            f"the attacker {attacker!r} changes the dtype: it returns {view.dtype} for {images.dtype}, so that digits are"
            " lost or invented; let it end with .to(images.dtype)."
        )
    return view


def scores_repeat(subject: Subject) -> None:
    """The same pictures score the same, also with others in between, and no generator of the user's is drawn from."""
    probe = subject.fresh()
    pictures, others = (subject.noisy[:3], subject.clean[:3]), (subject.noisy[3:].flip(3), subject.clean[3:])
    before = _random_states()
    first = subject.scores(*pictures, probe)
    if not _same_states(before, _random_states()):
        broken(
            "it draws random numbers from, or seeds, the generators that belong to the user (torch, numpy or random), so"
            " that scoring changes their training and scores may change from call to call; draw from a generator of its own"
            " that starts anew in every call, torch.Generator().manual_seed(0)."
        )
    subject.scores(*others, probe)
    again = subject.scores(*pictures, probe)

    words = (
        "the same pictures score {wanted} at first and {found} later: it keeps a state from call to call (counts, running"
        " means, a cache), or draws random numbers; a score must depend on the picture and its original alone."
    )
    demand_equal(again, first, words)


@contextmanager
def _unchanged(noisy: Tensor, clean: Tensor, call: str) -> Iterator[None]:
    before = noisy.clone(), clean.clone()
    yield
    for name, was, is_now in (("noisy", before[0], noisy), ("clean", before[1], clean)):
        if not torch.equal(was, is_now):
            broken(f"{call} writes to the {name} pictures in place, which are the user's; let it change a copy, x.clone().")


def pictures_are_left_alone(subject: Subject) -> None:
    """No call writes to the pictures it is given."""
    noisy, clean = subject.noisy.clone(), subject.clean.clone()
    with _unchanged(noisy, clean, "scores"):
        subject.scores(noisy, clean)
    with _unchanged(noisy, clean, "update"):
        subject.fresh().update(noisy, clean)
    with _unchanged(noisy, clean, "forward"):
        subject.fresh()(noisy, clean)


def pictures_are_scored_one_by_one(subject: Subject) -> None:
    """The score of a picture is the same alone, in any order and in a metric in training mode."""
    metric = subject.fresh()
    metric.train()
    together = subject.scores(subject.noisy, subject.clean, metric)
    if not isinstance(together, Tensor) or together.shape != (len(subject.noisy),):
        got = f"shape {tuple(together.shape)}" if isinstance(together, Tensor) else f"a {type(together).__name__}"
        broken(f"scores must return one number per image, shape ({len(subject.noisy)},), got {got}.")
    alone = [
        subject.scores(noisy[None], clean[None], metric) for noisy, clean in zip(subject.noisy, subject.clean, strict=True)
    ]

    words = (
        f"a picture's score depends on the others in its batch: {{wanted}} in a batch of {len(subject.noisy)}, {{found}} in"
        " another one; take statistics of each picture, such as x.mean(dim=(1, 2, 3), keepdim=True)."
    )
    demand_equal(torch.cat(alone), together, words)
    demand_equal(subject.scores(subject.noisy.flip(0), subject.clean.flip(0), metric).flip(0), together, words)


def odd_pictures_have_scores(subject: Subject) -> None:
    """Scores are finite and between the metric's bounds, whatever the pictures."""
    pairs = {"ordinary": (subject.noisy, subject.clean), **odd_pictures(subject.noisy, subject.clean)}
    lower, upper = subject.metric.plot_lower_bound, subject.metric.plot_upper_bound
    for kind, (noisy, clean) in pairs.items():
        scores = subject.scores(noisy, clean)
        bad = scores[~scores.isfinite()]
        if len(bad):
            broken(
                f"the score of {kind} pictures is {float(bad[0])}, and with one of them so is the mean; where a variance or"
                " a range can be 0, divide by x.clamp_min(1e-8)."
            )
        outside = scores[(scores < lower - ROUNDING) | (scores > upper + ROUNDING)]
        if len(outside):
            broken(
                f"the score of {kind} pictures is {float(outside[0]):.6g}, outside of [{lower:g}, {upper:g}]; scale it, or"
                " declare plot_lower_bound and plot_upper_bound in the class."
            )


def strides_and_half_precision_do_not_matter(subject: Subject) -> None:
    """The same values in another layout of memory, or in bfloat16, score the same."""
    noisy, clean = subject.noisy[:3], subject.clean[:3]
    wanted = subject.scores(noisy, clean)
    for layout, images in (
        ("channels_last", [x.contiguous(memory_format=torch.channels_last) for x in (noisy, clean)]),
        ("a transposed array", [x.mT.contiguous().mT for x in (noisy, clean)]),
    ):
        try:
            found = subject.scores(images[0], images[1])
        except Exception as error:
            broken(
                f"pictures whose memory is {layout} raise {type(error).__name__}: {error}; use .reshape instead of .view."
            )
        demand_equal(
            found,
            wanted,
            f"pictures score {{found}} where their memory is {layout}, else {{wanted}}.",
        )
    half = noisy.bfloat16(), clean.bfloat16()
    wanted = subject.scores(half[0].float(), half[1].float())
    demand_equal(
        subject.scores(*half),
        wanted,
        "bfloat16 pictures score {found}, the same values in float32 {wanted}.",
    )


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _same_states(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return (
        torch.equal(one[0], other[0])
        and one[1] == other[1]
        and all(np.array_equal(a, b) for a, b in zip(one[2], other[2], strict=True))
    )
