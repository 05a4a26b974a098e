"""Runs the steps of a study: what is done is skipped, what is left is shared by all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch

from attacker_metrics.jobs.processes import Processes
from attacker_metrics.study.config import Config
from attacker_metrics.study.data import open_images
from attacker_metrics.study.steps import STEPS, Study
from attacker_metrics.study.units import NOT_YET, Folder, Unit

MISTAKES = (ValueError, OSError, ModuleNotFoundError)
"""What is told in one line, on every process."""


class StepError(ValueError):
    """A step that cannot run because one before it is not done."""


def run_study(
    config: Config,
    output: Path,
    *,
    steps: Sequence[str] = STEPS,
    device: torch.device | None = None,
    processes: Processes | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> int:
    """Run steps of a study; call it again to go on where it stopped.

    Every unit of work is computed by one thread, so that its result does not depend on the number of cores or processes:
    start several processes under ``torchrun`` to use several cores.

    Args:
        config: the study's settings.
        output: its folder.
        steps: of :data:`~attacker_metrics.study.steps.STEPS`; those before them must be done.
        device: where networks are trained and attacked; by default the CPU.
        processes: who shares the work; by default read from the launcher's environment variables.
        tell: gets a line per unit.

    Returns:
        How many units this process has done.

    Raises:
        StepError: if a step before the asked ones is not done, or its settings have changed.
        AgreedError: on every process, if any cannot go on, saying why.
    """
    processes = processes or Processes()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        study = processes.agree(
            "study", lambda: Study(config, open_images(config.data, config.seed), device or torch.device("cpu")), *MISTAKES
        )
        folder = Folder(output)
        held = folder.held() if processes.is_first else nullcontext()
        processes.agree("lock", lambda: stack.enter_context(held), *MISTAKES)
        first = STEPS.index(min(steps, key=STEPS.index))
        processes.agree("before", lambda: _check_done(study, folder, STEPS[:first], processes), *MISTAKES)
        done = 0
        for step in STEPS:
            if step in steps:
                done += _run_step(study, step, folder, processes, tell)
    return done


def _run_step(study: Study, step: str, folder: Folder, processes: Processes, tell: Callable[[str], None]) -> int:
    done = left = skipped = 0
    for number, units in enumerate(study.waves[step]):
        wave = f"{step} {number}"

        def look(units: list[Unit] = units) -> dict[int, str]:
            if not processes.is_first:
                return {}
            reasons = {place: folder.reason_to_do(unit) for place, unit in enumerate(units)}
            return {place: reason for place, reason in reasons.items() if reason is not None}

        found = processes.agree(f"look {wave}", look, *MISTAKES)
        todo: list[tuple[int, str]] = processes.tell(f"todo {wave}", list(found.items()))
        left, skipped = left + len(todo), skipped + len(units) - len(todo)

        def work(units: list[Unit] = units, todo: list[tuple[int, str]] = todo, wave: str = wave) -> int:
            count = 0
            while (turn := processes.take(f"turn {wave}")) < len(todo):
                place, reason = todo[turn]
                again = "" if reason == NOT_YET else f", done again: {reason}"
                seconds = folder.do(units[place])
                tell(f"{units[place].title}: {seconds:.1f} s{again}")
                count += 1
            return count

        done += processes.agree(f"work {wave}", work, *MISTAKES)
    if processes.is_first and skipped:
        tell(f"{step}: {skipped} done before, skipped")
    every = [unit for units in study.waves[step] for unit in units]
    if processes.is_first and (left or not folder.is_summarized(step, every)):
        folder.summarize(step, every)
    return done


def _check_done(study: Study, folder: Folder, steps: Sequence[str], processes: Processes) -> None:
    if not processes.is_first:
        return
    for step in steps:
        for unit in (unit for units in study.waves[step] for unit in units):
            reason = folder.reason_to_do(unit)
            if reason is not None:
                raise StepError(
                    f"{unit.title} has to be done first ({reason}): run 'attacker-metrics study {step}', or 'study run'."
                )
