"""Machine annotators: programs that pick the original of a reconstruction among candidates. They are not people.

Each looks at one descriptor of a picture and takes the candidate whose descriptor is nearest:

- ``hog``: directions of edges, histograms of oriented gradients (Dalal and Triggs, 2005, by scikit-image);
- ``low-pass``: luma averaged to 8 x 8 fields, standardised: the rough layout of light and dark;
- ``colours``: a joint histogram of 4 x 4 x 4 colours, roots of shares (Hellinger distance): which colours, not where.

The three see different things, so their agreement is no tautology. A machine says "cannot tell" where the second nearest
candidate is hardly farther than the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from attacker_metrics._extras import missing_extra
from attacker_metrics.attackers.standard import luma

CANNOT_TELL = -1
_FIELDS, _BINS = 8, 4


def hog(images: Tensor) -> Tensor:
    """Histograms of oriented gradients of the luma, ``(B, 3, H, W)`` -> ``(B, D)``.

    Raises:
        ModuleNotFoundError: without scikit-image, naming the extra.
    """
    try:
        from skimage.feature import hog as descriptor
    except ModuleNotFoundError as error:
        raise missing_extra(
            "the machine annotator 'hog' needs scikit-image", "study", error, instead="or leave it out"
        ) from error
    cell = max(4, min(images.shape[-2:]) // 8)
    described = [
        descriptor(image.numpy(), orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2))
        for image in luma(images.double())[:, 0]
    ]
    return torch.from_numpy(np.stack(described))


def low_pass(images: Tensor) -> Tensor:
    """Luma averaged to 8 x 8 fields, mean 0 and length 1, ``(B, 3, H, W)`` -> ``(B, 64)``."""
    fields = F.adaptive_avg_pool2d(luma(images.double()), _FIELDS).flatten(1)
    return F.normalize(fields - fields.mean(dim=1, keepdim=True))


def colours(images: Tensor) -> Tensor:
    """Roots of the shares of 4 x 4 x 4 colours, ``(B, 3, H, W)`` -> ``(B, 64)``."""
    bins = (images.double() * _BINS).long().clamp(0, _BINS - 1).flatten(2)
    codes = (bins[:, 0] * _BINS + bins[:, 1]) * _BINS + bins[:, 2]
    return F.one_hot(codes, _BINS**3).double().mean(dim=1).sqrt()


DESCRIPTORS: dict[str, Callable[[Tensor], Tensor]] = {"hog": hog, "low-pass": low_pass, "colours": colours}
"""Name of a machine annotator -> what it looks at: images in [0, 1] ``(B, 3, H, W)`` -> ``(B, D)``."""


def draw_candidates(count: int, each: int, seed: int) -> NDArray[np.int64]:
    """For each of ``count`` images the candidates to pick from: itself and others, in random order.

    Returns:
        ``(count, each)`` numbers of images; the same for every attack, so that tasks are equally hard.
    """
    random = np.random.default_rng(seed)
    rows = []
    for image in range(count):
        others = random.permutation([other for other in range(count) if other != image])[: each - 1]
        rows.append(random.permutation([image, *others]))
    return np.stack(rows).astype(np.int64)


def pick(
    reconstructions: Tensor, originals: Tensor, candidates: NDArray[np.int64], descriptor: str, margin: float
) -> Sequence[int]:
    """What a machine annotator picks.

    Args:
        reconstructions: ``(B, 3, H, W)``; clamped to [0, 1], as a viewer shows them.
        originals: ``(M, 3, H, W)`` in [0, 1], what candidates are.
        candidates: ``(B, K)`` which originals each reconstruction may be of, K at least 2.
        descriptor: a name in :data:`DESCRIPTORS`.
        margin: in [0, 1): it cannot tell if the second nearest candidate is farther than the nearest by less than this
            share of its own distance.

    Returns:
        ``B`` numbers of originals, or :data:`CANNOT_TELL`.

    Example:
        >>> originals = torch.rand(4, 3, 32, 32)
        >>> pick(originals[2:] + 0.1, originals, np.array([[0, 1, 2], [3, 0, 1]]), "low-pass", 0.05)
        [2, 3]
        >>> pick(torch.full((1, 3, 32, 32), 0.5), originals, np.array([[0, 1]]), "low-pass", 0.05)
        [-1]
    """
    describe = DESCRIPTORS[descriptor]
    seen, known = describe(reconstructions.clamp(0, 1).cpu()), describe(originals.cpu())
    picks = []
    for row, choice in zip(seen, candidates.tolist(), strict=True):
        distances = (known[choice] - row).norm(dim=1)
        nearest, second = distances.topk(2, largest=False).values.tolist()
        sure = second - nearest >= margin * second and second > nearest
        picks.append(choice[int(distances.argmin())] if sure else CANNOT_TELL)
    return picks
