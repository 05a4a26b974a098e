"""From pairs of image files to scores, a summary and a report; the world behind the command line.

Needs the extra ``cli``. The stages, a module each:

- ``images``: file or URL -> bytes -> tensor;
- ``pairs``, ``manifest``: folders, built-in photographs under ``obfuscations``, or a list of pairs -> numbered rows;
- ``loading``: rows -> pairs of tensors, ahead of the computation;
- ``scoring``: pairs -> a score per pair and component;
- ``parts``: scores -> files of an unfinished run, and back;
- ``processes``, ``run``: several processes share the parts of a run;
- ``unrelated``: the pairs of a finished run, matched anew; ``calibration``: the strongest attacker measured against them;
- ``tails``: scores -> means and tails with intervals;
- ``summary``: scores -> statistics, gates, flags, a plain reading;
- ``report``, ``views``: what a person looks at and a program loads;
- ``cli``, ``commands``: the command line.
"""
