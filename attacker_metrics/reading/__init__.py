"""How much of a picture comes back: what reads it beyond the attackers that look at the sent picture alone.

Import from the packages below, such as :mod:`attacker_metrics.reading.oracles`.
"""
