"""Oracles: attackers that see the original to choose among few ways of looking at the sent picture.

They bound what anyone reads who tries those ways out. Unrelated pairs get the same choice, which keeps them fair.
"""

from attacker_metrics.reading.oracles.blocks import AssignedBlocks
from attacker_metrics.reading.oracles.oracle import Finder, Oracle, Sight
from attacker_metrics.reading.oracles.orientation import Fit, Orientation
from attacker_metrics.reading.oracles.registration import Registration
from attacker_metrics.reading.oracles.rows import RolledRows
from attacker_metrics.reading.oracles.shared_information import CorrelationRatio, MutualInformation
from attacker_metrics.reading.oracles.tone import ToneTable
from attacker_metrics.reading.oracles.unwrapping import unwrap

__all__ = [
    "AssignedBlocks",
    "CorrelationRatio",
    "Finder",
    "Fit",
    "MutualInformation",
    "Oracle",
    "Orientation",
    "Registration",
    "RolledRows",
    "Sight",
    "ToneTable",
    "unwrap",
]
