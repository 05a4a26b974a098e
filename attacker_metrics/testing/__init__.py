"""What any metric of an attacker must survive, a user's own as the library's: :func:`check_attacker`.

In: an :class:`~attacker_metrics.AttackerMetric`. Out: nothing, or an ``AssertionError`` that says in words what failed and
what to do. It needs no test framework; nothing else of the library imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor

from attacker_metrics._warnings import AttackerMetricsWarning
from attacker_metrics.metrics.attacker_metric import AttackerMetric
from attacker_metrics.testing.copies import (
    copies_go_on_alone,
    parts_merge,
    plain_collections_keep_metrics_apart,
    the_state_is_stored,
    uneven_ranks_agree,
)
from attacker_metrics.testing.gradients import a_compiler_changes_nothing, autocast_changes_nothing, gradients_are_finite
from attacker_metrics.testing.means import bad_pictures_are_left_out, empty_batches_are_nothing, means_are_of_all_pictures
from attacker_metrics.testing.scores import (
    attackers_keep_shape_and_dtype,
    odd_pictures_have_scores,
    pictures_are_left_alone,
    pictures_are_scored_one_by_one,
    scores_repeat,
    strides_and_half_precision_do_not_matter,
)
from attacker_metrics.testing.subject import BrokenError, Subject, subject_of

__all__ = ["CHECKS", "check_attacker"]

CHECKS: dict[str, Callable[[Subject], None]] = {
    "attackers alone": attackers_keep_shape_and_dtype,
    "repetition": scores_repeat,
    "pictures": pictures_are_left_alone,
    "image by image": pictures_are_scored_one_by_one,
    "odd pictures": odd_pictures_have_scores,
    "strides and half precision": strides_and_half_precision_do_not_matter,
    "mean": means_are_of_all_pictures,
    "empty batch": empty_batches_are_nothing,
    "non-finite pixels": bad_pictures_are_left_out,
    "gradients": gradients_are_finite,
    "autocast": autocast_changes_nothing,
    "pickle": copies_go_on_alone,
    "state_dict": the_state_is_stored,
    "merge": parts_merge,
    "compute groups": plain_collections_keep_metrics_apart,
    "uneven ranks": uneven_ranks_agree,
    "compile": a_compiler_changes_nothing,
}
"""What is checked, in this order: the name under which a failure is reported -> the check."""


def check_attacker(
    metric: AttackerMetric, *others: AttackerMetric, noisy: Tensor | None = None, clean: Tensor | None = None
) -> None:
    """Check that a metric of an attacker of one's own does what the library's do, wherever they may be used.

    Its scores repeat, do not depend on the other pictures of a batch, are finite and in range for flat, inverted and
    saturated pictures too; the mean is that of all pictures, whatever the batches, without empty ones and those with NaN
    pixels; gradients are finite; copies, pickles and stored states go on alone; parts merge; a plain ``MetricCollection``
    shares its states with no other metric; ranks with uneven shares return the numbers of one process (as threads here, with
    a gather of their own); autocast and ``torch.compile`` change nothing. The metric itself is left as it is.

    Args:
        metric: what to check; a learned one has to be fitted.
        others: metrics of the same class with other settings or another fit, which must not count as the same.
        noisy: at least six sent pictures ``(B, 3, H, W)`` like those that the attacker is for; by default seven small ones
            are made, in the smallest of a few sizes that the metric takes.
        clean: their originals in [0, 1].

    Raises:
        AssertionError: what failed, with figures, and what to do about it; an error of the metric's own is its
            ``__cause__``.
        TypeError: if a metric is no ``AttackerMetric``.
        ValueError: if only one of ``noisy`` and ``clean`` is given, or fewer than six pictures.

    Example:
        >>> import torch
        >>> from attacker_metrics import AttackerMetric, Component, SquaredPearson
        >>> check_attacker(AttackerMetric(Component("negative", SquaredPearson(), noisy=(torch.negative,))))
        >>> def centered(images):
        ...     return images - images.mean()
        >>> check_attacker(AttackerMetric(Component("centered", SquaredPearson(), noisy=(centered, torch.relu))))
        Traceback (most recent call last):
        ...
        AssertionError: AttackerMetric 'centered', image by image: a picture's score depends on the others in its batch: ...
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackerMetricsWarning)  # of pictures that are odd on purpose
        subject = subject_of(metric, others, noisy, clean)
        for name, check in CHECKS.items():
            _run(name, check, subject)


def _run(name: str, check: Callable[[Subject], None], subject: Subject) -> None:
    try:
        check(subject)
    except BrokenError as error:
        raise AssertionError(f"{subject.name}, {name}: {error}") from (error.__cause__ or error.__context__)
    except Exception as error:
        raise AssertionError(f"{subject.name}, {name}: raised {type(error).__name__}: {error}") from error
