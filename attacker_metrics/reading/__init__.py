"""Read: how much of the picture comes back?

In: pairs of noisy and clean images. Out: attackers fitted on some of them (``learned``), and the strongest attacker of each
picture on a scale that unrelated originals calibrate (``strongest``).
"""
