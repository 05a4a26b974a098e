"""Keys in a transform's domain: signs of cosine coefficients, phases of Fourier coefficients."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength
from attacker_metrics.obfuscations.values import cosines, join, split

_ANY = (-math.inf, math.inf)
_BLOCK = 8
_SIGNS = "Shi and Bhargava: A Fast MPEG Video Encryption Algorithm, ACM Multimedia 1998 (signs of cosine coefficients)"
_PHASES = "phase encryption, as one half of Refregier and Javidi: Optical Image Encryption, Optics Letters 1995"
_IMPORTANCE = "Oppenheim and Lim: The Importance of Phase in Signals, Proceedings of the IEEE 1981"


def _to_cosines(image: Tensor) -> Tensor:
    basis = cosines(_BLOCK, image)
    return basis @ split(image, _BLOCK) @ basis.T


def _from_cosines(coefficients: Tensor, like: Tensor) -> Tensor:
    basis = cosines(_BLOCK, like)
    return join(basis.T @ coefficients @ basis, *like.shape[1:])


def _block_signs(image: Tensor, key: Key, _strength: float) -> Tensor:
    coefficients = _to_cosines(image)
    return _from_cosines(coefficients * key.signs("signs", tuple(coefficients.shape), image), image)


def _same_block_signs(image: Tensor, key: Key, _strength: float) -> Tensor:
    return _from_cosines(_to_cosines(image) * key.signs("signs", (1, 3, _BLOCK, _BLOCK), image), image)


def _full_signs(image: Tensor, key: Key, _strength: float) -> Tensor:
    down, across = (cosines(side, image) for side in image.shape[1:])
    coefficients = down @ image @ across.T * key.signs("signs", tuple(image.shape), image)
    return down.T @ coefficients @ across


def _shuffled_coefficients(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    coefficients = _to_cosines(image).flatten(2)
    order = key.permutation("coefficients", _BLOCK**2)
    order = (order.argsort() if back else order).to(image.device)
    return _from_cosines(coefficients[..., order].view(-1, 3, _BLOCK, _BLOCK), image)


def _phases(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    turn = torch.fft.rfft2(key.normal("phases", tuple(image.shape), image))
    turn = turn / turn.abs()
    return _inverse_fourier(torch.fft.rfft2(image) * (turn.conj() if back else turn), image)


def _inverse_fourier(spectrum: Tensor, like: Tensor) -> Tensor:
    picture: Tensor = torch.fft.irfft2(spectrum, s=like.shape[1:])
    return picture


def _phase_only(image: Tensor, _key: Key, _strength: float) -> Tensor:
    spectrum = torch.fft.rfft2(image, norm="ortho")
    flat: Tensor = torch.fft.irfft2(spectrum / spectrum.abs().clamp(min=1e-6), s=image.shape[1:], norm="ortho")
    return flat


def _magnitude_only(image: Tensor, _key: Key, _strength: float) -> Tensor:
    return _inverse_fourier(torch.fft.rfft2(image).abs() + 0j, image)


def _without_means(image: Tensor, _key: Key, _strength: float) -> Tensor:
    blocks = split(image, _BLOCK)
    return join(blocks - blocks.mean(dim=(2, 3), keepdim=True), *image.shape[1:])


def _public_part(image: Tensor, _key: Key, threshold: float) -> Tensor:
    coefficients = _to_cosines(image)
    coefficients[:, :, 0, 0] = 0
    return _from_cosines(coefficients.clamp(-threshold / 255, threshold / 255), image)


TRANSFORM = (
    Obfuscation(
        "cosine-signs",
        "transform",
        "Flips signs of the cosine coefficients of all blocks of 8 x 8, in all pictures alike.",
        _SIGNS,
        _block_signs,
        key="fixed",
        undone_by="pairs",
        reverse=_block_signs,
        bounds=(-8.0, 8.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "cosine-signs-per-image",
        "transform",
        "Flips signs of the cosine coefficients of all blocks of 8 x 8, in every picture anew.",
        _SIGNS,
        _block_signs,
        key="per image",
        undone_by="key",
        leaves="the magnitudes of the cosine coefficients: where there is texture",
        reverse=_block_signs,
        bounds=(-8.0, 8.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "cosine-signs-same-blocks",
        "transform",
        "Flips the same signs of the cosine coefficients in every block of 8 x 8.",
        _SIGNS,
        _same_block_signs,
        key="fixed",
        undone_by="pairs",
        reverse=_same_block_signs,
        bounds=(-8.0, 8.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "cosine-signs-full",
        "transform",
        "Flips signs of the cosine coefficients of the whole picture, in all pictures alike.",
        _SIGNS,
        _full_signs,
        key="fixed",
        undone_by="pairs",
        reverse=_full_signs,
        bounds=_ANY,
    ),
    Obfuscation(
        "cosine-shuffle",
        "transform",
        "Shuffles the cosine coefficients within every block of 8 x 8 alike.",
        "Tang: Methods for Encrypting and Decrypting MPEG Video Data Efficiently, ACM Multimedia 1996 (zigzag permutation)",
        _shuffled_coefficients,
        key="fixed",
        undone_by="pairs",
        reverse=functools.partial(_shuffled_coefficients, back=True),
        bounds=(-8.0, 8.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "fourier-phases",
        "transform",
        "Turns the phases of all Fourier coefficients, in all pictures alike; magnitudes stay.",
        _PHASES,
        _phases,
        key="fixed",
        undone_by="pairs",
        reverse=functools.partial(_phases, back=True),
        bounds=_ANY,
    ),
    Obfuscation(
        "fourier-phases-per-image",
        "transform",
        "Turns the phases of all Fourier coefficients, in every picture anew; magnitudes stay.",
        _PHASES,
        _phases,
        key="per image",
        undone_by="key",
        leaves="the magnitudes of the Fourier coefficients",
        reverse=functools.partial(_phases, back=True),
        bounds=_ANY,
    ),
    Obfuscation(
        "fourier-phase-only",
        "transform",
        "Gives all Fourier coefficients the same magnitude; edges stay.",
        _IMPORTANCE,
        _phase_only,
        destroys="the magnitudes",
        bounds=_ANY,
    ),
    Obfuscation(
        "fourier-magnitude-only",
        "transform",
        "Gives all Fourier coefficients phase 0; what remains is the autocorrelation.",
        "phase retrieval, as Fienup: Phase Retrieval Algorithms: A Comparison, Applied Optics 1982",
        _magnitude_only,
        destroys="the phases, which phase retrieval finds in part",
        ceiling=0.0,
        bounds=_ANY,
    ),
    Obfuscation(
        "cosine-means-removed",
        "transform",
        "Removes the mean of every block of 8 x 8.",
        "Ji et al.: Privacy-Preserving Face Recognition with Learnable Privacy Budgets in Frequency Domain, ECCV 2022",
        _without_means,
        destroys="the blocks' means",
        bounds=(-1.0, 1.0),
        multiple=_BLOCK,
    ),
    Obfuscation(
        "p3-public-part",
        "transform",
        "Removes the mean of every block of 8 x 8 and clips its other cosine coefficients.",
        "Ra, Govindan and Ortega: P3: Toward Privacy-Preserving Photo Sharing, NSDI 2013",
        _public_part,
        destroys="the blocks' means and what exceeds the threshold",
        bounds=(-8.0, 8.0),
        strength=Strength("threshold in 8-bit steps", 15.0, 0.0, 2040.0),
        multiple=_BLOCK,
    ),
)
