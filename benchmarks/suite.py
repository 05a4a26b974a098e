"""What the frozen suite costs beside the fifteen components, without learned attackers and unrelated pairs; CPU time.

python benchmarks/suite.py [--batch 8] [--size 224] [--rounds 15] [--threads 1] [--backend torch] [--output DIR]
"""

from __future__ import annotations

import sys

import frame
import torch
from loss import photographs

from attacker_metrics import MultiAttackerPrivacy, backend

BAR = 2.5
"""The most that ``standard-v1`` may cost, as a multiple of the fifteen."""
FIFTEEN, SUITE = "the fifteen", "standard-v1"


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--batch", type=int, default=8, help="pairs (default: 8)")
    parser.add_argument("--size", type=int, default=224, help="pixels a side (default: 224)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default: 15)")
    options = frame.engine_options(parser)
    noisy, clean = photographs((options.batch, 3, options.size, options.size), "cpu")
    collections = {FIFTEEN: MultiAttackerPrivacy(), SUITE: MultiAttackerPrivacy(suite=SUITE)}

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
    payload = {"backend": backend(), "batch": options.batch, "size": options.size, "bar": BAR, "results": results}
    print(f"wrote {frame.save('suite', payload, options.output).name}")
    ratio = results[SUITE]["cpu_s"]["ratio"]["median"]
    if ratio > BAR:
        sys.exit(f"{SUITE} costs {ratio:.2f} times the fifteen, more than {BAR}.")


if __name__ == "__main__":
    main()
