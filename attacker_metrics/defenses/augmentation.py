"""Augmentation policies as defences: the gradient is taken of a changed image, in training and where it is attacked.

The operations are torchvision's; what a policy is made of is data. A policy is one or several sequences of operations; every
image draws one of them.

Source: Gao et al., "Privacy-preserving Collaborative Learning with Automatic Transformation Search", CVPR 2021, whose code
applies every operation always: the probabilities that its table lists besides have no effect, and are left out here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attacker_metrics._extras import missing_extra


class Operation(NamedTuple):
    """One of torchvision's operations.

    Args:
        name: a key of :data:`STRENGTHS`.
        magnitude: 0 ... 9, a linear scale between the two strengths there.
        probability: that it is applied.
    """

    name: str
    magnitude: float = 0
    probability: float = 1.0


STRENGTHS: dict[str, tuple[float, float]] = {
    "shear_x": (0, 0.3),  # tangent; its sign is drawn, as that of the next three
    "shear_y": (0, 0.3),
    "translate_x": (0, 150 / 331),  # share of the side
    "translate_y": (0, 150 / 331),
    "rotate": (0, 30),  # degrees, one way
    "color": (0, 0.5),  # the factor is 1 plus or minus this, the sign drawn, as for the next three
    "contrast": (0, 0.5),
    "sharpness": (0, 0.5),
    "brightness": (0, 0.5),
    "posterize": (8, 4),  # bits
    "solarize": (256, 0),  # values above are inverted
    "autocontrast": (0, 0),
    "equalize": (0, 0),
    "invert": (0, 0),
    "crop": (0, 1 / 8),  # share of the side that is padded with black before a crop of the old size
    "flip": (0, 0),
}
"""What magnitudes 0 and 9 of an operation mean."""

_TABLE = """
    invert 7, contrast 6, rotate 2, translate_x 9, sharpness 1,
    sharpness 3, shear_y 2, translate_y 2, autocontrast 5, equalize 2,
    shear_y 5, posterize 5, color 3, brightness 5, sharpness 9,
    brightness 9, equalize 5, equalize 1, contrast 7, sharpness 5,
    color 5, translate_x 5, equalize 7, autocontrast 8, translate_y 3,
    sharpness 6, brightness 6, color 8, solarize 0, invert 0,
    equalize 0, autocontrast 0, equalize 8, equalize 4, color 5,
    equalize 5, autocontrast 4, solarize 4, brightness 3, color 0,
    solarize 1, autocontrast 0, translate_y 3, translate_y 3, autocontrast 1,
    solarize 1, equalize 5, invert 0, translate_y 3, autocontrast 1
