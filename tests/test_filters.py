"""The suites' further attackers against scikit-image, SciPy, NumPy and Pillow, in float64 on real photographs."""

import io

import numpy as np
import pytest
import reference
import torch
from conftest import photo_pair
from PIL import Image
from scipy import fft, ndimage
from skimage import exposure

from attacker_metrics.attackers.filters import (
    JPEG,
    AffineFit,
    Equalize,
    Unsharp,
    Wiener,
    draw,
    invert,
    mean_of_draws,
    median,
)
from attacker_metrics.attackers.standard import Blur, luma
from attacker_metrics.scoring.similarity import SquaredPearson

SIZES = [(176, 176), (61, 90)]
EVERY = (invert, Equalize(), median, Unsharp(), Wiener(), JPEG())
every_filter = pytest.mark.parametrize("attacker", EVERY, ids=lambda a: getattr(a, "__name__", None) or str(a))


def gray(height, width, obfuscation="noise"):
    """Luma of noisy photographs cut to [0, 1]: a float64 array ``(4, height, width)``."""
    noisy, _ = photo_pair(obfuscation)
    return np.stack([reference.clamp(reference.luma(image))[0] for image in noisy])[:, :height, :width]


def view(attacker, images):
    return attacker(torch.tensor(images)[:, None])[:, 0].numpy()


@pytest.mark.parametrize("size", SIZES)
def test_equalisation_is_that_of_scikit_image(size):
    images = gray(*size)
    expected = np.stack([exposure.equalize_hist(image, nbins=256) for image in images])
    np.testing.assert_allclose(view(Equalize(), images), expected, rtol=0, atol=1e-12)


def test_equalisation_counts_more_pixels_than_float32_can():
    dark = torch.zeros(1, 1, 4200, 4200)  # 17.6 million
    dark[..., -1, :] = 1.0
    assert Equalize()(dark)[0, 0, 0, 0] == pytest.approx(4199 / 4200, abs=1e-6)


