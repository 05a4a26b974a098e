"""How often the 95 % intervals of attacker_metrics.statistics hold the truth, in simulated samples; the bar is 93 %.

python benchmarks/interval_coverage.py [--samples N] [--output DIR]

For means beside the percentile and BCa intervals of SciPy. The share of N samples has an error of its own, 1 point for
2,000 (two standard errors); a line misses the bar if it does so by more than that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import frame
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attacker_metrics.statistics import mean_interval, mean_of_worst, quantile, success_rate

BAR = 0.93
RESAMPLES = 1000
Sample = tuple[NDArray[Any], NDArray[Any] | None]
Interval = Callable[[Sample, int], tuple[float, float]]
SCORES: dict[str, tuple[Callable[[np.random.Generator, int], NDArray[np.float64]], float]] = {
    "skewed, beta(0.5, 5)": (lambda random, n: random.beta(0.5, 5, n), 1 / 11),
    "mild, beta(2, 5)": (lambda random, n: random.beta(2, 5, n), 2 / 7),
    "nearly all leak, beta(5, 1)": (lambda random, n: random.beta(5, 1, n), 5 / 6),
    "70 % are 0": (lambda random, n: (random.random(n) < 0.3) * random.beta(2, 2, n), 0.15),
}

UNEQUAL = {
    "one of 500 pairs and 19 of one": (500, *[1] * 19),
    "20 sizes by Zipf's law": tuple(300 // k for k in range(1, 21)),
    "60 sizes by Zipf's law": tuple(300 // k for k in range(1, 61)),
    "three of 100 and 17 of two": (*[100] * 3, *[2] * 17),
}


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--samples", type=int, default=2000, help="simulated samples per line (default: 2000)")
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    frame.prepare(1)
    results: dict[str, dict[str, float]] = {}
    for name, draw, truth, intervals in cases():
        results[name] = covered(draw, truth, intervals, options.samples)
        print(name, results[name], flush=True)
    methods = list(dict.fromkeys(method for shares in results.values() for method in shares))
    rows = [[name, *(f"{shares[m]:.3f}" if m in shares else "" for m in methods)] for name, shares in results.items()]
    print(frame.markdown(["interval", *methods], rows))
    slack = 2 * math.sqrt(BAR * (1 - BAR) / options.samples)
    missed = [name for name, shares in results.items() if shares["ours"] + slack < BAR]
    print(f"\nbelow the bar of {BAR}: {', '.join(missed) or 'none'}")
    payload = {"samples": options.samples, "resamples": RESAMPLES, "bar": BAR, "coverage": results}
    print(f"wrote {frame.save('interval_coverage', payload, options.output).name}")
    assert not missed


def cases() -> list[tuple[str, Callable[[np.random.Generator], Sample], float, dict[str, Interval]]]:
    """Name, how to draw a sample, the true value, and the intervals to try."""
    found: list[tuple[str, Callable[[np.random.Generator], Sample], float, dict[str, Interval]]] = []
    means: dict[str, Interval] = {
        "ours": our_mean,
        "percentile": partial(scipys, "percentile"),
        "BCa": partial(scipys, "BCa"),
    }
    for name, (draw, mean) in SCORES.items():
        for n in (30, 100, 500):
            found.append((f"mean of {n}, {name}", partial(alone, draw, n), mean, means))  # noqa: PERF401
    for groups in (15, 20, 50):
        found.append((f"mean of {groups} groups", partial(in_groups, groups), 0.2, {"ours": our_mean}))  # noqa: PERF401
    many = in_groups(200_000, np.random.default_rng(0))[0]
    for name, (draw, _) in SCORES.items():
        population = draw(np.random.default_rng(0), 4_000_000)
        worst = float(np.sort(population)[-200_000:].mean())
        for n in (75, 150, 300):
            found.append((f"worst 5 % of {n}, {name}", partial(alone, draw, n), worst, {"ours": our_worst}))  # noqa: PERF401
        for q, n in ((0.9, 40), (0.95, 75), (0.99, 370)):
            truth = float(np.quantile(population, q))
            found.append(
                (f"p{100 * q:g} of {n}, {name}", partial(alone, draw, n), truth, {"ours": partial(our_quantile, q)})
            )
    worst_in_groups = float(np.sort(many)[-len(many) // 20 :].mean())
    found.append(("worst 5 % of 75 groups", partial(in_groups, 75), worst_in_groups, {"ours": our_worst}))
    ninth = float(np.quantile(many, 0.9))
    found.append(("p90 of 60 groups", partial(in_groups, 60), ninth, {"ours": partial(our_quantile, 0.9)}))
    for rate in (0.05, 0.2, 0.5):
        found.append((f"rate {rate} in 25 groups", partial(hits_in_groups, 25, rate), rate, {"ours": our_rate}))  # noqa: PERF401
    for leak in (0.05, 0.2):
        for n in (5, 10, 20, 29):
            found.append((f"mean of {n}, {leak:.0%} leak", partial(rarely, leak, n), 0.01 + 0.98 * leak, {"ours": our_mean}))  # noqa: PERF401
    for name, sizes in UNEQUAL.items():
        for rate in (0.02, 0.1, 0.3):
            what = f"upper bound of {rate} in groups, {name}"
            found.append((what, partial(whole_groups, sizes, rate), rate, {"ours": our_upper}))
    return found


def covered(
    draw: Callable[[np.random.Generator], Sample], truth: float, intervals: dict[str, Interval], samples: int
) -> dict[str, float]:
    """Share of samples whose interval holds the truth, per method."""
    random, hits = np.random.default_rng(0), dict.fromkeys(intervals, 0)
    for seed in range(samples):  # one seed for all would make all err alike
        sample = draw(random)
        for name, interval in intervals.items():
            low, high = interval(sample, seed)
            hits[name] += low <= truth <= high
    return {name: count / samples for name, count in hits.items()}


def alone(draw: Callable[[np.random.Generator, int], NDArray[np.float64]], n: int, random: np.random.Generator) -> Sample:
    """n independent scores."""
    return draw(random, n), None


def in_groups(groups: int, random: np.random.Generator) -> Sample:
    """1 to 10 alike scores per group, mean 0.2."""
    sizes = random.integers(1, 11, groups)
    means = np.repeat(np.clip(random.beta(1, 4, groups), 1e-3, 1 - 1e-3), sizes)
    return random.beta(3 * means, 3 * (1 - means)), np.repeat(np.arange(groups), sizes)


def hits_in_groups(groups: int, rate: float, random: np.random.Generator) -> Sample:
    """1 to 10 alike hits per group."""
    sizes = random.integers(1, 11, groups)
    chances = np.repeat(random.beta(4 * rate, 4 * (1 - rate), groups), sizes)
    return random.random(sizes.sum()) < chances, np.repeat(np.arange(groups), sizes)


def rarely(leak: float, n: int, random: np.random.Generator) -> Sample:
    """Scores of 0.01, and 0.99 for few pairs."""
    return np.where(random.random(n) < leak, 0.99, 0.01), None


def whole_groups(sizes: tuple[int, ...], rate: float, random: np.random.Generator) -> Sample:
    """Groups that leak with all their pairs or with none."""
    return np.repeat(random.random(len(sizes)) < rate, sizes), np.repeat(np.arange(len(sizes)), sizes)


def our_upper(sample: Sample, _seed: int) -> tuple[float, float]:
    return 0.0, success_rate(*sample).upper


def our_mean(sample: Sample, seed: int) -> tuple[float, float]:
    low, high = mean_interval(*sample, resamples=RESAMPLES, seed=seed)[1:]
    return (-math.inf, math.inf) if math.isnan(low) else (low, high)  # equal scores have no interval: no promise


def our_worst(sample: Sample, seed: int) -> tuple[float, float]:
    return mean_of_worst(*sample, resamples=RESAMPLES, seed=seed)[1:]


def our_quantile(q: float, sample: Sample, _seed: int) -> tuple[float, float]:
    try:
        return quantile(sample[0], q, sample[1])[1:]
    except ValueError:  # a refusal promises nothing
        return -math.inf, math.inf


def our_rate(sample: Sample, _seed: int) -> tuple[float, float]:
    rate = success_rate(*sample)
    return rate.low, rate.high


def scipys(method: str, sample: Sample, seed: int) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = stats.bootstrap((sample[0],), np.mean, method=method, n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


if __name__ == "__main__":
    main()
