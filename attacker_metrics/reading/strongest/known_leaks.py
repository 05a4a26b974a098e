"""Obfuscations of which it is known whether they leak, and an evaluation of each: a unit test of the attackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.attackers import Blur
from attacker_metrics.attackers.filters import JPEG
from attacker_metrics.metrics.collection import MultiAttackerPrivacy
from attacker_metrics.reading.learned import standard_learned
from attacker_metrics.reading.strongest.assessment import Assessment, assess
from attacker_metrics.scoring.similarity import DEFAULT_BETAS
from attacker_metrics.scoring.suites import STANDARD_V1

SIDE = 64
"""Pixels of a side of the crops, for MS-SSIM of three scales."""
RATE = 0.01
"""The false-positive rate at which an obfuscation is judged."""
_BETAS = DEFAULT_BETAS[:3]
_BLOCK = 8
_LEVEL = 1e-3


@dataclass(frozen=True)
class KnownCase:
    """An obfuscation and what is known about it.

    Args:
        name: for tables.
        leaks: whether an attacker of the suite reads the picture.
        obfuscate: ``(image (3, H, W), generator) -> image``; fixed secrets come from a seed of their own.
    """

    name: str
    leaks: bool
    obfuscate: Callable[[Tensor, torch.Generator], Tensor]


def secret_filter(image: Tensor, _generator: torch.Generator) -> Tensor:
    """Filter every image by one secret 3 x 3 filter that mixes the colours and keeps little of the low frequencies."""
    secret = torch.Generator().manual_seed(6)
    kernel = torch.randn(3, 3, 3, 3, generator=secret)
    kernel = kernel - 0.7 * kernel.mean(dim=(2, 3), keepdim=True)
    return F.conv2d(F.pad(image[None], (1, 1, 1, 1), mode="reflect"), kernel)[0]


def permuted_blocks(image: Tensor, _generator: torch.Generator) -> Tensor:
    """Permute the pixels within every block of 8 x 8, always in the same secret way; sides are multiples of 8."""
    order = torch.randperm(_BLOCK**2, generator=torch.Generator().manual_seed(6))
    blocks = F.unfold(image[:, None], _BLOCK, stride=_BLOCK)
    return F.fold(blocks[:, order], image.shape[1:], _BLOCK, stride=_BLOCK)[:, 0]


def reversed_bits(image: Tensor) -> Tensor:
    """Reverse the order of the bits of every 8-bit value."""
    byte = (image * 255).round().int()
    return torch.stack([((byte >> bit) & 1) * 2 ** (7 - bit) for bit in range(8)]).sum(dim=0) / 255


KNOWN_CASES: tuple[KnownCase, ...] = (
    KnownCase("identity", True, lambda x, _: x),
    KnownCase("inversion", True, lambda x, _: 1 - x),
    KnownCase("gamma 3", True, lambda x, _: x**3),
    KnownCase("weak noise", True, lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g)),
    KnownCase("channel swap", True, lambda x, _: x[[2, 0, 1]]),
    KnownCase("blur", True, lambda x, _: Blur(3.0)(x[None])[0]),
    KnownCase("mild JPEG", True, lambda x, _: JPEG(75)(x[None])[0]),
    KnownCase("flipped contrast", True, lambda x, _: 0.5 - 0.3 * (x - 0.5)),
    KnownCase("secret filter", True, secret_filter),
    KnownCase("permuted blocks", True, permuted_blocks),
    KnownCase("contrast 1e-3", True, lambda x, _: 0.5 + 1e-3 * (x - 0.5)),
    KnownCase("contrast 1e-5", True, lambda x, _: 0.5 + 1e-5 * (x - 0.5)),
    KnownCase("random noise", False, lambda x, g: torch.rand(x.shape, generator=g)),
)
"""Those that change the picture alone; :func:`evaluate_known_cases` adds unrelated photographs."""
MOVED_CASES: tuple[KnownCase, ...] = (
    KnownCase("quarter turn", True, lambda x, _: x.rot90(1, (1, 2))),
    KnownCase("mirror", True, lambda x, _: x.flip(2)),
    KnownCase("shift", True, lambda x, _: x.roll((9, 14), (1, 2))),
    KnownCase("reversed bits", True, lambda x, _: reversed_bits(x)),
)
"""What the oracles of ``standard-v2`` read beside :data:`KNOWN_CASES`."""
UNRELATED = "other photos"


def evaluate_known_cases(
    photographs: Mapping[str, Tensor],
    fit: Sequence[str],
    *,
    cases: Sequence[str] | None = None,
    learned: Sequence[str] = ("linear", "block"),
    stride: int = 36,
    suite: str = STANDARD_V1.name,
) -> dict[str, Assessment]:
    """Assess every known case on crops of photographs, by a suite and learned attackers.

    Args:
        photographs: name -> ``(3, H, W)`` in [0, 1], of at least 64 pixels a side; a photograph is a group.
        fit: names of those on which the learned attackers are fitted; the others are scored.
        cases: names of the cases to evaluate; by default all.
        learned: kinds of learned attackers, of :data:`~attacker_metrics.reading.learned.STANDARD_LEARNED`.
        stride: distance of neighbouring crops in pixels.
        suite: ``"standard-v1"`` or ``"standard-v2"``, which is asked about the :data:`MOVED_CASES`, too.

    Returns:
        Name of the case -> its assessment.

    Raises:
        ValueError: if there are too few photographs to fit on one and score three.
    """
    if len(photographs) < len(fit) + 3 or not set(fit) <= set(photographs) or not fit:
        raise ValueError(f"at least one photograph to fit on and three to score are needed, got {len(photographs)}.")
    crops = [
        (name, top, left)
        for name, photograph in photographs.items()
        for top in range(0, photograph.shape[1] - SIDE + 1, stride)
        for left in range(0, photograph.shape[2] - SIDE + 1, stride)
    ]
    groups = [name for name, _, _ in crops]
    clean = [photographs[name][:, top : top + SIDE, left : left + SIDE] for name, top, left in crops]
    scored = [name for name in photographs if name not in fit]
    following = {**dict(zip(scored, [*scored[1:], scored[0]], strict=True)), **dict.fromkeys(fit, scored[0])}

    def unrelated(i: int) -> Tensor:
        other = [k for k, group in enumerate(groups) if group == following[groups[i]]]
        return clean[other[i % len(other)]]

    def obfuscated(case: KnownCase) -> Callable[[int], Tensor]:
        return lambda i: case.obfuscate(clean[i], torch.Generator().manual_seed(i))

    noisy = {**{case.name: obfuscated(case) for case in known_cases(suite)}, UNRELATED: unrelated}
    ids = [f"{name} {top} {left}" for name, top, left in crops]
    in_fit = [group in fit for group in groups]

    def assessed(hide: Callable[[int], Tensor]) -> Assessment:
        def images(i: int) -> tuple[Tensor, Tensor]:
            return hide(i), clean[i]

        return assess(images, ids, _attackers(learned, suite), groups=groups, fit=in_fit, batch_size=32, anchors=False)

    return {name: assessed(hide) for name, hide in noisy.items() if cases is None or name in cases}


def is_called_leaking(found: Assessment, *, attacker: str | None = None) -> bool:
    """The verdict: more images succeed than unrelated originals do, by Fisher's exact test at 0.001.

    Both counts have sampling errors: comparisons of one image count as what they are worth together. The level is strict
    because crops of one photograph are not independent. Needs the extra ``cli``.

    Args:
        found: of one case.
        attacker: judge by one attacker; by default by the strongest.

    Raises:
        ValueError: if no image has a score, or there are too few comparisons.
    """
    success = found.success(RATE, attacker=attacker)[found.strongest.scored]
    return found.reading(RATE, clustered=False).chance(int(success.sum()), len(success)) < _LEVEL


def known_cases(suite: str) -> tuple[KnownCase, ...]:
    """Those of which a suite's verdict is known."""
    return KNOWN_CASES if suite == STANDARD_V1.name else KNOWN_CASES + MOVED_CASES


def _attackers(learned: Sequence[str], suite: str) -> MultiAttackerPrivacy:
    extra = standard_learned(learned, betas=_BETAS)
    return MultiAttackerPrivacy(suite=suite, betas=_BETAS, extra=extra, nan_strategy="ignore")
