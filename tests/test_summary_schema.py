"""The published schema of ``summary.json``: what every kind of run writes is valid, and nothing else is written."""

import copy
import json
from importlib.resources import files

import pytest

pytest.importorskip("rich", reason="needs the cli extra")
pytest.importorskip("jsonschema", reason="needs the test extra")
import jsonschema
import numpy as np

from attacker_metrics.commands import cli
from attacker_metrics.evaluation.summary import SCHEMA_VERSION

SCHEMA = json.loads((files("attacker_metrics.report") / "summary.schema.json").read_text(encoding="utf-8"))
SIDE = 16
SMALL = ("--betas", "1")
RUNS = {
    "pairs": (6, {}, ("--fail-above", "ms_ssim=0.001", "--fail-above", "rgb_clamp=0.5@p95")),
    "one": (1, {}, ()),
    "groups and a failure": (6, {"group": lambda row: row % 3}, ()),
    "nothing but failures": (0, {}, ()),
    "suite and null": (101, {}, ("--suite", "standard-v1", "--null", "99")),
    "null refused": (4, {}, ("--null", "3")),
    "learned": (12, {"split": lambda row: "fit" if row < 6 else "score"}, ("--learned", "linear")),
    "draws": (4, {}, ("--draws", "2")),
}


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def manifest_of(folder, count, columns, draws):
    random = np.random.default_rng(0)
    header = ["id", "clean", "noisy", *columns]
    rows = [",".join(header)]
    for row in range(count):
        clean = random.random((3, SIDE, SIDE), np.float32)
        np.save(folder / f"clean{row}.npy", clean)
        for draw in range(draws):
            np.save(folder / f"noisy{row}_{draw}.npy", 0.6 * clean + 0.4 * random.random(clean.shape, np.float32))
        noisy = ";".join(f"noisy{row}_{draw}.npy" for draw in range(draws))
        rows.append(",".join(map(str, [row, f"clean{row}.npy", noisy, *(value(row) for value in columns.values())])))
    if "group" in columns or not count:
        rows.append(",".join(["lost", "none.npy", ";".join(["none.npy"] * draws), *("3" for _ in columns)]))
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder / "pairs.csv"


def summary_of(folder, count, columns, options):
    manifest = manifest_of(folder, count, columns, 2 if "--draws" in options else 1)
    assert cli.main(["evaluate", "--manifest", str(manifest), "--output", str(folder / "out"), *SMALL, *options]) in (
        0,
        1,
        3,
    )
    return json.loads((folder / "out" / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", RUNS)
def test_what_a_run_writes_is_valid(kind, validator, tmp_path):
    summary = summary_of(tmp_path, *RUNS[kind])
    validator.validate(summary)
    assert summary["schema_version"] == SCHEMA_VERSION == SCHEMA["properties"]["schema_version"]["const"]


def test_the_demonstration_is_valid(validator, tmp_path):
    assert cli.main(["evaluate", "--output", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    validator.validate(summary)
    assert len(summary["groups"]) > 1


def objects_in(schema, path=()):
    """Every part of the schema that describes an object, but for free ones."""
    if isinstance(schema, dict):
        if "object" in schema.get("type", ()) and path != ("properties", "settings"):
            yield path, schema
        for key, part in schema.items():
            yield from objects_in(part, (*path, key))


def test_every_object_says_what_it_may_hold():
    for path, part in objects_in(SCHEMA):
        assert "additionalProperties" in part, path
        assert set(part.get("required", ())) <= part.get("properties", {}).keys(), path


def test_a_new_key_a_missing_one_and_another_type_are_told(validator, tmp_path):
    summary = summary_of(tmp_path, *RUNS["pairs"])
    for change in (
        lambda s: s.update(surprise=1),
        lambda s: s["components"]["ms_ssim"].update(surprise=1),
        lambda s: s["gates"][0].update(surprise=1),
        lambda s: s.pop("pairs"),
        lambda s: s.update(pairs="6"),
        lambda s: s.update(schema_version=SCHEMA_VERSION + 1),
        lambda s: s.update(read={"rate": 0.1}),
    ):
        changed = copy.deepcopy(summary)
        change(changed)
        assert not validator.is_valid(changed)
