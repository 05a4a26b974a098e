"""Score every reconstruction of an annotation table against its original, by any per-image metrics, aligned on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attacker_metrics.faithfulness.alignment import align
from attacker_metrics.faithfulness.annotations import Annotations
from attacker_metrics.semsim.triplets import square

PerImage = Callable[[Tensor, Tensor], Mapping[str, Tensor]]


def score_table(
    annotations: Annotations,
    images: Path,
    score: PerImage,
    *,
    size: int,
    max_shift: int | None = None,
    batch_size: int = 64,
) -> dict[str, list[object]]:
    """Make a score table that ``attacker-metrics faithfulness`` reads.

    Args:
        annotations: whose ``original`` and ``reconstruction`` are paths below ``images``.
        images: the folder.
        score: ``(reconstructions, originals), both (B, 3, S, S) -> {metric: (B,)}``.
        size: side S in pixels; images are resized to it.
        max_shift: register each original with its reconstruction first, mirroring it and shifting it by up to so many
            pixels (see :func:`attacker_metrics.faithfulness.align`); None scores it as it is.
        batch_size: pairs at once.

    Returns:
        Columns ``reconstruction``, one per metric and, with alignment, ``flipped``, ``shift_y``, ``shift_x``.

    Raises:
        FileNotFoundError: if an image does not exist.
    """
    paths = list(
        zip(np.asarray(annotations.reconstruction).tolist(), np.asarray(annotations.original).tolist(), strict=True)
    )
    table: dict[str, list[object]] = {"reconstruction": [reconstruction for reconstruction, _ in paths]}
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        preds, target = (torch.stack([square(images / name, size) for name in names]) for names in zip(*part, strict=True))
        columns: dict[str, Tensor] = {}
        if max_shift is not None:
            found = align(preds, target, max_shift=max_shift)
            target = found.original
            columns = {"flipped": found.flipped, "shift_y": found.shift_y, "shift_x": found.shift_x}
        with torch.no_grad():
            columns = {**score(preds, target), **columns}
        for name, values in columns.items():
            table.setdefault(name, []).extend(values.tolist())
    return table
