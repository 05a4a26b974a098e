"""Which obfuscations of the zoo the suite reads without learned attackers: share of pictures read at 1 % false positives.

python benchmarks/zoo.py [--names gamma shift ...] [--undone-by anyone nobody] [--suite standard-v2] [--pictures 30]
                         [--unrelated 20] [--size 64] [--threads 1] [--output DIR]

Pictures are crops of ten photographs, a photograph is a group. Every sent picture is scored against its original and against
``--unrelated`` originals of other groups. An attacker's score s counts as artanh(sqrt(s)), by its distance from the mean of
the picture's other scores in their standard deviations; all of the picture's originals are measured alike. The strongest
attacker is the one with the greatest distance. A picture is read if that is beyond 99 % of those of all pictures' unrelated
originals.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

import frame
import numpy as np
import skimage.data
import sklearn.datasets
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.obfuscations import UNDONE_BY, ZOO, Obfuscation
from attacker_metrics.reading.strongest import attackers_of
from attacker_metrics.scoring.pair import Pair
from attacker_metrics.scoring.similarity import betas_for
from attacker_metrics.scoring.suites import SUITES
from attacker_metrics.statistics import success_rate

RATE = 0.01
LEAST_SPREAD = 0.05
"""Of transformed scores: smaller differences do not count as rare."""
LEAST_POOL = 40
"""Crops that unrelated originals are drawn from, at least."""
PHOTOGRAPHS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "retina",
    "hubble_deep_field",
    "immunohistochemistry",
    "stereo_motorcycle",
    "china.jpg",
    "flower.jpg",
)
Floats = NDArray[np.float64]


def photograph(name: str) -> Tensor:
    """``(3, H, W)`` in [0, 1]."""
    if name.endswith(".jpg"):
        pixels = sklearn.datasets.load_sample_image(name)
    else:
        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def crops(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Squares of 1.5 to 4 times the size, shrunk, the photographs taking turns; none is flat: ``(count, 3, size, size)``."""
    found: list[Tensor] = []
    pictures = [photograph(name) for name in PHOTOGRAPHS]
    while len(found) < count:
        picture = pictures[len(found) % len(pictures)]
        most = min(4 * size, *picture.shape[1:])
        side, top, left = torch.rand(3, generator=generator).tolist()
        pixels = int(min(1.5 * size, most) + side * (most - min(1.5 * size, most)))
        row, column = int(top * (picture.shape[1] - pixels)), int(left * (picture.shape[2] - pixels))
        square = picture[None, :, row : row + pixels, column : column + pixels]
        crop = F.interpolate(square, (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)
        if float(crop.std()) > 0.05:
            found.append((crop * 255).round() / 255)
    return torch.stack(found)


def distances(scores: Floats) -> Floats:
    """How far each score is from the others of its picture, in their standard deviations; ``(..., originals)``."""
    scores = np.arctanh(np.sqrt(np.clip(scores, 0, 1 - 1e-4)))
    count = scores.shape[-1] - 1
    mean = (scores.sum(axis=-1, keepdims=True) - scores) / count
    square = ((scores**2).sum(axis=-1, keepdims=True) - scores**2) / count
    spread: Floats = np.sqrt(np.maximum(square - mean**2, 0) * count / (count - 1))
    found: Floats = (scores - mean) / np.maximum(spread, LEAST_SPREAD)
    return found


def scored(sent: Tensor, originals: Tensor, privacy: MultiAttackerPrivacy) -> tuple[list[str], Floats]:
    """Scores of every sent picture ``(n, 3, H, W)`` against its originals ``(n, k, 3, H, W)``: ``(attackers, n, k)``."""
    attackers = attackers_of(privacy)
    columns = []
    with torch.inference_mode():
        for noisy, clean in zip(sent, originals, strict=True):
            pair = Pair(noisy.expand_as(clean).contiguous(), clean)
            pair.scores(component for metric in attackers.values() for component in metric.components)
            columns.append(torch.stack([metric.scores(pair) for metric in attackers.values()]).double().numpy())
    return list(attackers), np.stack(columns, axis=1)


def unrelated(count: int, groups: Sequence[int], generator: np.random.Generator) -> NDArray[np.int64]:
    """Positions of ``count`` pictures of other groups for every picture, ``(n, count)``."""
    everyone = np.arange(len(groups))
    others = [everyone[np.array(groups) != group] for group in groups]
    return np.stack([generator.permutation(other)[:count] for other in others])


def read(names: Sequence[str], scores: Floats) -> tuple[NDArray[np.bool_], list[str]]:
    """Whether each picture is read, and by whom; the first of its originals is its own."""
    far = distances(scores)
    strongest = far.max(axis=0)
    null = np.sort(strongest[:, 1:].ravel())
    allowed = int(RATE * (len(null) + 1))
    threshold = null[-allowed] if allowed else np.inf
    succeeds = strongest[:, 0] > threshold
    return succeeds, [names[k] for k in far[:, :, 0].argmax(axis=0)]


def main() -> None:
    parser: argparse.ArgumentParser = frame.parser(__doc__)
    parser.add_argument("--names", nargs="+", choices=sorted(ZOO), help="entries (default: all)")
    parser.add_argument("--undone-by", nargs="+", choices=UNDONE_BY, default=UNDONE_BY, help="(default: all)")
    parser.add_argument("--suite", choices=sorted(SUITES), default="standard-v2", help="(default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=30, help="(default: %(default)s)")
    parser.add_argument("--unrelated", type=int, default=20, help="originals per picture (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    options = frame.engine_options(parser)
    pool = crops(max(options.pictures, LEAST_POOL, 2 * options.unrelated), options.size, torch.Generator().manual_seed(0))
    clean = pool[: options.pictures]
    groups = [i % len(PHOTOGRAPHS) for i in range(len(pool))]
    others = unrelated(options.unrelated, groups, np.random.default_rng(0))[: len(clean)]
    compared = pool[torch.from_numpy(np.concatenate([np.arange(len(clean))[:, None], others], axis=1))]
    privacy = MultiAttackerPrivacy(suite=options.suite, betas=betas_for(options.size), nan_strategy="ignore")
    table: list[list[str]] = []
    results = {}
    for entry in (ZOO[name] for name in options.names or ZOO):
        if entry.undone_by not in options.undone_by:
            continue
        if options.size % entry.side_multiple():
            print(f"{entry.name}: left out, {options.size} is no multiple of {entry.side_multiple()}", flush=True)
            continue
        results[entry.name] = found = evaluated(entry, clean, compared, privacy)
        table.append([entry.name, entry.undone_by, found["text"], ", ".join(f"{n} {c}" for n, c in found["winners"][:3])])
        print(" | ".join(table[-1]), flush=True)
    print(frame.markdown(["obfuscation", "undone by", "read at 1 %", "strongest"], table))
    settings = {name: getattr(options, name) for name in ("suite", "pictures", "unrelated", "size")}
    print(f"wrote {frame.save('zoo', {'settings': settings, 'rate': RATE, 'results': results}, options.output).name}")


def evaluated(entry: Obfuscation, clean: Tensor, compared: Tensor, privacy: MultiAttackerPrivacy) -> dict[str, Any]:
    """The share that is read, its interval, and who reads."""
    names, scores = scored(entry(clean), compared, privacy)
    succeeds, winners = read(names, scores)
    rate = success_rate(succeeds)
    won = Counter(winner for winner, success in zip(winners, succeeds, strict=True) if success)
    return {
        "undone_by": entry.undone_by,
        "read": float(succeeds.mean()),
        "text": str(rate),
        "winners": won.most_common(),
        "matched": dict(zip(names, scores[:, :, 0].mean(axis=1).round(4).tolist(), strict=True)),
        "unrelated": dict(zip(names, scores[:, :, 1:].mean(axis=(1, 2)).round(4).tolist(), strict=True)),
    }


if __name__ == "__main__":
    main()