"""
OPERATIONS = tuple(Operation(name, int(magnitude)) for name, magnitude in map(str.split, _TABLE.split(",")))
"""The published table; a policy such as 3-1-7 names its rows, counted from 0."""

Sequences = tuple[tuple[Operation, ...], ...]
_CROP_FLIP = (Operation("crop", 9), Operation("flip", probability=0.5))


def _published(numbers: str) -> Sequences:
    """``"3-1-7+43-18-18"``: two sequences of rows; cropped and flipped first, as published."""
    return tuple((*_CROP_FLIP, *(OPERATIONS[int(row)] for row in part.split("-"))) for part in numbers.split("+"))


POLICIES: dict[str, Sequences] = {
    "crop-flip": (_CROP_FLIP,),
    **{numbers: _published(numbers) for numbers in ("3-1-7", "43-18-18", "3-1-7+43-18-18")},
}
"""The published policies: crop and flip, the two best that the search found, and both in turns."""


class AugmentationPolicy:
    """Change images as a policy says, each by draws of its own. Needs torchvision.

    Args:
        policy: a name of :data:`POLICIES`, or sequences of operations, of which every image draws one.

    Raises:
        ValueError: for an unknown policy or operation, or a magnitude outside [0, 9].

    Example:
        >>> AugmentationPolicy("43-18-18").sequences[0][2:]  # after crop and flip
        (Operation(name='translate_y', magnitude=3, probability=1.0),
         Operation(name='contrast', magnitude=7, probability=1.0),
         Operation(name='contrast', magnitude=7, probability=1.0))
    """

    def __init__(self, policy: str | Sequences) -> None:
        if isinstance(policy, str) and policy not in POLICIES:
            raise ValueError(f"there is no policy {policy!r}; there are {', '.join(POLICIES)}.")
        self.name = policy if isinstance(policy, str) else "custom"
        self.sequences = POLICIES[policy] if isinstance(policy, str) else policy
        for operation in (operation for sequence in self.sequences for operation in sequence):
            if operation.name not in STRENGTHS or not 0 <= operation.magnitude <= 9:
                raise ValueError(f"{operation}: names are {', '.join(STRENGTHS)}; the magnitude is from 0 to 9.")
        if not self.sequences:
            raise ValueError("a policy needs a sequence of operations.")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images ``(N, 3, H, W)`` in [0, 1] -> changed images, likewise, of the same type.

        Raises:
            TypeError: if images are not floating.
            ValueError: for other shapes.
            ModuleNotFoundError: without torchvision, naming the extra.
        """
        if not images.is_floating_point():
            raise TypeError(f"images must be floating in [0, 1], got {images.dtype}; convert uint8 by images / 255.")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (N, 3, H, W), got {tuple(images.shape)}.")
        return torch.stack([self._one(image, generator) for image in images]) if len(images) else images

    def _one(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        changed = image
        for operation in self.sequences[_draw(len(self.sequences), generator)]:
            if operation.probability >= 1 or float(torch.rand((), generator=generator)) < operation.probability:
                changed = _apply(operation, changed, generator)
        return changed.clamp(0, 1)

    def __repr__(self) -> str:
        return f"AugmentationPolicy({self.name if self.name != 'custom' else self.sequences!r})"


def _apply(operation: Operation, image: Tensor, generator: torch.Generator | None) -> Tensor:
    """One operation on one image ``(3, H, W)``; those defined on bytes round to bytes first."""
    functional = _torchvision()
    name, (low, high) = operation.name, STRENGTHS[operation.name]
    strength = low + (high - low) * operation.magnitude / 9
    height, width = image.shape[-2:]
    if name.startswith(("shear", "translate")):
        signed = strength * _sign(generator)
        shear, shift = [0.0, 0.0], [0, 0]
        axis = 0 if name.endswith("x") else 1
        if name.startswith("shear"):
            shear[axis] = float(torch.tensor(signed).atan().rad2deg())
        else:
            shift[axis] = round(signed * (width, height)[axis])
        changed = functional.affine(image, angle=0.0, translate=shift, scale=1.0, shear=shear)
    elif name == "rotate":
        changed = functional.rotate(image, strength, fill=[128 / 255])
    elif name in ("color", "contrast", "sharpness", "brightness"):
        function = functional.adjust_saturation if name == "color" else getattr(functional, f"adjust_{name}")
        changed = function(image, 1 + strength * _sign(generator))
    elif name == "solarize":
        # Not torchvision's, whose threshold is at most 1 and which inverts what equals it: 256 of 255 inverts nothing.
        changed = torch.where(image < strength / 255, image, 1 - image)
    elif name == "crop":
        padding = [round(strength * width), round(strength * height)]
        left, top = (_draw(2 * pad + 1, generator) for pad in padding)
        changed = functional.crop(functional.pad(image, padding), top, left, height, width)
    elif name in ("equalize", "posterize"):
        levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
        settings = (round(strength),) if name == "posterize" else ()
        changed = getattr(functional, name)(levels, *settings).to(image) / 255
    elif name == "flip":
        changed = functional.hflip(image)
    else:  # autocontrast, invert
        changed = getattr(functional, name)(image)
    return torch.as_tensor(changed)


def _torchvision() -> Any:
    try:
        from torchvision.transforms import functional
    except ModuleNotFoundError as error:
        raise missing_extra("augmentation policies need torchvision", "quality", error) from error
    return functional


def _draw(count: int, generator: torch.Generator | None) -> int:
    """A number below ``count``."""
    return int(torch.randint(count, (), generator=generator))


def _sign(generator: torch.Generator | None) -> int:
    return 2 * _draw(2, generator) - 1
