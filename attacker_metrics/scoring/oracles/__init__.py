"""Oracles: attackers that see the original to choose among few ways of looking at the sent picture.

They bound what anyone reads who tries those ways out. Unrelated pairs get the same choice, which keeps them fair.
"""

from attacker_metrics.scoring.oracles.blocks import AssignedBlocks
from attacker_metrics.scoring.oracles.oracle import Finder, Oracle, Sight
from attacker_metrics.scoring.oracles.orientation import Fit, Orientation
from attacker_metrics.scoring.oracles.registration import Registration
from attacker_metrics.scoring.oracles.rows import RolledRows
from attacker_metrics.scoring.oracles.shared_information import CorrelationRatio, MutualInformation
from attacker_metrics.scoring.oracles.tone import ToneTable
from attacker_metrics.scoring.oracles.unwrapping import unwrap

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
