"""Files in, image tensors out: formats, bit depths, orientation, refusals."""

import numpy as np
import pytest
import torch

pytest.importorskip("imagecodecs", reason="needs the cli extra")
import imagecodecs
import tifffile
from PIL import Image, ImageFilter, features

from attacker_metrics.files.images import Decoding, ImageError, read_image, resize

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


def signed_tiff(path):
    tifffile.imwrite(path, RAMP[..., 0].astype(np.int16))


def cielab_tiff(path):
    tifffile.imwrite(path, RAMP, photometric="cielab")


def alpha_tiff(path):
    tifffile.imwrite(path, np.dstack([RAMP, RAMP[..., 0]]), photometric="rgb", extrasamples=["unassalpha"])


def imagej_stack(path):
    tifffile.imwrite(path, np.stack([RAMP[..., 0]] * 3), imagej=True)


def cut_tiff(path):
    tifffile.imwrite(path, RAMP, photometric="rgb")
    path.write_bytes(path.read_bytes()[:-50])


def wrong_checksum(path):
    Image.fromarray(RAMP).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 30] ^= 1
    path.write_bytes(content)


def deep_ppm(path):
    path.write_bytes(b"P6 2 1 65535\n" + bytes(12))


def postscript(path):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


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
        (signed_tiff, ".tif", "signed values of 16 bits"),
        (cielab_tiff, ".tif", "CIELAB; convert it to RGB"),
        (alpha_tiff, ".tif", "alpha channel; flatten it"),
        (imagej_stack, ".tif", "holds 3 frames"),
        (cut_tiff, ".tif", "cut off or damaged"),
        (wrong_checksum, ".png", "checksum of its chunk 'IDAT' is wrong"),
        (deep_ppm, ".ppm", "PPM of more than 8 bits"),
        (postscript, ".png", "its content is none of PNG"),
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


GREY16 = (np.arange(12 * 10).reshape(12, 10) * 541).astype(np.uint16)
COLOUR16 = (np.arange(12 * 10 * 3).reshape(12, 10, 3) * 181 + 7).astype(np.uint16)
PLANES = COLOUR16.transpose(2, 0, 1)
REVERSED = np.stack([np.arange(256)[::-1] * 257] * 3).astype(np.uint16)


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize(
    ("stored", "wanted", "tags"),
    [
        (GREY16, 1 - GREY16 / 65535, {"photometric": "miniswhite"}),
        (GREY16, 1 - GREY16 / 65535, {"photometric": "miniswhite", "compression": "zlib", "predictor": True}),
        (RAMP[..., 0], 1 - RAMP[..., 0] / 255, {"photometric": "miniswhite"}),
        (PLANES, COLOUR16 / 65535, {"photometric": "rgb", "planarconfig": "separate"}),
        (PLANES, COLOUR16 / 65535, {"photometric": "rgb", "planarconfig": "separate", "compression": "lzw"}),
        (PLANES, COLOUR16 / 65535, {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
        (COLOUR16, COLOUR16 / 65535, {"photometric": "rgb", "rowsperstrip": 5, "compression": "packbits"}),
        (COLOUR16, COLOUR16 / 65535, {"photometric": "rgb", "bigtiff": True}),
        (RAMP[..., 0] > 99, RAMP[..., 0] <= 99, {"photometric": "miniswhite"}),
        (RAMP[..., 0], 1 - RAMP[..., 0] / 255, {"photometric": "palette", "colormap": REVERSED}),
        ((3 * RAMP / 255 - 1).astype(np.float32), 3 * RAMP / 255 - 1, {"photometric": "rgb"}),
    ],
)
def test_a_tiff_is_read_as_its_tags_say(tmp_path, stored, wanted, tags, byteorder):
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=byteorder, **tags)
    wanted = np.repeat(wanted[..., None], 3, axis=2) if wanted.ndim == 2 else wanted
    loaded = read_image(tmp_path / "a.tif")
    torch.testing.assert_close(loaded.pixels, expected(wanted, 1), rtol=0, atol=1e-6)


def test_twelve_bits_are_read_as_twelve(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY16 >> 4, bitspersample=12)
    torch.testing.assert_close(
        read_image(tmp_path / "a.tif").pixels[0], torch.from_numpy((GREY16 >> 4) / 4095).float(), rtol=0, atol=1e-6
    )


def test_a_thumbnail_beside_the_picture_is_left_alone(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RAMP, photometric="rgb")
        file.write(RAMP[::2, ::2], photometric="rgb", subfiletype=1)
    torch.testing.assert_close(read_image(tmp_path / "a.tif").pixels, expected(RAMP), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".ppm", ".gif", ".avif"])
