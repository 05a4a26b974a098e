"""Gradients, and what must not change a score: autocast and the compiler."""

from __future__ import annotations

import torch
from torch import Tensor

from attacker_metrics.scoring.pair import Pair
from attacker_metrics.testing.pictures import odd_pictures
from attacker_metrics.testing.subject import Subject, broken, demand_equal


def gradients_are_finite(subject: Subject) -> None:
    """The value has a gradient if the class says so, and it is finite for every finite picture, also beside a bad one."""
    spoiled = subject.noisy[:3].clone()
    spoiled[1, 0, 3, 4] = torch.nan
    pairs = {
        "ordinary": (subject.noisy, subject.clean),
        **odd_pictures(subject.noisy, subject.clean),
        "non-finite": (spoiled, subject.clean[:3]),
    }
    for kind, (noisy, clean) in pairs.items():
        gradient = _gradient(subject, noisy, clean, kind)
        if gradient is None:
            return
        if not bool(gradient.isfinite().all()):
            bad = gradient[~gradient.isfinite()][0]
            broken(
                f"the gradient of {kind} pictures is {float(bad)}; roots, powers and divisions have infinite slopes at 0:"
                " keep them away from it, as in (x.square() + 1e-6).sqrt()."
            )
        if kind == "non-finite" and bool(gradient[1].any()):
            broken("the gradient of a picture with a NaN pixel is not 0, although the picture is left out.")


def _gradient(subject: Subject, noisy: Tensor, clean: Tensor, kind: str) -> Tensor | None:
    """The gradient of forward's value; None where the class says that there is none."""
    metric, leaf = subject.fresh(), noisy.clone().requires_grad_()
    metric.nan_strategy = "ignore"
    try:
        value = metric(leaf, clean)
    except Exception as error:
        broken(
            f"pictures that require a gradient raise {type(error).__name__}: {error}; an attacker without gradients begins"
            " with x.detach(), and its metric declares is_differentiable = False."
        )
    if not metric.is_differentiable:
        return None
    if not value.requires_grad:
        broken(
            "its value has no gradient, although is_differentiable is True: use operations of torch on the pictures"
            " themselves, or declare is_differentiable = False in the class."
        )
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    if gradient is None:
        broken(f"its value does not depend on {kind} noisy pictures: the attacker must act on what it is given.")
    return gradient


def autocast_changes_nothing(subject: Subject) -> None:
    """Half precision around the metric does not reach its scores."""
    noisy, clean = subject.noisy[:3], subject.clean[:3]
    with torch.autocast(noisy.device.type, torch.bfloat16):
        found = subject.scores(noisy, clean)
    demand_equal(
        found,
        subject.scores(noisy, clean),
        "under autocast a picture scores {found}, without it {wanted}; score through super().scores(pair).",
    )


def a_compiler_changes_nothing(subject: Subject) -> None:
    """Inside ``torch.compile`` (without its code generator) scores and gradients are those of eager mode."""
    metric, differentiable = subject.fresh(), subject.metric.is_differentiable

    def scores(noisy: Tensor, clean: Tensor) -> Tensor:
        return metric.scores(Pair(noisy, clean))

    def scored(function: object) -> tuple[Tensor, Tensor]:
        leaf = subject.noisy[:3].clone().requires_grad_(bool(differentiable))
        values = function(leaf, subject.clean[:3])  # type: ignore[operator]
        if differentiable:
            values.sum().backward()
        return values.detach(), torch.zeros(()) if leaf.grad is None else leaf.grad

    torch.compiler.reset()  # else only the first few metrics of a process would be compiled
    try:
        found = scored(torch.compile(scores, backend="aot_eager"))
    except Exception as error:
        broken(
            f"torch.compile fails: {type(error).__name__}: {str(error)[:500]}; put torch.compiler.disable before the"
            " attacker if it cannot be compiled."
        )
    finally:
        torch.compiler.reset()
    for what, one, other in zip(("scores", "gradients"), found, scored(scores), strict=True):
        demand_equal(one, other, f"compiled {what} are {{found}}, those of eager mode {{wanted}}.")
