"""The attackers' options -> the collection that they describe."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from torchmetrics import Metric

from attacker_metrics.evaluation.options import AttackerOptions
from attacker_metrics.jobs.ending import UsageError, bad_usage
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.reading.learned import standard_learned


def privacy_of(options: AttackerOptions, learned: Sequence[str] = ()) -> MultiAttackerPrivacy:
    """The collection that the options describe, with learned attackers of these kinds.

    Raises:
        UsageError: for settings out of range, or a metric that cannot be imported.
    """
    with bad_usage(ValueError, TypeError):
        return MultiAttackerPrivacy(
            gamma_values=options.gamma,
            blur_sigma=options.blur_sigma,
            wavelet_threshold=options.wavelet_threshold,
            betas=options.betas,
            nan_strategy="ignore",
            suite=options.suite,
            extra=[
                *standard_learned(learned, betas=options.betas, nan_strategy="ignore"),
                *(_import_metric(name) for name in options.extra),
            ],
        )


def _import_metric(name: str) -> Metric:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        metric = getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        raise UsageError(
            f"--extra {name}: {type(error).__name__}: {error}; pass MODULE:CLASS, importable from here."
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(metric, Metric):
        raise UsageError(f"--extra {name}: it makes a {type(metric).__name__}, not a torchmetrics Metric.")
    return metric
