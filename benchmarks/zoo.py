"""The matrix of obfuscations and attackers: the share of pictures that each reads at 1 % false positives.

python benchmarks/zoo.py [--size 64] [--pairs 200] [--scored N] [--rows anyone pairs nobody key others NAME ...]
    [--seconds S] [--again] [--output DIR]

Half of the pairs are fitted on, and no photograph is on both sides, unless every picture has a key of its own; where there
is no key, anyone can make such pairs. The other half (the first N of it) is scored by the suite standard-v2, and by what was
fitted. The figures are the library's own (``attacker_metrics.reading.strongest.assess``): every sent picture is measured by
its scores with twenty originals of other photographs. Intervals are for further crops of these photographs.

Each row is stored when it is done (``zoo-SIZE/NAME.json`` below ``--output``), and another run goes on with those that are
missing, ``--again`` with all; ``--seconds`` starts no row later. At the end all stored rows are merged into
``zoo-SIZE-VERSION.json`` and drawn as one picture, ``zoo-SIZE.png``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import frame
import zoo_picture
from further_keys import further_keys
from photographs import squares
from torch import Tensor

from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.evaluation.not_tried import not_tried
from attacker_metrics.obfuscations import UNDONE_BY, ZOO, Obfuscation, zoo
from attacker_metrics.reading.learned import STANDARD_LEARNED, LearnedAttackerMetric, standard_learned
from attacker_metrics.reading.strongest import Assessment, assess
from attacker_metrics.scoring.similarity import betas_for

SUITE = "standard-v2"
FITTED = ("astronaut", "coffee", "retina", "hubble_deep_field", "immunohistochemistry", "stereo_motorcycle")
SCORED = ("chelsea", "rocket", "china.jpg", "flower.jpg", "grace_hopper.jpg")
LEARNED = tuple(kind for kind in STANDARD_LEARNED if kind != "cnn")
RATE, BAR = 0.01, 0.95
OTHERS = "others"
Hide = Callable[[Tensor, int], Tensor]
"""Pictures, and the number of the first -> as they are sent."""


def main() -> None:
    parser: argparse.ArgumentParser = frame.parser(__doc__)
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=200, help="half of them are fitted on (default: %(default)s)")
    parser.add_argument("--scored", type=int, help="of the other half score so many only (default: all)")
    parser.add_argument("--rows", nargs="+", default=list(UNDONE_BY), help=f"also {OTHERS}, names (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no row later than that")
    parser.add_argument("--again", action="store_true", help="measure rows that are stored too")
    options = frame.engine_options(parser)
    begin, commit, stored = time.monotonic(), frame.machine()["commit"], options.output / f"zoo-{options.size}"
    fitted, _ = squares(FITTED, options.pairs // 2, options.size, seed=0)
    scored, whose = squares(SCORED, options.pairs - options.pairs // 2, options.size, seed=1)
    scored, whose = scored[: options.scored], whose[: options.scored]
    for name, (hide, facts) in rows(options.rows, options.size).items():
        file = stored / f"{name.replace(' ', '-')}.json"
        if time.monotonic() - begin > options.seconds:
            break
        if options.again or not file.exists():
            found = measured(hide, None if facts["key"] == "per image" else fitted, scored, whose, options.size)
            store(file, {"obfuscation": name, **facts, **found, "commit": commit})
            print(line(found, name, facts["undone_by"]), flush=True)
    merged = in_order([json.loads(file.read_text()) for file in sorted(stored.glob("*.json"))])
    if merged:
        print(table(merged))
        print("below .95, and the zoo's table does not say so: " + (", ".join(unexplained(merged)) or "none"))
        zoo_picture.draw(merged, options.output / f"zoo-{options.size}.png", f"{options.size} x {options.size} pixels")
        for row in merged:  # who is not named reads nothing, or was not tried
            row["alone"] = {name: share for name, share in row["alone"].items() if share}
        payload = {"size": options.size, "pairs": options.pairs, "suite": SUITE, "false_positive_rate": RATE, "rows": merged}
        print(f"wrote {frame.save(f'zoo-{options.size}', payload, options.output).name}")


def rows(names: list[str], size: int) -> dict[str, tuple[Hide, dict[str, Any]]]:
    """What ``--rows`` names, each with what is known about it; those of the zoo first come first."""
    others: dict[str, tuple[Hide, dict[str, Any]]] = {
        name: (partial(_with_its_key, hide), {"undone_by": "pairs", "key": "fixed", "family": OTHERS})
        for name, hide in further_keys(size).items()
    }
    found: dict[str, tuple[Hide, dict[str, Any]]] = {}
    for name in names:
        if name == OTHERS:
            found.update(others)
        elif name in others:
            found[name] = others[name]
        else:
            for entry in zoo(undone_by=name) if name in UNDONE_BY else (ZOO[name],):
                if size % entry.side_multiple():
                    print(f"{entry.name}: left out, {size} is no multiple of {entry.side_multiple()}", flush=True)
                    continue
                facts = {"undone_by": entry.undone_by, "key": entry.key, "family": entry.family, "destroys": entry.destroys}
                found[entry.name] = (partial(_of_zoo, entry), facts)
    return found


def _with_its_key(hide: Callable[[Tensor], Tensor], pictures: Tensor, _first: int) -> Tensor:
    return hide(pictures)


def _of_zoo(entry: Obfuscation, pictures: Tensor, first: int) -> Tensor:
    return entry(pictures, seed=1, ids=range(first, first + len(pictures)))


def measured(hide: Hide, fitted: Tensor | None, scored: Tensor, whose: list[str], size: int) -> dict[str, Any]:
    """Fit, score, and say what is read by whom.

    Args:
        hide: the obfuscation.
        fitted: originals to learn from, ``(m, 3, size, size)``; None where nothing is learned.
        scored: originals of other photographs, ``(n, 3, size, size)``.
        whose: the photograph of each.
        size: pixels a side.
    """
    start, betas = time.process_time(), betas_for(size)
    learned, refused = ([], {}) if fitted is None else fit(hide(fitted, 0), fitted, betas)
    sent = hide(scored, 0 if fitted is None else len(fitted))
    privacy = MultiAttackerPrivacy(suite=SUITE, betas=betas, nan_strategy="ignore", extra=learned)
    assessment = assess(lambda i: (sent[i], scored[i]), range(len(scored)), privacy, groups=whose, anchors=False)
    kinds = {metric.components[0].attacker: metric.attacker for metric in learned}
    return {
        **read(assessment),
        "found": {kind: str(attacker.found) for kind, attacker in kinds.items() if hasattr(attacker, "found")},
        "not_tried": not_tried({"suite": SUITE, "learned": list(kinds), "draws": None}, refused),
        "cpu_s": round(time.process_time() - start, 1),
    }


def fit(sent: Tensor, clean: Tensor, betas: tuple[float, ...]) -> tuple[list[LearnedAttackerMetric], dict[str, str]]:
    """Every kind's metrics that could be fitted, and why the others could not."""
    metrics: list[LearnedAttackerMetric] = []
    refused: dict[str, str] = {}
    for kind in LEARNED:
        fresh = standard_learned([kind], betas=betas, nan_strategy="ignore")
        try:
            fresh[0].fit_update(sent, clean, [f"fitted {i}" for i in range(len(clean))])
            fresh[0].fit_compute()
        except ValueError as error:
            refused[kind] = str(error)
        else:
            metrics += fresh
    return metrics, refused


