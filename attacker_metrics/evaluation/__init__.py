"""One pipeline from pairs to a summary: pairs -> scores -> parts -> statistics.

``pipeline`` is the whole way, ``options`` what a user can ask for, ``preparation`` what is checked before the work.

In: a source of pairs. Out: ``Scores``, everything that ``summary.json`` holds. ``fitting`` learns from the fit split,
``scoring`` and ``run`` score the rest, ``unrelated`` compares pictures with other originals, ``calibration`` measures
the strongest attacker by these, as ``assess`` does (``reading.strongest``), ``tails`` and ``summary`` are the statistics.
"""
