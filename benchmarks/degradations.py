"""Controlled degradations of real photographs, judged by an ImageNet classifier: stand-ins for annotated reconstructions.

Nothing here was seen by a person. The classifier is a *machine annotator*: a degraded crop counts as recognised where its
first class is the one that it gives to the clean crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import skimage.data
import skimage.transform
import sklearn.datasets
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from attacker_metrics.attackers.standard import Blur
from attacker_metrics.faithfulness import Annotations

SIDE = 64
"""Crops are degraded, stored (PNG, 8 bit) and scored at this side."""

SURE = 0.4
"""A crop is used if the classifier gives its first class at least this probability."""

Degrade = Callable[[Tensor, float, torch.Generator], Tensor]


def noise(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of that standard deviation."""
    return image + strength * torch.randn(image.shape, generator=generator)


def blur(image: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Gaussian blur of that many pixels."""
    blurred: Tensor = Blur(strength)(image[None])
    return blurred.squeeze(0)


def occlude(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """That share of 8 x 8 blocks is grey."""
    shown = torch.rand((1, 8, 8), generator=generator) > strength
    mask = F.interpolate(shown[None].float(), image.shape[-2:], mode="nearest")[0]
    return image * mask + 0.5 * (1 - mask)


def fade(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The contrast is divided, with a little noise on top."""
    return 0.5 + (image - image.mean()) / strength + 0.02 * torch.randn(image.shape, generator=generator)


def pixelate(image: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Blocks of that many pixels."""
    blocks = max(1, round(SIDE / strength))
    return F.interpolate(F.interpolate(image[None], (blocks, blocks), mode="area"), (SIDE, SIDE), mode="nearest")[0]


def phase(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Phases of the spectrum turned by up to that many half turns; magnitudes stay."""
    spectrum = torch.fft.rfft2(image)
    angle = strength * torch.pi * (2 * torch.rand(spectrum.shape[-2:], generator=generator) - 1)
    turned: Tensor = torch.fft.irfft2(spectrum * torch.polar(torch.ones_like(angle), angle), s=(SIDE, SIDE))
    return turned


def invert(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The negative, with noise of that standard deviation."""
    return 1 - image + strength * torch.randn(image.shape, generator=generator)


def swirl(image: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Twisted around the centre."""
    warped = skimage.transform.swirl(image.permute(1, 2, 0).numpy(), strength=strength, radius=SIDE, mode="reflect")  # type: ignore[no-untyped-call]
    return torch.from_numpy(np.ascontiguousarray(warped)).permute(2, 0, 1).float()


@dataclass(frozen=True)
class Kind:
    """A kind of degradation: strengths are drawn between two bounds, evenly in their logarithm."""

    degrade: Degrade
    weakest: float
    strongest: float
    trained: bool


KINDS = {
    "noise": Kind(noise, 0.02, 0.8, trained=True),
    "blur": Kind(blur, 0.5, 6.0, trained=True),
    "occlude": Kind(occlude, 0.05, 0.9, trained=True),
    "fade": Kind(fade, 1.2, 40.0, trained=True),
    "pixelate": Kind(pixelate, 1.2, 10.0, trained=False),
    "phase": Kind(phase, 0.03, 1.0, trained=False),
    "invert": Kind(invert, 0.005, 0.4, trained=False),
    "swirl": Kind(swirl, 0.2, 12.0, trained=False),
}


def photographs() -> Iterator[tuple[str, bool, Tensor]]:
    """Name, whether SemSim is trained on it, and pixels ``(3, H, W)`` in [0, 1]."""
    china, flower = sklearn.datasets.load_sample_images().images
    hopper = Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    sources = {
        "astronaut": (skimage.data.astronaut(), True),  # type: ignore[no-untyped-call]
        "coffee": (skimage.data.coffee(), True),  # type: ignore[no-untyped-call]
        "china": (china, True),
        "motorcycle": (skimage.data.stereo_motorcycle()[0], True),  # type: ignore[no-untyped-call]
        "hopper": (np.asarray(hopper), False),
        "chelsea": (skimage.data.chelsea(), False),  # type: ignore[no-untyped-call]
        "rocket": (skimage.data.rocket(), False),  # type: ignore[no-untyped-call]
        "flower": (flower, False),
    }
    for name, (pixels, trained) in sources.items():
        yield name, trained, torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def make(
    folder: Path, classifier: nn.Module, *, trained: bool, crops: int, per_kind: int, seed: int
) -> tuple[Annotations, Annotations]:
    """Write clean and degraded crops, and let the classifier judge them.

    Args:
        folder: for the PNG files.
        classifier: images in [0, 1] -> logits.
        trained: make the photographs to train on, with the kinds to train on; otherwise the others, with every kind.
        crops: per photograph.
        per_kind: degraded versions of a crop per kind.
        seed: of crops and degradations.

    Returns:
        Annotations whose data set is the photograph and whose model is the kind: of the trained kinds, and of the others
        (the same as the first where there are none).
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = {name: kind for name, kind in KINDS.items() if kind.trained or not trained}
    rows: list[tuple[str, str, str, str, bool]] = []
    for photograph, is_trained, pixels in photographs():
        if is_trained != trained:
            continue
        for number in range(crops):
            clean, label = _sure_crop(pixels, classifier, generator)
            original = _write(folder, f"{photograph}/{number:03d}/original.png", clean)
            made = []
            for name, kind in kinds.items():
                for version in range(per_kind):
                    share = float(torch.rand((), generator=generator))
                    strength = kind.weakest * (kind.strongest / kind.weakest) ** share
                    degraded = _as_stored(kind.degrade(clean, strength, generator))
                    path = _write(folder, f"{photograph}/{number:03d}/{name}-{version}.png", degraded)
                    made.append((name, path, degraded))
            with torch.no_grad():
                classes = classifier(torch.stack([degraded for _, _, degraded in made])).argmax(dim=1)
            rows += [
                (photograph, name, original, path, found == label)
                for (name, path, _), found in zip(made, classes.tolist(), strict=True)
            ]
    seen = _annotations([row for row in rows if KINDS[row[1]].trained])
    return seen, _annotations([row for row in rows if not KINDS[row[1]].trained]) if not trained else seen


def _annotations(rows: list[tuple[str, str, str, str, bool]]) -> Annotations:
    _, kinds, originals, paths, recognized = zip(*rows, strict=True)
    return Annotations(
        dataset=["photographs"] * len(rows),
        model=kinds,
        attack=["degradation"] * len(rows),
        original=originals,
        reconstruction=paths,
        votes={},
        recognizable=[float(value) for value in recognized],
    )


def _sure_crop(pixels: Tensor, classifier: nn.Module, generator: torch.Generator) -> tuple[Tensor, int]:
    """A square crop of random place and size that the classifier is sure of, and its class."""
    height, width = pixels.shape[-2:]
    best: tuple[float, Tensor, int] | None = None
    for _ in range(10):
        side = int(min(height, width) * (0.35 + 0.65 * float(torch.rand((), generator=generator))))
        top, left = (int(torch.randint(size - side + 1, (), generator=generator)) for size in (height, width))
        crop = pixels[:, top : top + side, left : left + side]
        clean = _as_stored(F.interpolate(crop[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0])
        with torch.no_grad():
            probability, label = classifier(clean[None]).softmax(dim=1)[0].max(dim=0)
        if best is None or float(probability) > best[0]:
            best = (float(probability), clean, int(label))
        if best[0] >= SURE:
            break
    assert best is not None
    return best[1:]


def _as_stored(image: Tensor) -> Tensor:
    return image.clamp(0, 1).mul(255).round() / 255


def _write(folder: Path, name: str, image: Tensor) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.mul(255).round().byte().permute(1, 2, 0).numpy()).save(path)
    return name
