"""From pairs of image files to scores, a summary and a report; the world behind the command line.

Needs ``pip install 'attacker-metrics[cli]'``. The stages, a module each:

- ``images``: file -> tensor;
- ``pairs``: folders, or built-in photographs under built-in ``obfuscations`` -> pairs of tensors;
- ``scoring``: pairs -> a score per pair and component;
- ``summary``: scores -> statistics, gates, a plain reading;
- ``report``, ``views``: what a person looks at and a program loads;
- ``cli``: the commands.
"""
