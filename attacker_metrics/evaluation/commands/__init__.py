"""The sub-commands, a module each: ``add(commands)`` adds its parser, whose ``command`` returns the exit status."""
