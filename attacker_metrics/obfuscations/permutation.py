"""Permutations: the pixels stay, their places change."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from attacker_metrics.obfuscations.keys import Key
from attacker_metrics.obfuscations.obfuscation import Obfuscation, Strength
from attacker_metrics.obfuscations.values import inverse, join, split

_CHAOS = "permutation stage of image ciphers, as Fridrich: Symmetric Ciphers Based on Two-dimensional Chaotic Maps, 1998"
_BLOCKS = "block scrambling, as Kurihara et al.: An Encryption-then-Compression System for JPEG/Motion JPEG Standard, 2015"
_BLOCKWISE = "AprilPyone and Kiya: Block-wise Image Transformation with Secret Key, IEEE TIFS 2021"
_SIDE = Strength("side of a block in pixels", 8, 1, 256, whole=True)


def _moved(image: Tensor, order: Tensor, back: bool) -> Tensor:
    flat = image.reshape(3, -1)
    return flat[:, (inverse(order) if back else order).to(image.device)].view(image.shape)


def _pixels(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    return _moved(image, key.permutation("pixels", image.shape[1] * image.shape[2]), back)


def _values(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    order = key.permutation("values", image.numel())
    return image.reshape(-1)[(inverse(order) if back else order).to(image.device)].view(image.shape)


def _blocks(image: Tensor, key: Key, side: float, *, back: bool = False) -> Tensor:
    blocks = split(image, int(side))
    order = key.permutation("blocks", len(blocks))
    return join(blocks[(inverse(order) if back else order).to(image.device)], *image.shape[1:])


def _rows(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    order = key.permutation("rows", image.shape[1])
    return image[:, (inverse(order) if back else order).to(image.device)]


def _columns(image: Tensor, key: Key, _strength: float, *, back: bool = False) -> Tensor:
    order = key.permutation("columns", image.shape[2])
    return image[:, :, (inverse(order) if back else order).to(image.device)]


def _rows_and_columns(image: Tensor, key: Key, strength: float, *, back: bool = False) -> Tensor:
    return _rows(_columns(image, key, strength, back=back), key, strength, back=back)


def _cat_map(image: Tensor, _key: Key, iterations: float, *, back: bool = False) -> Tensor:
    side = image.shape[1]
    down, across = (grid.flatten() for grid in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    for _ in range(int(iterations)):
        down, across = (down + across) % side, (down + 2 * across) % side
    return _moved(image, down * side + across, back)


def _within_blocks(image: Tensor, key: Key, side: float, *, each: bool, back: bool = False) -> Tensor:
    blocks = split(image, int(side)).flatten(2)
    if each:
        orders = torch.stack([key.permutation(f"block {n}", blocks.shape[2]) for n in range(len(blocks))])
    else:
        orders = key.permutation("block", blocks.shape[2]).expand(len(blocks), -1)
    orders = (orders.argsort(dim=1) if back else orders).to(image.device)
    moved = blocks.gather(2, orders[:, None].expand_as(blocks))
    return join(moved.view(len(blocks), 3, int(side), int(side)), *image.shape[1:])


def _within_blocks_values(image: Tensor, key: Key, side: float, *, back: bool = False) -> Tensor:
    blocks = split(image, int(side))
    order = key.permutation("values of a block", blocks[0].numel())
    return join(blocks.flatten(1)[:, (inverse(order) if back else order).to(image.device)].view_as(blocks), *image.shape[1:])


_LEFT = {
    "pixel-shuffle-per-image": "the histogram of colours",
    "block-shuffle-per-image": "the blocks",
    "row-shuffle-per-image": "the rows",
    "within-block-shuffle-per-image": "a coarse picture: the blocks' means",
}
"""What those still see who lack the key of the picture."""
_EACH = functools.partial(_within_blocks, each=True)
_SAME = functools.partial(_within_blocks, each=False)

PERMUTATION = tuple(
    Obfuscation(
        name,
        "permutation",
        summary,
        source,
        hide,
        key=key,
        undone_by=undone_by,
        reverse=functools.partial(hide, back=True),
        leaves=_LEFT.get(name, ""),
        strength=strength,
        multiple=None if strength is _SIDE else 1,
        square=name == "cat-map",
    )
    for name, summary, source, hide, key, undone_by, strength in (
        ("pixel-shuffle", "Shuffles the pixels, in all pictures alike.", _CHAOS, _pixels, "fixed", "pairs", None),
        ("pixel-shuffle-per-image", "Shuffles the pixels of every picture anew.", _CHAOS, _pixels, "per image", "key", None),
        (
            "value-shuffle",
            "Shuffles the values of all channels, in all pictures alike.",
            _CHAOS,
            _values,
            "fixed",
            "pairs",
            None,
        ),
        ("block-shuffle", "Shuffles blocks, in all pictures alike.", _BLOCKS, _blocks, "fixed", "pairs", _SIDE),
        (
            "block-shuffle-per-image",
            "Shuffles the blocks of every picture anew; their borders fit as those of a jigsaw puzzle.",
            _BLOCKS,
            _blocks,
            "per image",
            "key",
            _SIDE,
        ),
        ("row-shuffle", "Shuffles the rows, in all pictures alike.", _CHAOS, _rows, "fixed", "pairs", None),
        ("row-shuffle-per-image", "Shuffles the rows of every picture anew.", _CHAOS, _rows, "per image", "key", None),
        ("column-shuffle", "Shuffles the columns, in all pictures alike.", _CHAOS, _columns, "fixed", "pairs", None),
        (
            "row-and-column-shuffle",
            "Shuffles the columns, then the rows, in all pictures alike.",
            _CHAOS,
            _rows_and_columns,
            "fixed",
            "pairs",
            None,
        ),
        (
            "cat-map",
            "Moves the pixels by Arnold's cat map, which anyone can iterate until it comes back.",
            "Arnold and Avez: Ergodic Problems of Classical Mechanics, 1968; used by many image ciphers",
            _cat_map,
            "none",
            "anyone",
            Strength("iterations", 7, 1, 1000, whole=True),
        ),
        ("within-block-shuffle", "Shuffles the pixels in every block alike.", _BLOCKWISE, _SAME, "fixed", "pairs", _SIDE),
        (
            "within-block-value-shuffle",
            "Shuffles the values of all channels in every block alike.",
            _BLOCKWISE,
            _within_blocks_values,
            "fixed",
            "pairs",
            _SIDE,
        ),
        (
            "within-each-block-shuffle",
            "Shuffles the pixels of every block in another way, in all pictures alike.",
            "Madono et al.: Block-wise Scrambled Image Recognition Using Adaptation Network, 2020",
            _EACH,
            "fixed",
            "pairs",
            _SIDE,
        ),
        (
            "within-block-shuffle-per-image",
            "Shuffles the pixels within the blocks, in every picture and block anew; the blocks' means stay.",
            "Kang et al.: PatchShuffle Regularization, 2017",
            _EACH,
            "per image",
            "key",
            _SIDE,
        ),
    )
)
