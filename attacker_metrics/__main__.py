"""``attacker-metrics``, same as ``python -m attacker_metrics``."""

from __future__ import annotations

import sys

_EXTRAS = (
    "PIL",
    "fsspec",
    "imagecodecs",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "pandas",
    "pyarrow",
    "rich",
    "scipy",
    "statsmodels",
    "tifffile",
)


def main() -> int:
    """Run the command line, or say which extra it needs."""
    try:
        from attacker_metrics.evaluation import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _EXTRAS:
            raise
        print(f"attacker-metrics: the command line needs {error.name}: pip install 'attacker-metrics[cli]'", file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
