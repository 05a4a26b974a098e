"""Do two checkouts give the same numbers, bit for bit, on the built-in photographs?

Runs scores, gradients, metrics, losses, learned attackers, the assessment and quality metrics in Python, and the commands
on files made from photographs, once with either checkout on PYTHONPATH, and compares every number of every file.
What tells runs apart but is no number of theirs (versions, digests, dates, seconds) is left out.

    python benchmarks/same_numbers.py OLD NEW [--work DIR]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from skimage import data

NO_NUMBERS = re.compile(
    r"version|began|report\.(html|json)|digest|seconds|started|finished|date|code|duration|throughput|per_second|machine|memory"
)
FOLDERS = "evaluate --clean {work}/files/clean --noisy {work}/files"
COMMANDS = {
    "demonstration": "evaluate --output {work}/demonstration",
    "draws": "evaluate --draws 3 --output {work}/draws",
    "noise": FOLDERS + "/noise --suite standard-v1 --null 10 --output {work}/noise",
    "negative": FOLDERS + "/negative --suite standard-v1 --null 10 --output {work}/negative",
    "learned": FOLDERS + "/noise --learned linear --output {work}/learned",
    "compare": "compare {work}/noise {work}/negative --output {work}/compare",
    "study": "study run {work}/files/study.yaml --output {work}/study",
}
STUDY = """
name: tiny
data: {builtin: photographs}
images: 4
models:
  - {name: lenet, network: lenet}
training: {epochs: 1, batch_size: 16, learning_rate: 0.01}
defences:
  - {name: plain}
  - {name: pruning, share: [{name: pruning, share: 0.7}]}
attacks:
  - {name: dlg, iterations: 20}
  - {name: invgrad, iterations: 20}
annotation: {machine: [hog, low-pass, colours], candidates: 3}
report: {gallery: 2, draws: 100}
"""


def in_python(folder: Path) -> None:
    """What the checkout on PYTHONPATH computes in Python: ``tensors.pt``, and files for the commands."""
    import attacker_metrics as am

    learned_attackers = importlib.import_module("attacker_metrics.learned")  # under the names that both checkouts have
    strongest = importlib.import_module("attacker_metrics.strongest")
    from attacker_metrics.quality import quality_scores

    found: dict[str, Any] = {}
    pictures: list[Any] = [getattr(data, name)() for name in ("astronaut", "coffee", "cat", "rocket")]
    clean = torch.stack([torch.from_numpy(p[:224, :224].copy()).permute(2, 0, 1) / 255 for p in pictures])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    hidden = {"noise": clean + 0.2 * noise, "negative": 1 - clean, "other": clean.roll(1, 0)}
    for backend in ("torch", "native"):
        os.environ["ATTACKER_METRICS_BACKEND"] = backend
        for name, image in hidden.items():
            noisy = image.clone().requires_grad_()
            found[f"{backend} {name} scores"] = am.multi_attacker_scores(noisy, clean)
            losses = am.multi_attacker_privacy_loss(noisy, clean)
            found[f"{backend} {name} losses"] = losses
            total = torch.stack(list(losses.values())).sum()
            found[f"{backend} {name} gradient"] = torch.autograd.grad(total, noisy)[0]
            found[f"{backend} {name} training"] = am.MultiAttackerPrivacyLoss()(image, clean)
            suite = am.MultiAttackerPrivacy(suite="standard-v1")
            suite.update(image, clean)
            found[f"{backend} {name} suite"] = suite.compute()
    os.environ["ATTACKER_METRICS_BACKEND"] = "torch"

    def crop(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        top, left = 32 * (i % 25 // 5), 32 * (i % 5)
        original = clean[i // 25][:, top : top + 64, left : left + 64]
        return original.flip(-1) + 0.1 * noise[i // 25][:, :64, :64], original

    betas = (0.0448, 0.2856, 0.3001)
    learned = learned_attackers.standard_learned(["linear", "block"], betas=betas)
    assessed = strongest.assess(crop, range(100), am.MultiAttackerPrivacy(betas=betas, extra=learned))
    found["assessment"] = {**assessed.scores, "p": assessed.strongest.p_value, "winner": list(assessed.strongest.winner)}
    found["quality"] = quality_scores(hidden["noise"], clean)
    torch.save(leaves(found), "tensors.pt")
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY)
    for side, images in {"clean": clean, **hidden}.items():
        (folder / side).mkdir()
        for i, image in enumerate(images):
            for j, turned in enumerate((image, image.flip(-1), image.flip(-2))):
                pixels = (turned.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(folder / side / f"{i}-{j}.png")


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Nested results as path -> bytes or text that compare by value."""
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in leaves(one, f"{at}/{key}").items()}
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return {at: (value.dtype.str, value.shape, value.tobytes()) if hasattr(value, "tobytes") else repr(value)}


def run(tree: Path, work: Path, only: set[str]) -> None:
    """Everything with one checkout; what it writes lies in ``work``."""
    work.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--in-python", "files"], cwd=work, env=environment, check=True
    )
    for name, command in COMMANDS.items():
        if name in only or not only:
            words = [sys.executable, "-m", "attacker_metrics", *command.format(work=".").split()]
            found = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
            (work / f"{name}.status.json").write_text(json.dumps(found.returncode))
            print(tree, name, "status", found.returncode, found.stderr.strip().splitlines()[-1:], flush=True)


def numbers(value: Any, at: str = "") -> dict[str, Any]:
    """A JSON value as path -> leaf, without what is no number of the run."""
    if isinstance(value, dict):
        return {
            k: v for key, one in value.items() if not NO_NUMBERS.search(key) for k, v in numbers(one, f"{at}.{key}").items()
        }
    if isinstance(value, list):
        return {k: v for i, one in enumerate(value) for k, v in numbers(one, f"{at}[{i}]").items()}
    return {at: value}


def content(path: Path) -> dict[str, Any]:
    """What a file holds, as name -> something that compares by value; NaN is written out, as it is equal to nothing."""
    if path.suffix == ".pt" and path.name == "tensors.pt":
        found: dict[str, Any] = torch.load(path, weights_only=True)
        return found
    if path.suffix == ".json":
        return {name: repr(v) for name, v in numbers(json.loads(path.read_text())).items()}
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        return {column: repr(table[column].tolist()) for column in table if not NO_NUMBERS.search(str(column))}
    return {path.name: path.read_text()} if path.suffix == ".csv" else {}


def main() -> int:
    """Compare, print what differs, and return 1 if anything does."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("old", type=Path, nargs="?")
    options.add_argument("new", type=Path, nargs="?")
    options.add_argument("--in-python", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--work", type=Path)
    options.add_argument("--only", nargs="*", default=[], choices=COMMANDS)
    given = options.parse_args()
    if given.in_python:
        in_python(given.in_python)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        for name in ("old", "new"):
            run(getattr(given, name).resolve(), work / name, set(given.only))
        compared, different = 0, []
        files = sorted({p.relative_to(work / n) for n in ("old", "new") for p in (work / n).rglob("*") if p.is_file()})
        for file in files:
            sides = [content(work / n / file) if (work / n / file).exists() else {"": "missing"} for n in ("old", "new")]
            for key in sorted(sides[0].keys() | sides[1].keys()):
                compared += 1
                if sides[0].get(key) != sides[1].get(key):
                    different.append(f"{file} {key}: {str(sides[0].get(key))[:100]} | {str(sides[1].get(key))[:100]}")
    print(f"{len(files)} files, {compared} values compared, {len(different)} different", *different, sep="\n")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
