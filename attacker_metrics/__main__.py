"""``attacker-metrics``, same as ``python -m attacker_metrics``."""

from __future__ import annotations

import os
import sys
import threading

from attacker_metrics._extras import without_cli

_CUT_SHORT = (2, 70, 130, 143)
"""Statuses with which threads may still be at work."""


def main() -> int:
    """Run the command line, or say which extra it needs."""
    _open_streams()
    try:
        from attacker_metrics.commands import cli
    except ModuleNotFoundError as error:
        if (message := without_cli(error)) is None:
            raise
        print(f"attacker-metrics: {message}", file=sys.stderr)
        return 2
    status = cli.main()
    hanging = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    if status in _CUT_SHORT and hanging:  # in a read that may never end; Python would wait for it
        os._exit(status)
    return status


def _open_streams() -> None:
    """Where a standard stream was closed at the start, open it to nowhere: the next file would get its number."""
    taken = os.open(os.devnull, os.O_RDWR)
    while taken <= 2:
        taken = os.dup(taken)
    os.close(taken)


if __name__ == "__main__":
    sys.exit(main())