def test_further_kinds_of_pictures_are_read(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    smooth = Image.new("RGB", (16, 12), (200, 100, 50))
    smooth.save(tmp_path / f"a{suffix}")
    torch.testing.assert_close(read_image(tmp_path / f"a{suffix}").pixels, expected(np.array(smooth)), rtol=0, atol=0.02)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_the_decoder_of_a_damaged_jpeg_says_is_told(tmp_path, progressive):
    pytest.importorskip("simplejpeg", reason="it tells what Pillow conceals")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", progressive=progressive)
    assert read_image(tmp_path / "a.jpg").damage == ""
    content = (tmp_path / "a.jpg").read_bytes()
    half = len(content) // 2
    (tmp_path / "a.jpg").write_bytes(content[:half] + content[half + 200 :])
    assert "Corrupt JPEG data" in read_image(tmp_path / "a.jpg").damage


def test_a_safetensors_file_holds_one_tensor_or_one_named_image(tmp_path):
    save_file = pytest.importorskip("safetensors.torch", reason="reads safetensors").save_file
    pixels, path = torch.rand(3, 4, 5), tmp_path / "a.safetensors"
    for tensors in ({"any": pixels}, {"image": pixels, "mask": torch.zeros(4, 5)}):
        save_file(tensors, path)
        assert torch.equal(read_image(path).pixels, pixels)
    save_file({"one": pixels, "other": pixels + 1}, path)
    with pytest.raises(ImageError, match="holds one, other; store one tensor"):
        read_image(path)


def large_png(path):
    path.write_bytes(imagecodecs.png_encode(np.zeros((200, 100), np.uint8)))


def large_tiff(path):
    tifffile.imwrite(path, np.zeros((200, 100), np.uint8), compression="zlib")


def large_tile(path):
    tifffile.imwrite(path, np.zeros((10, 10), np.uint8), tile=(208, 112), compression="zlib")


def large_picture(path):
    Image.new("RGB", (100, 200)).save(path)


def large_array(path):
    np.save(path, np.zeros((200, 100), np.uint8))


def large_view(path):
    torch.save(torch.zeros(1).expand(3, 200, 100), path)


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (large_png, ".png"),
        (large_tiff, ".tif"),
        (large_tile, ".tif"),
        *((large_picture, suffix) for suffix in (".jpg", ".bmp", ".webp", ".gif", ".ppm")),
        (large_array, ".npy"),
        (large_view, ".pt"),
    ],
)
def test_dimensions_are_looked_at_before_anything_is_decoded(tmp_path, make, suffix):
    path = tmp_path / f"a{suffix}"
    make(path)
    with pytest.raises(ImageError, match=r"the limit is 19,999; scale it down, or raise --max-pixels"):
        read_image(path, Decoding(max_pixels=19_999))
    assert read_image(path, Decoding(max_pixels=30_000)).pixels.ndim == 3


def test_a_file_beyond_the_limit_is_not_held(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(1000))
    with pytest.raises(ImageError, match="has 1,000 bytes or more, the limit is 999; raise --max-bytes"):
        read_image(tmp_path / "a.png", Decoding(max_bytes=999))


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"max_pixels": 0}, {"max_bytes": -1}, {"orientation": "turn"}])
def test_impossible_readings_are_refused_by_name(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Decoding(**limits)
