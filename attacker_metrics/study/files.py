"""What steps hand to each other as files: images, tables, and where they lie."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attacker_metrics.files.spreadsheet import csv_text
from attacker_metrics.study.units import write_file

ATTACKED, THREAT_MODEL = "originals/attacked.json", "threat_model.json"
SCORES, ANNOTATIONS, PICKS, TASKS = "scores.csv", "annotations.csv", "machine_picks.csv", "annotation_tasks.csv"
REPORT, SUMMARY, LEAKAGE, CORRELATIONS = "report.html", "report.json", "leakage.csv", "correlations.csv"


@dataclass(frozen=True)
class Cell:
    """One cell of the study's design.

    Args:
        model: name of the model.
        defence: name of the defence.
        attack: title of the attack.
    """

    model: str
    defence: str
    attack: str

    @property
    def classifier(self) -> str:
        """What tables call the model under its defence."""
        return f"{self.model}+{self.defence}"

    @property
    def folder(self) -> str:
        """Where its reconstructions are, relative to the study's folder."""
        return f"reconstructions/{self.model}/{self.defence}/{self.attack}"


def image_names(count: int) -> list[str]:
    """Names of the attacked images."""
    return [f"{number:04}" for number in range(count)]


def image_files(folder: str, count: int) -> tuple[str, ...]:
    """The files of :func:`write_images`."""
    return (f"{folder}/images.npy", *(f"{folder}/{name}.png" for name in image_names(count)))


def write_images(root: Path, folder: str, images: Tensor) -> None:
    """Write images ``(B, 3, S, S)``: exact as one array of floats, and each as a PNG to look at."""
    buffer = io.BytesIO()
    np.save(buffer, images.detach().cpu().float().numpy())
    write_file(root / folder / "images.npy", buffer.getvalue())
    for name, image in zip(image_names(len(images)), images, strict=True):
        write_file(root / folder / f"{name}.png", png(image))


def read_images(root: Path, folder: str) -> Tensor:
    """The exact images of :func:`write_images`."""
    return torch.from_numpy(np.load(root / folder / "images.npy", allow_pickle=False))


def png(image: Tensor) -> bytes:
    """An image ``(3, H, W)`` as the content of a PNG file, clamped to [0, 1] and rounded to 8 bits."""
    pixels = (255 * image.detach().cpu().float().clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as CSV."""
    write_rows(path, [list(columns), *zip(*columns.values(), strict=True)])


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, the header among them, as CSV."""
    write_file(path, csv_text(rows).encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
