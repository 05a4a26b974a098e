"""Files in, image tensors out: formats, bit depths, orientation, refusals."""

import numpy as np
import pytest
import torch

pytest.importorskip("imagecodecs", reason="needs the cli extra")
import imagecodecs
import tifffile
from PIL import Image, ImageFilter

from attacker_metrics.evaluation.images import ImageError, read_image, resize

RAMP = np.linspace(0, 255, 12 * 10 * 3).reshape(12, 10, 3).astype(np.uint8)


def expected(array: np.ndarray, top: int = 255) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32) / top).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_pictures_are_read_exactly(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"a{suffix}")
    loaded = read_image(tmp_path / f"a{suffix}")
    assert loaded.eight_bit
    torch.testing.assert_close(loaded.pixels, expected(RAMP), rtol=0, atol=0)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {"quality": 98, "subsampling": 0}), (".webp", {"lossless": True})])
def test_compressed_pictures_are_read(tmp_path, suffix, options):
    smooth = np.array(Image.fromarray(RAMP).filter(ImageFilter.GaussianBlur(2)))
    Image.fromarray(smooth).save(tmp_path / f"a{suffix}", **options)
    torch.testing.assert_close(read_image(tmp_path / f"a{suffix}").pixels, expected(smooth), rtol=0, atol=0.04)


@pytest.mark.parametrize(("suffix", "compression"), [(".png", None), (".tif", None), (".tif", "lzw"), (".tif", "zlib")])
@pytest.mark.parametrize("colour", [True, False])
def test_sixteen_bit_pictures_keep_all_bits(tmp_path, suffix, compression, colour):
    values = (np.arange(12 * 10 * 3).reshape(12, 10, 3) * 181 + 7).astype(np.uint16)
    stored = values if colour else values[..., 0].copy()
    if suffix == ".png":
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored))
    else:
        tifffile.imwrite(tmp_path / "a.tif", stored, compression=compression)
    loaded = read_image(tmp_path / f"a{suffix}")
    wanted = values if colour else np.repeat(values[..., :1], 3, axis=2)
    assert not loaded.eight_bit
    torch.testing.assert_close(loaded.pixels, expected(wanted, 65535), rtol=0, atol=1e-7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_alike_for_eight_and_sixteen_bit(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "eight.tif", exif=exif)
    upright = read_image(tmp_path / "eight.tif").pixels
    assert upright.shape == ((3, 12, 10) if orientation < 5 else (3, 10, 12))
    assert (orientation == 1) == (upright.shape == (3, 12, 10) and torch.equal(upright, expected(RAMP)))

    tifffile.imwrite(
        tmp_path / "sixteen.tif",
        RAMP.astype(np.uint16) * 257,
        photometric="rgb",
        extratags=[(274, "H", 1, orientation, True)],
    )
    sixteen = read_image(tmp_path / "sixteen.tif")
    assert not sixteen.eight_bit
    torch.testing.assert_close(sixteen.pixels, upright, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_bilevel_and_palette_pictures_are_expanded(tmp_path, mode):
    image = Image.fromarray(RAMP).convert(mode)
    image.save(tmp_path / "a.png")
    torch.testing.assert_close(
        read_image(tmp_path / "a.png").pixels, expected(np.array(image.convert("RGB"))), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("value", "pixels"),
    [
        (np.full((3, 4, 5), 1.5, np.float32), 1.5),
        (np.full((4, 5, 3), -0.5, np.float64), -0.5),
        (np.full((4, 5), 0.25, np.float16), 0.25),
        (np.full((1, 3, 4, 5), 2.0, np.float32), 2.0),
        (np.full((3, 4, 5), 51, np.uint8), 0.2),
        (np.full((3, 4, 5), 13107, np.uint16), 0.2),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_tensors_are_read_in_their_own_range(tmp_path, suffix, value, pixels):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, value)
    else:
        try:
            torch.save(torch.from_numpy(value), path)
        except KeyError:
            pytest.skip(f"torch {torch.__version__} cannot store {value.dtype}")
    loaded = read_image(path)
    torch.testing.assert_close(loaded.pixels, torch.full((3, 4, 5), pixels), rtol=0, atol=1e-6)
    assert loaded.eight_bit == (value.dtype == np.uint8)


def alpha(path):
    Image.fromarray(RAMP).convert("RGBA").save(path)


def transparent_palette(path):
    Image.fromarray(RAMP).convert("P").save(path, transparency=0)


def cmyk(path):
    Image.fromarray(RAMP).convert("CMYK").save(path)


def two_frames(path):
    frame = Image.fromarray(RAMP)
    frame.save(path, save_all=True, append_images=[frame])


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def text(path):
    path.write_text("not an image")


def float_tiff(path):
    Image.fromarray(RAMP[..., 0].astype(np.float32)).save(path)


def pickled(path):
    torch.save({"image": object()}, path)


def nested(path):
    torch.save({"image": torch.zeros(3, 4, 4)}, path)


def integers(path):
    np.save(path, np.zeros((3, 4, 4), np.int64))


def six_channels(path):
    np.save(path, np.zeros((6, 4, 4), np.float32))


def objects(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("make", "suffix", "message"),
    [
        (alpha, ".png", "alpha channel; flatten it"),
        (transparent_palette, ".png", "alpha channel; flatten it"),
        (cmyk, ".jpg", "is CMYK; convert it to RGB"),
        (two_frames, ".tif", "holds 2 frames"),
        (truncated, ".png", "cannot be read as an image"),
        (text, ".png", "cannot be read as an image"),
        (text, ".npy", "cannot be read as an image"),
        (text, ".pt", "cannot be read as an image"),
        (float_tiff, ".tif", "pixel format F"),
        (pickled, ".pt", "cannot be read as an image"),
        (nested, ".pt", "holds a dict; store one tensor"),
        (integers, ".npy", "torch.int64 values"),
        (six_channels, ".npy", r"shape \(6, 4, 4\)"),
        (objects, ".npy", "cannot be read as an image"),
    ],
)
def test_unusable_files_are_refused_with_a_hint(tmp_path, make, suffix, message):
    path = tmp_path / f"file{suffix}"
    make(path)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_resize_sets_the_smaller_side_and_keeps_a_constant():
    scaled = resize(torch.full((3, 40, 60), 0.3), 20)
    assert scaled.shape == (3, 20, 30)
    torch.testing.assert_close(scaled, torch.full_like(scaled, 0.3))
