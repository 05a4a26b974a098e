"""``COMPONENT=VALUE[@STATISTIC]`` -> a limit that a run must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

STATISTICS = ("mean", "p95", "max")
STRONGEST, READ = "strongest", "read"
"""What a limit may be on beside the components: the strongest attacker's percentile, and the share of pictures it reads."""
READ_RATE = 0.01
"""The false-positive rate at which a picture counts as read."""


@dataclass(frozen=True)
class Gate:
    """A limit that a run must keep: ``statistic`` of ``component`` may not be above ``limit``."""

    component: str
    limit: float
    statistic: str = STATISTICS[0]

    def __str__(self) -> str:
        return f"{self.component}={self.limit:g}@{self.statistic}"

    @classmethod
    def of(cls, text: str) -> Gate:
        """The limit as the command line spells it.

        Raises:
            ValueError: if it is spelt in another way, or the value is no finite number.

        Example:
            >>> Gate.of("ms_ssim=0.3@p95")
            Gate(component='ms_ssim', limit=0.3, statistic='p95')
        """
        name, equals, rest = text.partition("=")
        value, at, statistic = rest.partition("@")
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if not (name and equals) or not math.isfinite(limit) or (at and statistic not in STATISTICS):
            raise ValueError(f"{text!r} is not COMPONENT=VALUE[@{'|'.join(STATISTICS)}], e.g. ms_ssim=0.3@p95")
        return cls(name, limit, statistic or STATISTICS[0])
