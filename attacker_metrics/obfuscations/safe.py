"""Safe by construction: what is sent does not depend on the picture, or only through a pad that is used once."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation
from attacker_metrics.obfuscations.pads import byte_pad, modulo_pad, modulo_pad_back, xor_pad
from attacker_metrics.obfuscations.values import procedural_picture

_PAD = "Vernam 1919; Shannon: Communication Theory of Secrecy Systems, 1949 (perfect secrecy)"
_CONTROL = "control: nothing of the picture is sent"


def _uniform(image: Tensor, key: Key, _strength: float) -> Tensor:
    return key.uniform("noise", tuple(image.shape), image)


def _gaussian(image: Tensor, key: Key, _strength: float) -> Tensor:
    return 0.5 + key.normal("noise", tuple(image.shape), image)


def _grey(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return torch.full_like(image, 0.5)


def _decoy(image: Tensor, key: Key, _strength: float) -> Tensor:
    return procedural_picture(key, "decoy", image)


SAFE = (
    *(
        Obfuscation(
            name,
            "safe",
            summary,
            _CONTROL,
            hide,
            key=key,
            undone_by="nobody",
            destroys="everything",
            independent=True,
            bounds=bounds,
        )
        for name, summary, hide, key, bounds in (
            ("noise-alone", "Sends uniform noise, drawn for every picture.", _uniform, "per image", (0.0, 1.0)),
            ("gaussian-noise-alone", "Sends Gaussian noise.", _gaussian, "per image", (-math.inf, math.inf)),
            ("one-noise-for-all", "Sends the same noise for all pictures.", _uniform, "fixed", (0.0, 1.0)),
            ("grey", "Sends middle grey.", _grey, "none", (0.0, 1.0)),
            ("decoy", "Sends a picture made by rule, another one for every picture.", _decoy, "per image", (0.0, 1.0)),
            ("one-decoy-for-all", "Sends the same picture, made by rule, for all pictures.", _decoy, "fixed", (0.0, 1.0)),
        )
    ),
    *(
        Obfuscation(
            name,
            "safe",
            summary,
            _PAD,
            hide,
            key="per image",
            undone_by="key",
            reverse=reverse,
            independent=True,
        )
        for name, summary, hide, reverse in (
            ("one-time-xor-pad", "Exclusive or with an 8-bit pad that no other picture shares.", xor_pad, xor_pad),
            ("one-time-modulo-pad", "Adds modulo 1 a pad that no other picture shares.", modulo_pad, modulo_pad_back),
            (
                "one-time-byte-pad",
                "Adds modulo 256 an 8-bit pad that no other picture shares.",
                byte_pad,
                functools.partial(byte_pad, back=True),
            ),
        )
    ),
)
