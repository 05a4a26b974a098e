"""Words of the command line -> one frozen object of options -> one call of the library -> an exit status.

A module per command: the class of its options, from which ``parsing`` generates the command line, and ``add(app)``. What
they import at the top is light, so that help and mistakes are told at once; the library comes in when a command runs.
"""
