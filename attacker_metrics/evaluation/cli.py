"""The commands: ``attacker-metrics evaluate`` and ``attacker-metrics views``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torchmetrics import Metric

import attacker_metrics
from attacker_metrics import (
    DEFAULT_BETAS,
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
    MultiAttackerPrivacy,
)
from attacker_metrics.comparison import cli as comparison
from attacker_metrics.evaluation import report
from attacker_metrics.evaluation.images import ImageError
from attacker_metrics.evaluation.pairs import BuiltInPairs, FolderPairs, LoadedPair, load_pair
from attacker_metrics.evaluation.scoring import Scores, score_pairs
from attacker_metrics.evaluation.summary import STATISTICS, Gate, summarize
from attacker_metrics.evaluation.views import views_png

OK, SOME_FAILED, BAD_USAGE, GATE_EXCEEDED, INTERRUPTED = 0, 1, 2, 3, 130

_DEFAULT_OUTPUT = Path("attacker-metrics-report")


class UsageError(ValueError):
    """A user's mistake: one message, no traceback, exit status 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 fine, 1 some pairs failed, 2 bad usage, 3 a limit was exceeded."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except (UsageError, OSError) as error:
        print(f"attacker-metrics: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("attacker-metrics: interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    return status


def evaluate(options: argparse.Namespace) -> int:
    """Score pairs, print the table, write the report."""
    if (options.clean is None) != (options.noisy is None):
        raise UsageError("--clean and --noisy belong together; without both, the built-in photographs are evaluated.")
    privacy, device = _privacy(options), _device(options.device)
    gates = [_known(gate, privacy) for gate in options.fail_above]
    source = _source(options)
    errors = Console(stderr=True)
    with _bad_usage(OSError), report.staged(options.output) as stage:
        with _progress(errors, len(source)) as on_done:
            scores = score_pairs(
                source, privacy, device=device, batch_size=options.batch_size, workers=options.workers, on_done=on_done
            )
        summary = summarize(scores, {**_settings(options), "unmatched": list(source.unmatched)}, gates)
        report.write_outputs(stage, scores, summary, _gallery(options.gallery, source, scores, privacy))
    _show(options, summary, errors)
    if any(gate["exceeded"] for gate in summary["gates"]):
        return GATE_EXCEEDED
    return SOME_FAILED if summary["failed"] else OK


def views(options: argparse.Namespace) -> int:
    """Draw what every attacker sees of one pair."""
    privacy = _privacy(options)
    with _bad_usage(ImageError):
        pair = load_pair(options.clean, options.noisy, side=options.resize)
    with _bad_usage(ValueError):
        png = views_png(pair, privacy, title=f"{options.noisy.name} against {options.clean.name}")
    with report.staged(options.output.parent) as stage:
        (stage / options.output.name).write_bytes(png)
    print(f"wrote {options.output} (it holds image data)")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attacker-metrics", description="How much of a hidden picture can still be read out of what was sent."
    )
    parser.add_argument("--version", action="version", version=f"attacker-metrics {attacker_metrics.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "evaluate",
        help="score pairs of images and write a report",
        description="Score pairs of noisy and clean images after every attacker's post-processing. Without --clean and"
        " --noisy it evaluates four built-in photographs under six built-in obfuscations.",
        epilog="Exit status: 0 all fine, 1 some pairs failed, 2 bad usage, 3 a --fail-above limit was exceeded.",
    )
    command.set_defaults(command=evaluate)
    files = command.add_argument_group("images")
    files.add_argument("--clean", type=Path, metavar="DIR", help="folder of the originals")
    files.add_argument(
        "--noisy",
        type=Path,
        metavar="DIR",
        help="folder of the noisy images, paired with the originals by relative path without suffix: PNG, JPEG, WebP, BMP,"
        " TIFF, or .npy and .pt tensors (3, H, W) in the scale of the originals that may leave [0, 1]",
    )
    files.add_argument("--allow-unmatched", action="store_true", help="leave files without a partner out")
    command.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT, metavar="DIR", help="where (default: %(default)s)")
    command.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="where to compute (default: auto)")
    command.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="pairs at once (default: 16)")
    command.add_argument("--workers", type=_count, default=0, metavar="N", help="processes that read files (default: 0)")
    command.add_argument(
        "--gallery",
        type=_count,
        default=0,
        metavar="N",
        help="add what each attacker sees of the N most leaking pairs to the report: this stores image data in it",
    )
    command.add_argument(
        "--fail-above",
        type=_gate,
        action="append",
        default=[],
        metavar="COMPONENT=VALUE[@mean|p95|max]",
        help="exit with status 3 if that statistic (default: mean) of a component is above the value; repeatable",
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON instead of the table")
    _add_settings(command)

    command = commands.add_parser(
        "views",
        help="draw what every attacker sees of one pair",
        description="Draw what every attacker sees of one pair, each tile with its score. The picture holds image data.",
    )
    command.set_defaults(command=views)
    command.add_argument("clean", type=Path, metavar="CLEAN")
    command.add_argument("noisy", type=Path, metavar="NOISY")
    command.add_argument("--output", type=Path, required=True, metavar="PNG", help="the picture to write")
    _add_settings(command)

    comparison.add(commands)
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("attackers")
    group.add_argument(
        "--resize", type=_positive, metavar="S", help="scale both images so that the smaller side is S pixels"
    )
    numbers: dict[str, Any] = {"type": _numbers, "nargs": "+", "action": "extend", "metavar": "X"}
    group.add_argument("--gamma", **numbers, help=f"gamma attacker's exponents (default: {DEFAULT_GAMMA_ATTACK_VALUES})")
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
        **numbers,
        help="MS-SSIM's exponents, one per scale; the smaller side must be at least 11, 22, 44, 88 or 176 pixels for one to"
        f" five of them (default: {DEFAULT_BETAS})",
    )
    group.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="a metric of your own, an AttackerMetric or any torchmetrics Metric on (noisy, clean); repeatable",
    )


