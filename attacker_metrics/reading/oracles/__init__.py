"""Oracles: attackers that see the original to choose among few ways of looking at the sent picture.

They bound what anyone reads who tries those ways out. Unrelated pairs get the same choice, which keeps them fair.
"""

from attacker_metrics.reading.oracles.oracle import Finder, Oracle, Sight
from attacker_metrics.reading.oracles.orientation import Orientation
from attacker_metrics.reading.oracles.registration import Registration

__all__ = ["Finder", "Oracle", "Orientation", "Registration", "Sight"]
