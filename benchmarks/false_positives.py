"""How often pictures are called read where nothing leaks, and how many are where something does; the bars are RISKS' own.

python benchmarks/false_positives.py [--pictures N] [--runs N] [--output DIR]

Crops of photographs (scikit-image, scikit-learn) of 64 pixels under the suite standard-v1. Nothing leaks: noise alone, other
photographs, crops in groups, pictures of low texture, a common frame, near duplicates; the false-positive rate of 1 % has to
lie within its interval over all runs. Something leaks: noise of 0.2, the same with a common black frame, noise of 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import frame
import numpy as np
import torch
from photographs import photograph
from torch import Tensor

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.reading.strongest import assess
from attacker_metrics.scoring.similarity import DEFAULT_BETAS
from attacker_metrics.statistics.proportions import rate_of_counts

SIDE, RATE, FRAME = 64, 0.01, 8
PHOTOGRAPHS = (
    *("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "retina", "immunohistochemistry"),
    *("china.jpg", "flower.jpg"),
)
BARS = {"noise 0.2": 0.97, "noise 0.2, black frame": 0.95, "noise 0.5": 0.90}
Picture = Callable[[int], tuple[Tensor, Tensor]]


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--pictures", type=int, default=500, help="pictures where nothing leaks (default: 500)")
    parser.add_argument("--leaking", type=int, default=100, help="pictures where something does (default: 100)")
    parser.add_argument("--runs", type=int, default=4, help="runs of each (default: 4)")
    parser.add_argument("--output", type=Path, default=frame.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    frame.prepare(1)
    results: dict[str, dict[str, Any]] = {}
    for name, make in {**LEAKS, **NOTHING_LEAKS}.items():
        count = options.pictures if name in NOTHING_LEAKS else options.leaking
        found = [measured(*make(count, seed)) for seed in range(options.runs)]
        read, n = (int(sum(one[k] for one in found)) for k in (0, 1))
        rate = rate_of_counts(read, n)
        results[name] = {"read": read, "n": n, "rate": rate.rate, "low": rate.low, "high": rate.high}
        results[name]["runs"] = [one[0] / one[1] for one in found]
        print(name, results[name], flush=True)
    missed = [name for name in NOTHING_LEAKS if results[name]["low"] > RATE]
    missed += [name for name, bar in BARS.items() if results[name]["rate"] < bar]
    print(f"missed: {', '.join(missed) or 'none'}")
    payload = {"pictures": options.pictures, "leaking": options.leaking, "false_positive_rate": RATE, "bars": BARS}
    print(f"wrote {frame.save('false_positives', {**payload, 'results': results}, options.output).name}")
    assert not missed


def measured(images: Picture, groups: list[Any]) -> tuple[float, int]:
    """How many pictures are read at 1 %, and of how many."""
    privacy = MultiAttackerPrivacy(suite="standard-v1", betas=DEFAULT_BETAS[:3], nan_strategy="ignore")
    found = assess(images, range(len(groups)), privacy, groups=groups, anchors=False, batch_size=64)
    return float(found.success(RATE).sum()), int(found.strongest.scored.sum())


def crops(count: int, seed: int, *, least: float = 0.06, most: float = 1.0) -> tuple[list[Tensor], list[str]]:
    """Random crops, not shrunk, with at least and at most so much contrast, and the halved photographs that they are of."""
    random = np.random.default_rng(seed)
    pictures: list[Tensor] = []
    names: list[str] = []
    photographs = {name: torch.nn.functional.avg_pool2d(photograph(name)[None], 2)[0] for name in PHOTOGRAPHS}
    while len(pictures) < count:
        name = str(random.choice(list(photographs)))
        whole = photographs[name]
        top, left = (int(random.integers(0, size - SIDE + 1)) for size in whole.shape[1:])
        crop = whole[:, top : top + SIDE, left : left + SIDE]
        if least <= float(crop.mean(dim=0).std()) <= most:
            pictures.append(crop.float())
            names.append(name)
    return pictures, names


def noise(like: Tensor, seed: int, strength: float = 1.0) -> Tensor:
    return strength * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def framed(picture: Tensor) -> Tensor:
    inside = torch.zeros_like(picture)
    inside[:, FRAME:-FRAME, FRAME:-FRAME] = picture[:, FRAME:-FRAME, FRAME:-FRAME]
    return inside


def noise_alone(count: int, seed: int) -> tuple[Picture, list[Any]]:
    clean, _ = crops(count, seed)
    return lambda i: (0.5 + noise(clean[i], 10_000 * seed + i, 0.3), clean[i]), list(range(count))


def other_photographs(count: int, seed: int) -> tuple[Picture, list[Any]]:
    clean, names = crops(count, seed)
    order = np.random.default_rng(seed).permutation(count)
    others = [next(int(j) for j in np.roll(order, -i) if names[j] != names[i]) for i in range(count)]
    return lambda i: (clean[others[i]], clean[i]), names


def in_groups(count: int, seed: int) -> tuple[Picture, list[Any]]:
    clean, names = crops(count, seed)
    return lambda i: (0.5 + noise(clean[i], 10_000 * seed + i, 0.3), clean[i]), names


def low_texture(count: int, seed: int) -> tuple[Picture, list[Any]]:
    flat, _ = crops(count - count // 2, seed, least=0.0, most=0.05)
    clean = flat + crops(count // 2, seed)[0]
    return lambda i: (0.5 + noise(clean[i], 10_000 * seed + i, 0.3), clean[i]), list(range(count))


def frames(count: int, seed: int) -> tuple[Picture, list[Any]]:
    clean = [framed(one) for one in crops(count, seed)[0]]
    return lambda i: (framed(0.5 + noise(clean[i], 10_000 * seed + i, 0.3)), clean[i]), list(range(count))


def near_duplicates(count: int, seed: int) -> tuple[Picture, list[Any]]:
    """Every picture twice in its group, hidden as another group's."""
    half, _ = crops(count // 2, seed)
    clean = [one for first in half for one in (first, (first + 0.02 * noise(first, seed)).clamp(0, 1))]
    shift = 2 * int(np.random.default_rng(seed).integers(1, len(half)))
    return lambda i: (clean[(i + shift) % len(clean)], clean[i]), [i // 2 for i in range(len(clean))]


def under_noise(strength: float, count: int, seed: int) -> tuple[Picture, list[Any]]:
    clean, _ = crops(count, seed)
    return lambda i: (clean[i] + noise(clean[i], 10_000 * seed + i, strength), clean[i]), list(range(count))


def under_frame(count: int, seed: int) -> tuple[Picture, list[Any]]:
    clean = [framed(one) for one in crops(count, seed)[0]]
    return lambda i: (clean[i] + noise(clean[i], 10_000 * seed + i, 0.2), clean[i]), list(range(count))


NOTHING_LEAKS = {
    "noise": noise_alone,
    "other photographs": other_photographs,
    "crops in groups": in_groups,
    "low texture": low_texture,
    "frames": frames,
    "near duplicates": near_duplicates,
}
LEAKS = {
    "noise 0.2": lambda count, seed: under_noise(0.2, count, seed),
    "noise 0.2, black frame": under_frame,
    "noise 0.5": lambda count, seed: under_noise(0.5, count, seed),
}

if __name__ == "__main__":
    main()