def read(found: Assessment) -> dict[str, Any]:
    """What the library says of all attackers together, and of each alone."""
    reading = found.reading(RATE, clustered=False)
    return {
        "read": reading.success.rate,
        "low": reading.low,
        "high": reading.high,
        "n": reading.success.n,
        "realised": reading.realised,
        "verdict": reading.verdict,
        "strongest": reading.strongest,
        "alone": {name: float(found.success(RATE, attacker=name).mean()) for name in found.scores},
    }


def store(file: Path, row: dict[str, Any]) -> None:
    """Write a row, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_suffix(f".{time.monotonic_ns()}")
    staged.write_text(json.dumps(row, indent=1, allow_nan=False) + "\n")
    staged.replace(file)


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By who can undo it, then as in the zoo."""
    place = {name: i for i, name in enumerate(ZOO)}
    groups = list(UNDONE_BY)
    return sorted(
        found,
        key=lambda row: (row["family"] == OTHERS, groups.index(row["undone_by"]), place.get(row["obfuscation"], len(place))),
    )


def unexplained(found: list[dict[str, Any]]) -> list[str]:
    """Obfuscations that anyone or who has pairs can undo, of which too little is read, without a ceiling in the zoo."""
    return [
        row["obfuscation"]
        for row in found
        if row["undone_by"] in ("anyone", "pairs") and row["read"] < BAR and row["obfuscation"] in ZOO
        if ZOO[row["obfuscation"]].ceiling is None
    ]


def line(row: dict[str, Any], name: str, undone_by: str) -> str:
    winners = ", ".join(f"{who} {count}" for who, count in list(row["strongest"].items())[:3])
    return f"{name} | {undone_by} | {row['read']:.2f} ({row['low']:.2f} .. {row['high']:.2f}) of {row['n']} | {winners}"


def table(found: list[dict[str, Any]]) -> str:
    cells = [line(row, row["obfuscation"], row["undone_by"]).split(" | ") for row in found]
    return frame.markdown(["obfuscation", "undone by", "read at 1 %", "strongest"], cells)


if __name__ == "__main__":
    main()