@pytest.mark.parametrize("contrast", [1e-3, 1e-5, 3.0])
def test_equalisation_undoes_lost_contrast(contrast):
    images = gray(61, 90)
    np.testing.assert_allclose(view(Equalize(), 0.5 + contrast * images), view(Equalize(), images), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_the_median_is_that_of_scipy(size):
    images = gray(*size)
    expected = ndimage.median_filter(images, size=(1, 3, 3), mode="nearest")
    np.testing.assert_array_equal(view(median, images), expected)


def test_the_unsharp_mask_adds_what_the_blur_takes():
    images = gray(61, 90)
    expected = np.clip(images + 0.7 * (images - reference.blur(images, 1.5)), 0, 1)
    np.testing.assert_allclose(view(Unsharp(1.5, 0.7), images), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_the_wiener_filter_is_that_of_the_cosine_transform(size):
    """A mirrored border without repeated pixel diagonalises in cosines of type I."""
    images, noise = gray(*size), 1e-2
    level = images.mean(axis=(1, 2), keepdims=True)
    responses = []
    for length in size:
        impulse = np.zeros(length)
        impulse[0] = 1
        blurred = ndimage.gaussian_filter1d(impulse, 2.0, mode="mirror", radius=6)
        responses.append(fft.dct(blurred, 1) / fft.dct(impulse, 1))
    response = np.outer(*responses)
    spectrum = fft.dctn(images - level, 1, axes=(1, 2)) * response / (response**2 + noise)
    expected = np.clip(fft.idctn(spectrum, 1, axes=(1, 2)) + level, 0, 1)
    # Large pictures are mirrored as far as the filter's response reaches, small ones as a whole.
    atol = 1e-10 if max(size) < 100 else 1e-5
    np.testing.assert_allclose(view(Wiener(2.0, noise), images), expected, rtol=0, atol=atol)


def test_the_wiener_filter_undoes_the_blur_where_there_is_no_noise():
    images = gray(33, 40)
    blurred = Blur(1.0)(torch.tensor(images)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(view(Wiener(1.0, 1e-14), blurred), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quality", [5, 20, 50, 90])
@pytest.mark.parametrize("size", SIZES)
def test_jpeg_gives_the_pictures_of_a_decoder(quality, size):
    images = gray(*size, "blend")

    def recompress(image):
        file = io.BytesIO()
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(file, "jpeg", quality=quality)
        return np.asarray(Image.open(file)) / 255

    expected = np.stack([recompress(image) for image in images])
    # The decoder works in integers: coefficients in the middle between two steps may fall to the other side.
    off = 255 * np.abs(view(JPEG(quality), images) - expected)
    assert off.mean() < 0.3
    assert np.mean(off > 1.01) < 0.05


@pytest.mark.parametrize("quality", [5, 20, 50, 90])
def test_jpeg_quantises_cosine_coefficients_by_the_tables_of_the_format(quality):
    images, file = gray(48, 80, "blend"), io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "jpeg", quality=quality)
    table = np.array(Image.open(file).quantization[0]).reshape(8, 8)
    upward = 1e-4  # decides what lies halfway
    blocks = (np.floor(255 * images + 0.5 + upward) - 128).reshape(4, 6, 8, 10, 8)
    coefficients = fft.dctn(blocks, axes=(2, 4), norm="ortho")
    steps = table[:, None, :]
    quantised = np.floor(coefficients / steps + 0.5 + upward) * steps
    levels = fft.idctn(quantised, axes=(2, 4), norm="ortho").reshape(images.shape)
    expected = np.clip(np.floor(levels + 128.5 + upward), 0, 255) / 255
    np.testing.assert_allclose(view(JPEG(quality), images), expected, rtol=0, atol=1e-12)


def test_the_affine_fit_is_least_squares_per_channel():
    noisy, clean = photo_pair("noise", 61, 90)
    noisy = noisy * np.array([1e-4, -2.0, 0.5])[:, None, None] + 3
    got = AffineFit.fitted(torch.tensor(noisy), torch.tensor(clean)).numpy()
    for image in range(4):
        for channel in range(3):
            x, y = noisy[image, channel].ravel(), clean[image, channel].ravel()
            slope, offset = np.polyfit(x - x.mean(), y, 1)
            expected = np.clip(slope * (x - x.mean()) + offset, 0, 1)
            np.testing.assert_allclose(got[image, channel].ravel(), expected, rtol=0, atol=1e-10)
    scores = AffineFit(SquaredPearson())(torch.tensor(noisy), torch.tensor(clean))
    expected = [reference.pearson_sq(reference.luma(x), reference.luma(y)) for x, y in zip(got, clean, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


def test_the_affine_fit_of_a_flat_picture_is_the_mean_of_the_clean_one():
    clean = torch.rand(2, 3, 8, 8)
    fitted = AffineFit.fitted(torch.full_like(clean, 0.3), clean)
    torch.testing.assert_close(fitted, clean.mean(dim=(2, 3), keepdim=True).expand_as(clean))


@pytest.mark.parametrize("contrast", [1e-2, 1e-4, 1e-6])
def test_the_affine_fit_finds_contrast_that_float32_hardly_holds(contrast):
    clean = torch.tensor(photo_pair()[1])
    faint = (0.7 + contrast * clean).float()
    exact = AffineFit.fitted(faint.double(), clean)
    torch.testing.assert_close(AffineFit.fitted(faint, clean.float()).double(), exact, rtol=0, atol=1e-5)


def test_rounding_errors_do_not_decide_about_the_jpeg_of_8_bit_photographs():
    """One of a thousand lumas of 8-bit colours lies halfway between two levels."""
    clean = torch.tensor(photo_pair()[1])
    off = JPEG()(luma(clean)) - JPEG()(luma(clean.float())).double()
    assert (off.abs() > 0.5 / 255).double().mean() < 5e-5


@every_filter
def test_no_image_of_a_batch_influences_another(attacker):
    images = torch.tensor(gray(61, 90), dtype=torch.float32)[:, None]
    alone = torch.cat([attacker(image[None]) for image in images])
    torch.testing.assert_close(attacker(images), alone, rtol=0, atol=1e-6)
    assert attacker(images).shape == images.shape


def test_equalisation_of_broken_images_leaves_the_others_alone():
    images = torch.tensor(gray(48, 48), dtype=torch.float32)[:, None]
    broken = images.clone()
    broken[1, 0, 3, 3], broken[2, 0, 3, 3] = torch.nan, torch.inf
    made = Equalize()(broken)
    assert made[1, 0, 3, 3].isnan()
    torch.testing.assert_close(made[[0, 3]], Equalize()(images)[[0, 3]], rtol=0, atol=0)
    half = images.half()
    torch.testing.assert_close(Equalize()(half), Equalize()(half.float()).half(), rtol=0, atol=0)


@every_filter
@pytest.mark.parametrize("kind", ["photograph", "flat", "outlier"])
def test_values_and_gradients_are_finite(attacker, kind):
    images = torch.tensor(gray(48, 48), dtype=torch.float32)[:, None]
    if kind == "flat":
        images = torch.full_like(images, 0.5)
    elif kind == "outlier":
        images[:, :, 3, 3] = 1e4
    images.requires_grad_()
    made = attacker(images)
    made.square().sum().backward()
    assert made.isfinite().all()
    assert images.grad.isfinite().all()
    if kind == "photograph":
        assert images.grad.abs().amax() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Equalize(1), "bins must be at least 2, got 1"),
        (lambda: Unsharp(0.0), r"blur_sigma must be a positive .* got 0\.0"),
        (lambda: Unsharp(1.0, -1.0), r"amount must be a positive number, got -1\.0"),
        (lambda: Wiener(2.0, 0.0), r"noise_to_signal must be a positive number, got 0\.0"),
        (lambda: Wiener(2.0)(torch.zeros(1, 1, 6, 9)), "6 x 9 pixels are too small"),
        (lambda: JPEG(0), "quality must be 1 to 100, got 0"),
        (lambda: mean_of_draws(torch.zeros(2, 3, 8, 8)), r"\(K, B, C, H, W\).* got \(2, 3, 8, 8\)"),
        (lambda: draw(torch.neg, torch.zeros(1, 3, 8, 8), 0), "at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_averaging_draws_brings_the_picture_back():
    clean = luma(torch.tensor(photo_pair()[1], dtype=torch.float32))
    draws = draw(lambda images: images + torch.randn_like(images), clean, 64)
    assert draws.shape == (64, *clean.shape)
    scores = [SquaredPearson()(images, clean).mean() for images in (draws[0], mean_of_draws(draws))]
    assert scores[0] < 0.1
    assert scores[1] > 0.6