def _privacy(options: argparse.Namespace) -> MultiAttackerPrivacy:
    options.gamma = _flat(options.gamma) or DEFAULT_GAMMA_ATTACK_VALUES
    options.betas = _flat(options.betas) or DEFAULT_BETAS
    with _bad_usage(ValueError, TypeError):
        return MultiAttackerPrivacy(
            gamma_values=options.gamma,
            blur_sigma=options.blur_sigma,
            wavelet_threshold=options.wavelet_threshold,
            betas=options.betas,
            nan_strategy="ignore",
            extra=[_import_metric(name) for name in options.extra],
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


def _device(name: str) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name.split(":")[0]):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise UsageError(f"--device {name}: not available here; available: auto, {there}.")
    with _bad_usage(RuntimeError):
        return torch.device(name)


def _source(options: argparse.Namespace) -> FolderPairs | BuiltInPairs:
    if options.clean is None:
        if options.resize is not None or options.allow_unmatched:
            raise UsageError("--resize and --allow-unmatched need --clean and --noisy.")
        return BuiltInPairs()
    with _bad_usage(ValueError):
        return FolderPairs(options.clean, options.noisy, side=options.resize, allow_unmatched=options.allow_unmatched)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings = {name: value for name, value in vars(options).items() if name not in ("command", "json", "fail_above")}
    for name, value in settings.items():
        settings[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return {**settings, "fail_above": [str(gate) for gate in options.fail_above]}


def _gallery(
    count: int, source: FolderPairs | BuiltInPairs, scores: Scores, privacy: MultiAttackerPrivacy
) -> list[tuple[str, bytes]]:
    shown = []
    for index in report.most_leaking_pairs(scores, count):
        pair = source[index]
        if isinstance(pair, LoadedPair):  # the file could have changed since it was scored
            shown.append((scores.ids[index], views_png(pair, privacy.cpu(), title=scores.ids[index], dots_per_inch=80)))
    return shown


def _show(options: argparse.Namespace, summary: dict[str, Any], errors: Console) -> None:
    for pair, reason in summary["failed_pairs"].items():
        errors.print(f"failed: {pair}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    if options.json:
        print(report.as_json(summary), end="")
    else:
        terminal = Console(width=None if sys.stdout.isatty() else 130)
        terminal.print(report.as_table(summary))
        for sentence in summary["readings"]:
            terminal.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)
        terminal.print(f"\nreport: {options.output / report.REPORT}", markup=False, highlight=False, soft_wrap=True)
    for gate in summary["gates"]:
        if gate["exceeded"]:
            value = "no score to judge by" if gate["value"] is None else f"{gate['value']:.6g}"
            pairs = gate["pairs_above"]
            named = ", ".join(pairs[:10]) + (f" and {len(pairs) - 10} more (see summary.json)" if len(pairs) > 10 else "")
            errors.print(
                f"limit exceeded: {gate['component']} {gate['statistic']} is {value}, limit {gate['limit']:g};"
                f" images above it: {named or 'none'}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


@contextlib.contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    with warnings.catch_warnings(), Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        warnings.simplefilter("ignore")  # what matters is in the report
        task = progress.add_task("scoring", total=total)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def _bad_usage(*errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise UsageError(str(error)) from error


def _known(gate: Gate, privacy: MultiAttackerPrivacy) -> Gate:
    names = list(privacy.keys(keep_base=True))
    if gate.component not in names:
        raise UsageError(
            f"--fail-above {gate}: there is no component {gate.component!r}; there are {', '.join(map(str, names))}."
        )
    return gate


def _gate(text: str) -> Gate:
    name, equals, rest = text.partition("=")
    value, at, statistic = rest.partition("@")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not (name and equals) or not math.isfinite(limit) or (at and statistic not in STATISTICS):
        raise argparse.ArgumentTypeError(f"{text!r} is not COMPONENT=VALUE[@{'|'.join(STATISTICS)}], e.g. ms_ssim=0.3@p95")
    return Gate(name, limit, statistic or STATISTICS[0])


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a comma-separated list of numbers") from None


def _flat(lists: list[list[float]] | None) -> tuple[float, ...]:
    return tuple(number for numbers in lists or [] for number in numbers)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
