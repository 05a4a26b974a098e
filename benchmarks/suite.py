"""What the frozen suites cost beside the fifteen components, and the learned attackers beside them; CPU time.

python benchmarks/suite.py [--batch 8] [--size 224] [--rounds 15] [--threads 1] [--backend torch] [--output DIR]

First the fifteen and the suites, without learned attackers and unrelated pairs: the bar. Then each learned attacker: seconds
per pair that it is fitted on, seconds that solving takes once, and seconds per pair that both of its scores take.

CPU time counts threads that wait for each other, too: where other programs want the cores, use ``--threads 1``. Two threads
on two busy cores read 6.0 instead of 1.9 for two pairs of 176 pixels, and 2.0 again with ``OMP_WAIT_POLICY=passive``.
"""

from __future__ import annotations

import sys
from typing import Any

import frame
import torch
from loss import photographs
from torch import Tensor

from attacker_metrics import MultiAttackerPrivacy, backend
from attacker_metrics.reading.learned import STANDARD_LEARNED, standard_learned
from attacker_metrics.scoring.pair import Pair

BARS = {"standard-v1": 2.5, "standard-v2": 6.0}
"""The most that a suite may cost, as a multiple of the fifteen; standard-v2 of the fifteen in torch."""
FIFTEEN = "the fifteen"
FIT, SOLVE, SCORE = "fit", "solve", "score"


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--batch", type=int, default=8, help="pairs (default: 8)")
    parser.add_argument("--size", type=int, default=224, help="pixels a side (default: 224)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default: 15)")
    options = frame.engine_options(parser)
    noisy, clean = photographs((options.batch, 3, options.size, options.size), "cpu")
    collections = {FIFTEEN: MultiAttackerPrivacy(), **{suite: MultiAttackerPrivacy(suite=suite) for suite in BARS}}

    def step(privacy: MultiAttackerPrivacy) -> frame.Step:
        return lambda: privacy.update(noisy, clean)

    with torch.inference_mode():
        steps = {name: step(privacy) for name, privacy in collections.items()}
        results = frame.summarise(frame.interleave(steps, rounds=options.rounds), FIFTEEN)
    header = ["contender", "wall ms", "CPU ms", "CPU ratio"]
    rows = [
        [name, frame.cell(found["wall_s"], 1e3), frame.cell(found["cpu_s"], 1e3), frame.cell(found["cpu_s"]["ratio"], 1, 2)]
        for name, found in results.items()
    ]
    print(frame.markdown(header, rows))
    learned = {kind: cost(kind, noisy, clean, options.rounds) for kind in STANDARD_LEARNED}
    header = ["learned attacker", "CPU ms per fit pair", "CPU ms to solve, once", "CPU ms per scored pair"]
    rows = [
        [
            kind,
            frame.cell(found[FIT]["cpu_s"], 1e3 / options.batch),
            frame.cell(found[SOLVE]["cpu_s"], 1e3),
            frame.cell(found[SCORE]["cpu_s"], 1e3 / options.batch),
        ]
        for kind, found in learned.items()
    ]
    print(frame.markdown(header, rows))
    payload = {"backend": backend(), "batch": options.batch, "size": options.size, "bars": BARS, "results": results}
    print(f"wrote {frame.save(f'suite-{backend()}', {**payload, 'learned': learned}, options.output).name}")
    # The oracles are written in torch whatever evaluates the fifteen, so their bar is against torch.
    held = [suite for suite in BARS if suite != "standard-v2" or backend() == "torch"]
    ratios = {suite: results[suite]["cpu_s"]["ratio"]["median"] for suite in held}
    if costly := [f"{suite} costs {ratio:.2f} times the fifteen" for suite, ratio in ratios.items() if ratio > BARS[suite]]:
        sys.exit(f"{', '.join(costly)}: more than {BARS}.")


def cost(kind: str, noisy: Tensor, clean: Tensor, rounds: int) -> dict[str, Any]:
    """Of one learned attacker: a batch to fit on, the solution, and a batch's two scores."""
    metrics = standard_learned([kind])
    fitted = metrics[0].attacker
    fitted.fit_update(noisy, clean)
    fitted.fit_compute()

    def fit() -> None:
        STANDARD_LEARNED[kind]().fit_update(noisy, clean)

    def score() -> None:
        pair = Pair(noisy, clean)
        for metric in metrics:
            metric.scores(pair)

    waiting = STANDARD_LEARNED[kind]()
    waiting.fit_update(noisy, clean)
    state = waiting.fit_state()

    def solve() -> None:
        attacker = STANDARD_LEARNED[kind]()
        attacker.fit_merge(state)
        attacker.fit_compute()

    with torch.inference_mode():
        found = frame.summarise(frame.interleave({FIT: fit, SCORE: score}, rounds=rounds), FIT)
        return found | frame.summarise(frame.interleave({SOLVE: solve}, rounds=max(1, rounds // 5)), SOLVE)


if __name__ == "__main__":
    main()
