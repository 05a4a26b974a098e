"""Runs on the same pairs -> what leaks less; the world behind ``attacker-metrics compare``.

Needs the extra ``cli``. The stages, a module each:

- ``runs``: folders that ``attacker-metrics evaluate`` wrote -> scores of the same pairs in the same order;
- ``differences``: scores -> paired differences, tested, and what they say in plain words;
- ``utility``: what each run is worth, from a file or a column;
- ``outputs``: tables, JSON, CSV, LaTeX and plots.
"""
