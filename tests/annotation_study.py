"""A small study for the tests: photographs, blurred as if they had been reconstructed, and their manifest."""

import csv
from pathlib import Path

from PIL import Image, ImageFilter

import attacker_metrics

PHOTOGRAPHS = Path(attacker_metrics.__file__).parent / "files" / "photographs"
CLASSES = ("astronaut", "chelsea", "coffee", "rocket")
COLUMNS = ("dataset", "model", "attack", "original", "reconstruction", "class")


def make_study(folder, models=("lenet", "convnet"), classes=CLASSES):
    """Write originals, reconstructions and ``tasks.csv``; originals are larger, and their names tell the class."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for k, name in enumerate(classes):
        picture = Image.open(PHOTOGRAPHS / f"{name}.jpg")
        original = picture.resize((96, 64))
        original.save(folder / f"secret-{name}.png", pnginfo=None)
        picture.close()
        for blur, model in enumerate(models, start=2):
            reconstruction = f"{model}-{k}.png"
            original.resize((48, 32)).filter(ImageFilter.GaussianBlur(blur / 2)).save(folder / reconstruction)
            rows.append(["photographs", model, "blur", f"secret-{name}.png", reconstruction, name])
    return write_table(folder / "tasks.csv", COLUMNS, rows)


def write_table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))
