"""Run under torchrun: ``evaluate`` with wrong arguments of all processes, of one, with wrong data, then as asked for."""

import os
import sys
from pathlib import Path

from attacker_metrics.commands import cli


def main(twice, *arguments):
    of_one = ["--batch-size", "0"] if os.environ["RANK"] == "1" else []
    for mistake in (["--batch-size", "x"], of_one, []):
        output = Path(twice).with_name("nothing")
        try:
            status = cli.main(["evaluate", "--manifest", twice, "--output", str(output), *mistake])
        except SystemExit as stop:
            status = stop.code
        assert status == cli.BAD_USAGE
        assert not output.exists()
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
