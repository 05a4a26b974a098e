"""The sub-commands, a module each: ``add(commands)`` adds its parser, whose ``command`` returns the exit status.

What they share is in ``options`` and ``terminal``; ``evaluate_options`` is the parser of ``evaluate``.
"""
