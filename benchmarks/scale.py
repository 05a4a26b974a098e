"""From the measured figures of ``evaluate.py`` to a run of many pairs on many nodes: arithmetic, every assumption an option.

python benchmarks/scale.py [--pairs 1e10] [--nodes 64] [--cores 64] [--part-size 65536] [--results FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import frame

import attacker_metrics

EPSILON = 2.0**-53
COMPONENTS = 17


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--pairs", type=float, default=1e10)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--cores", type=int, default=64, help="of a node, each as fast as the measured one (default: 64)")
    parser.add_argument("--part-size", type=int, default=65536, help="(default: 65536)")
    parser.add_argument("--bins", type=int, default=65536, help="of a histogram of [0, 1] (default: 65536)")
    parser.add_argument("--requests", type=float, default=5500, help="GET requests per second and prefix (default: 5500)")
    parser.add_argument("--results", type=Path, default=frame.RESULTS / f"evaluate-{attacker_metrics.__version__}.json")
    options = parser.parse_args()
    measured = json.loads(options.results.read_text())
    print(
        f"Measured with the {measured['backend']} backend at {measured['side']} pixels,"
        f" commit {measured['machine']['commit']}.\n"
    )
    print(frame.markdown(["quantity", "arithmetic", "result"], rows(options, measured["stages"])))


def rows(options: argparse.Namespace, stages: dict[str, float]) -> list[list[str]]:
    pairs, cores = options.pairs, options.nodes * options.cores
    busy = stages["compute_cpu_s_per_pair"] + stages["load_cpu_s_per_pair"]
    rate, parts = cores / busy, pairs / options.part_size
    seconds = pairs / rate
    read = stages["file_bytes_per_pair"] * rate
    return [
        ["pairs per second", f"{cores} cores / ({busy * 1e3:.1f} ms per pair)", f"{rate:.3g}"],
        ["scoring", f"{pairs:.0e} pairs / {rate:.3g} per s", hours(seconds)],
        [
            "image bytes",
            f"{stages['file_bytes_per_pair'] / 1e3:.0f} kB per pair",
            f"{stages['file_bytes_per_pair'] * pairs / 1e12:.0f} TB",
        ],
        ["network per node", f"{read / 1e9:.2f} GB/s / {options.nodes} nodes", f"{read / options.nodes / 1e6:.0f} MB/s"],
        ["object-store requests", "2 per pair", f"{2 * rate:.3g} per s"],
        ["prefixes that must share them", f"at {options.requests:.0f} per s each", f"{2 * rate / options.requests:.0f}"],
        [
            "manifest",
            f"{stages['manifest_bytes_per_row']:.0f} bytes per row",
            f"{stages['manifest_bytes_per_row'] * pairs / 1e9:.0f} GB",
        ],
        [
            "its check, one process",
            f"{stages['check_rows_per_cpu_s']:.3g} rows per s",
            hours(pairs / stages["check_rows_per_cpu_s"]),
        ],
        ["memory of the check", "8 bytes per row, twice in the sort", f"{16 * pairs / 1e9:.0f} GB"],
        ["parts", f"{options.part_size} pairs each", f"{parts:.3g}"],
        [
            "size of a part",
            f"{stages['part_bytes_per_row']:.0f} bytes per row",
            f"{stages['part_bytes_per_row'] * options.part_size / 1e6:.1f} MB",
        ],
        ["all parts", "", f"{stages['part_bytes_per_row'] * pairs / 1e12:.2f} TB"],
        [
            "lost to a crash of every process",
            f"a part each: {options.part_size * busy:.0f} s",
            f"{options.part_size * cores / pairs:.1%}",
        ],
        ["parts taken from the counter", "requests to one store", f"{rate / options.part_size:.2g} per s"],
        [
            "merge, one process",
            f"{stages['merge_rows_per_cpu_s']:.3g} rows per s",
            hours(pairs / stages["merge_rows_per_cpu_s"]),
        ],
        [
            "memory of the merge",
            f"{COMPONENTS} x 5 bytes per pair, and its id",
            f"{(COMPONENTS * 5 + 30) * pairs / 1e9:.0f} GB",
        ],
        ["sum in float64, worst error", "(pairs per part + parts) x 2^-53", f"{(options.part_size + parts) * EPSILON:.1e}"],
        [
            "quantiles from histograms",
            f"{COMPONENTS} x {options.bins} x 8 bytes per process",
            f"{COMPONENTS * options.bins * 8 / 1e6:.1f} MB",
        ],
        ["their error", f"half a bin of 1 / {options.bins}", f"{0.5 / options.bins:.1e}"],
    ]


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
