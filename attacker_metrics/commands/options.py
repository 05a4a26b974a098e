"""What several commands share: options, their types, and a user's mistakes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torchmetrics import Metric

from attacker_metrics.attackers import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
)
from attacker_metrics.files.terminal import printable_lines
from attacker_metrics.metrics import MultiAttackerPrivacy
from attacker_metrics.reading.learned import standard_learned
from attacker_metrics.scoring import DEFAULT_BETAS
from attacker_metrics.scoring.suites import SUITES

OK, SOME_FAILED, BAD_USAGE, GATE_EXCEEDED, BUG, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 70, 130, 143


class UsageError(ValueError):
    """A user's mistake: one message, no traceback, exit status 2."""


class Unexpected(Exception):  # noqa: N818
    """A mistake of this program's own, its cause; the message says what is left behind."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM: one message, no traceback.

    Args:
        message: what was left behind; empty if another process says so.
        status: the exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def say(message: object) -> None:
    """Tell the user of an error."""
    print(f"attacker-metrics: {printable_lines(message)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def bad_usage(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors that a user's input causes into :class:`UsageError`."""
    try:
        yield
    except errors as error:
        raise UsageError(str(error)) from error


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add the attackers' settings."""
    group = command.add_argument_group("attackers")
    group.add_argument("--resize", type=positive, metavar="S", help="scale both images so that the smaller side is S pixels")
    several: dict[str, Any] = {"type": numbers, "nargs": "+", "action": "extend", "metavar": "X"}
    group.add_argument("--gamma", **several, help=f"gamma attacker's exponents (default: {DEFAULT_GAMMA_ATTACK_VALUES})")
    group.add_argument(
        "--blur-sigma",
        type=float,
        default=DEFAULT_GAUSSIAN_BLUR_SIGMA,
        metavar="S",
        help="blur attacker's standard deviation in pixels (default: %(default)s)",
    )
    group.add_argument(
        "--wavelet-threshold",
        type=float,
        default=DEFAULT_WAVELET_SOFT_THRESHOLD,
        metavar="T",
        help="wavelet attacker's soft threshold (default: %(default)s)",
    )
    group.add_argument(
        "--betas",
        **several,
        help="MS-SSIM's exponents, one per scale; the smaller side must be at least 11, 22, 44, 88 or 176 pixels for one to"
        f" five of them (default: {DEFAULT_BETAS})",
    )
    group.add_argument(
        "--suite", choices=sorted(SUITES), help="add the attackers of a frozen suite behind the fifteen (default: none)"
    )
    group.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="a metric of your own, an AttackerMetric or any torchmetrics Metric on (noisy, clean); repeatable",
    )


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that this command did not write; inputs are never written over",
    )


def privacy_of(options: argparse.Namespace, learned: Sequence[str] = ()) -> MultiAttackerPrivacy:
    """The collection that the settings describe, with learned attackers of these kinds; defaults are filled in."""
    options.gamma = _flat(options.gamma) or DEFAULT_GAMMA_ATTACK_VALUES
    options.betas = _flat(options.betas) or DEFAULT_BETAS
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


def device_of(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; ``auto`` and ``cuda`` give each process of a host a GPU of its own if there are enough."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name.split(":")[0]):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise UsageError(f"--device {name}: not available here; available: auto, {there}.")
    if name == "cuda":
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    with bad_usage(RuntimeError):
        return torch.device(name)


def numbers(text: str) -> list[float]:
    """A type of argument: numbers separated by commas."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a comma-separated list of numbers") from None


def count(text: str) -> int:
    """A type of argument: 0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive(text: str) -> int:
    """A type of argument: 1, 2, 3, ..."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


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


def _flat(lists: list[list[float]] | None) -> tuple[float, ...]:
    return tuple(number for part in lists or [] for number in part)
