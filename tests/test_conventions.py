"""Pairs whose two files follow other conventions: named, never silently a low score."""

import numpy as np
import pytest
import torch

pytest.importorskip("imagecodecs", reason="needs the cli extra")
from PIL import Image

from attacker_metrics.files.images import Decoding, ImageError
from attacker_metrics.pairs.sources import load_pair

PICTURE = np.random.default_rng(0).random((3, 16, 16), np.float32)
PICTURE[0, 0, :2] = 0, 1


@pytest.fixture
def saved(tmp_path):
    def save(clean, noisy):
        np.save(tmp_path / "clean.npy", clean)
        np.save(tmp_path / "noisy.npy", noisy)
        return load_pair(tmp_path / "clean.npy", tmp_path / "noisy.npy")

    return save


@pytest.mark.parametrize(
    ("noisy", "fix"),
    [
        (255 * PICTURE, "divide by 255"),
        (255 * PICTURE + 20 * np.random.default_rng(1).standard_normal(PICTURE.shape), "divide by 255"),
        (65535 * PICTURE, "divide by 65535"),
        (2 * PICTURE - 1, "add 1 and divide by 2"),
        (2 * PICTURE - 1 + 0.05 * np.random.default_rng(1).standard_normal(PICTURE.shape), "add 1 and divide by 2"),
        ((255 * PICTURE).astype(np.uint16), "nearly black"),
        ((PICTURE > 0.5).astype(np.uint8), "nearly black"),
    ],
)
def test_a_noisy_image_in_another_scale_is_noted_with_its_file_and_the_fix(saved, noisy, fix):
    (note,) = saved(PICTURE, noisy).notes
    assert note.kind == "scale"
    assert "noisy.npy holds values from" in note.message
    assert fix in note.message


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.3, 1.0, 10.0])
def test_noise_of_any_strength_is_no_other_scale(saved, strength):
    noise = np.random.default_rng(1).standard_normal((3, 64, 64)).astype(np.float32)
    clean = np.random.default_rng(0).random((3, 64, 64), np.float32)
    assert saved(clean, clean + strength * noise).notes == ()


@pytest.mark.parametrize("noisy", [1 - PICTURE, np.zeros_like(PICTURE), (255 * PICTURE).astype(np.uint8)])
def test_obfuscations_and_eight_bit_files_are_not_noted(saved, noisy):
    assert saved(PICTURE, noisy).notes == ()


def test_a_clean_image_in_another_scale_is_refused_and_swapped_sides_are_told(saved):
    with pytest.raises(ImageError, match=r"clean.npy holds values .* leaves \[0, 1\].*divide by 255.*swapped\? .*noisy.npy"):
        saved(255 * PICTURE, PICTURE)
    with pytest.raises(ImageError, match="add 1 and divide by 2") as caught:
        saved(2 * PICTURE - 1, 2 * PICTURE - 1)
    assert "swapped" not in str(caught.value)


@pytest.fixture
def turned(tmp_path):
    """A clean picture that carries orientation 6, and its stored pixels without one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clean.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    return tmp_path / "clean.png", tmp_path / "noisy.png"


def test_an_orientation_of_one_file_alone_is_refused_unless_the_user_decides(turned):
    for pair in (turned, turned[::-1]):
        with pytest.raises(ImageError, match=r"clean.png has EXIF orientation 6 and .*noisy.png has none: .*ignore"):
            load_pair(*pair)
    stored = load_pair(*turned, decoding=Decoding(orientation="ignore"))
    assert torch.equal(stored.clean, stored.noisy)
    upright = load_pair(*turned, decoding=Decoding(orientation="apply"))
    assert torch.equal(upright.clean, upright.noisy.rot90(-1, (1, 2)))


def test_an_orientation_of_both_files_is_applied_to_both(turned):
    pair = load_pair(turned[0], turned[0])
    assert torch.equal(pair.clean, pair.noisy)
    assert torch.equal(pair.clean, load_pair(turned[1], turned[1]).clean.rot90(-1, (1, 2)))


def test_sides_that_are_swapped_name_the_orientation(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (10, 20)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"a pair must have one size. One is the other turned: .* EXIF orientation 1 and 1"):
        load_pair(tmp_path / "a.png", tmp_path / "b.png")
