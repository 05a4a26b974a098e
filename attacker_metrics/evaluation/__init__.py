"""One pipeline from pairs to a summary: pairs -> scores -> parts -> statistics.

``pipeline`` is the whole way, ``options`` what a user can ask for, ``preparation`` what is checked before the work.

In: a source of pairs. Out: ``Scores``, everything that ``summary.json`` holds. ``fitting`` learns from the fit split,
``scoring`` and ``run`` score the rest, ``unrelated`` matches pairs anew and ``calibration`` measures the strongest attacker
against them, ``tails`` and ``summary`` are the statistics.
"""
