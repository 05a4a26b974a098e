"""What an oracle is: it sees the original to choose among few ways of looking at the sent picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attacker_metrics.attackers import Attacker
from attacker_metrics.scoring.similarity import Similarity


class Sight(NamedTuple):
    """What an oracle found.

    Args:
        noisy: the noisy views ``(B, C, H, W)`` at their best.
        clean: the clean views that they are compared with, of the same shape.
        seen: ``(B,)`` bool: whether there is anything to see; where not, every score is 0.
    """

    noisy: Tensor
    clean: Tensor
    seen: Tensor


Finder = Callable[[Tensor, Tensor], Sight]


@dataclass(frozen=True)
class Oracle:
    """A comparison of two views, the noisy one first brought as close to the clean one as a finder gets it.

    A real attacker tries out what the finder chooses: eight orientations, or a thousand curves. It is fair because
    unrelated pairs get the same finder: compare a score with theirs, never with another attacker's. Scores carry no
    gradient: that with respect to either side is 0. A finder that several components share works once per pair of views.

    Args:
        finder: ``(noisy_view, clean_view) -> Sight``, hashable.
        similarity: compares what was found.
        after: attackers of what was found, on both sides, left to right.

    Example:
        >>> from attacker_metrics.scoring.oracles import Orientation
        >>> from attacker_metrics.scoring.similarity import SquaredPearson
        >>> clean = torch.rand(2, 1, 32, 32)
        >>> Oracle(Orientation(), SquaredPearson())(clean.rot90(1, (2, 3)), clean).round(decimals=4)
        tensor([1., 1.])
    """

    finder: Finder
    similarity: Similarity
    after: tuple[Attacker, ...] = ()

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two views ``(B, C, H, W)``, ``(B,)``."""
        found = self.look(self.find(noisy, clean))
        return torch.where(found.seen, self.similarity(found.noisy, found.clean), 0.0) + without_slope(noisy, clean)

    @torch.no_grad()
    def find(self, noisy: Tensor, clean: Tensor) -> Sight:
        """What the finder makes of two views, in float32 at least."""
        noisy, clean = (view.to(torch.promote_types(view.dtype, torch.float32)) for view in (noisy, clean))
        return self.finder(noisy, clean)

    @torch.no_grad()
    def look(self, found: Sight) -> Sight:
        """What is compared of a finding."""
        noisy, clean = found[:2]
        for attacker in self.after:
            noisy, clean = attacker(noisy), attacker(clean)
        return Sight(noisy, clean, found.seen)


def without_slope(noisy: Tensor, clean: Tensor) -> Tensor:
    """Zeros ``(B,)`` that keep a score joined to its views, so that a backward finds them and passes 0."""
    return 0 * (noisy.flatten(1)[:, 0] + clean.flatten(1)[:, 0])


def compared(similarity: Similarity) -> Similarity:
    """What compares an oracle's findings, or the similarity itself if it is none."""
    return similarity.similarity if isinstance(similarity, Oracle) else similarity
