"""The numbers of the specification in NumPy, SciPy and PyWavelets, float64, one image at a time; and pictures to score.

Written from the formulas, on other building blocks than the library: nothing here imports torch or the library.
"""

import math
from functools import cache

import numpy as np
import pywt
import skimage.data
from scipy import ndimage, special

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_NAMES = [
    "rgb_clamp",
    "rgb_minmax",
    "gray_clamp",
    "gray_minmax",
    "sobel_gray",
    "blur_gray",
    "standardize_gray",
    "gamma_gray",
    "wavelet_gray",
]
PEARSON_NAMES = ["pearson_rgb", "pearson_gray", "pearson_sobel", "pearson_blur", "pearson_gamma", "pearson_wavelet"]
NAMES = [*MS_SSIM_NAMES, *PEARSON_NAMES, "ms_ssim", "pearson"]


def luma(x):
    return np.tensordot([0.299, 0.587, 0.114], x, axes=1)[None]


def clamp(x):
    return np.clip(x, 0, 1)


def minmax(x):
    return (x - x.min()) / max(np.ptp(x), 1e-8)


def sobel(x):
    gx, gy = (np.stack([ndimage.sobel(plane, axis, mode="nearest") for plane in x]) / 8 for axis in (-1, -2))
    return np.sqrt(gx**2 + gy**2 + 1e-6)


def blur(x, sigma=2.0):
    for axis in (-2, -1):
        x = ndimage.gaussian_filter1d(x, sigma, axis=axis, mode="mirror", radius=math.ceil(3 * sigma))
    return x


def standardize(x):
    return special.expit((x - x.mean()) / max(x.std(), 1e-6))


def gamma(x, value):
    return np.clip(x, 1e-6, 1) ** value


def wavelet(x, threshold=0.1):
    height, width = x.shape[-2:]
    x = np.pad(x, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    average, details = pywt.dwt2(x, "haar", axes=(-2, -1))
    details = tuple(np.sign(band) * np.maximum(np.abs(band) - threshold, 0) for band in details)
    return pywt.idwt2((average, details), "haar", axes=(-2, -1))[:, :height, :width]


def ms_ssim_terms(x, y, betas=BETAS, data_range=1.0):
    """Mean contrast of all scales but the last, then the mean SSIM of the last; channels in one average."""

    def local_mean(v):
        return ndimage.gaussian_filter(v, (0, 1.5, 1.5), mode="mirror", radius=(0, 5, 5))

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    terms = []
    for scale in range(1, len(betas) + 1):
        mu_x, mu_y = local_mean(x), local_mean(y)
        var_x, var_y = (np.maximum(local_mean(v * v) - mu * mu, 0) for v, mu in ((x, mu_x), (y, mu_y)))
        contrast = (2 * (local_mean(x * y) - mu_x * mu_y) + c2) / (var_x + var_y + c2)
        luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
        inside = contrast[:, 5:-5, 5:-5]
        terms.append(inside.mean() if scale < len(betas) else (luminance * contrast).mean())
        x, y = (
            v[:, : v.shape[1] // 2 * 2, : v.shape[2] // 2 * 2]
            .reshape(len(v), v.shape[1] // 2, 2, v.shape[2] // 2, 2)
            .mean(axis=(2, 4))
            for v in (x, y)
        )
    return terms


def ms_ssim(x, y, betas=BETAS, data_range=1.0, normalize="relu"):
    terms = ms_ssim_terms(x, y, betas, data_range)
    if normalize == "simple":
        terms = [(term + 1) / 2 for term in terms]
    if normalize == "fold":
        terms = [abs(term) if abs(term) >= 0.01 else (term**2 + 0.01**2) / (2 * 0.01) for term in terms]
    if normalize is None and min(terms) < 0:
        return math.nan
    return math.prod(max(term, 0) ** beta for term, beta in zip(terms, betas, strict=True))


def pearson_sq(x, y, eps=1e-12):
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return covariance**2 / max(x.var() * y.var(), eps)


def views(noisy, clean, gamma_values=(0.5, 2.0), blur_sigma=2.0, wavelet_threshold=0.1):
    """Component -> the pairs of views whose similarities are averaged, by the two tables of the specification."""
    raw, clean_gray = luma(noisy), luma(clean)
    gray = clamp(raw)
    edges = sobel(raw), sobel(clean_gray)
    blurred = blur(gray, blur_sigma), blur(clean_gray, blur_sigma)
    denoised = wavelet(gray, wavelet_threshold), wavelet(clean_gray, wavelet_threshold)
    curved = [(gamma(gray, value), gamma(clean_gray, value)) for value in gamma_values]
    return {
        "rgb_clamp": [(clamp(noisy), clean)],
        "rgb_minmax": [(minmax(noisy), clean)],
        "gray_clamp": [(gray, clean_gray)],
        "gray_minmax": [(minmax(raw), clean_gray)],
        "sobel_gray": [(minmax(edges[0]), minmax(edges[1]))],
        "blur_gray": [blurred],
        "standardize_gray": [(standardize(raw), standardize(clean_gray))],
        "gamma_gray": curved,
        "wavelet_gray": [denoised],
        "pearson_rgb": [(clamp(noisy), clean)],
        "pearson_gray": [(gray, clean_gray)],
        "pearson_sobel": [edges],
        "pearson_blur": [blurred],
        "pearson_gamma": curved,
        "pearson_wavelet": [denoised],
    }


def scores(noisy, clean, betas=BETAS, **settings):
    """All seventeen numbers of one pair of ``(3, H, W)`` pictures, in the order of reports."""
    values = {
        name: np.mean([ms_ssim(*pair, betas) if name in MS_SSIM_NAMES else pearson_sq(*pair) for pair in pairs])
        for name, pairs in views(noisy, clean, **settings).items()
    }
    values["ms_ssim"] = np.mean([values[name] for name in MS_SSIM_NAMES])
    values["pearson"] = np.mean([values[name] for name in PEARSON_NAMES])
    return values


def batch_scores(noisy, clean, **settings):
    """As ``scores`` for ``(B, 3, H, W)``: name -> ``(B,)``."""
    rows = [scores(x, y, **settings) for x, y in zip(noisy, clean, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in NAMES}


def smallest_margin(noisy, clean, betas=BETAS):
    """How far the closest MS-SSIM term of a pair of pictures is from 0; the bars hold from 1e-3 on."""
    table = views(noisy, clean)
    return min(abs(t) for name in MS_SSIM_NAMES for pair in table[name] for t in ms_ssim_terms(*pair, betas))


@cache
def photographs(height=176, width=176):
    """Four photographs ``(4, 3, height, width)`` in [0, 1]: centre crops, shrunk by whole factors."""
    pictures = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        picture = getattr(skimage.data, name)().transpose(2, 0, 1) / 255
        factor = min(picture.shape[1] // height, picture.shape[2] // width)
        top, left = (picture.shape[1] - factor * height) // 2, (picture.shape[2] - factor * width) // 2
        picture = picture[:, top : top + factor * height, left : left + factor * width]
        pictures.append(picture.reshape(3, height, factor, width, factor).mean(axis=(2, 4)))
    return np.stack(pictures)


def _pixelate(clean, block=8):
    height, width = clean.shape[-2:]
    rows, columns = (np.arange(size) // block * block for size in (height, width))
    means = ndimage.uniform_filter(clean, (0, 0, block, block), mode="nearest", origin=(0, 0, -block // 2, -block // 2))
    return means[..., rows, :][..., columns]


OBFUSCATIONS = {
    "noise": lambda clean: clean + 0.3 * np.random.default_rng(7).standard_normal(clean.shape),
    "blur": lambda clean: ndimage.gaussian_filter(clean, (0, 0, 3, 3)),
    "pixelation": _pixelate,
    "inversion": lambda clean: 1 - clean,
    "out of range": lambda clean: 2.5 * clean - 0.6,
    "dimmed": lambda clean: 0.2 * clean + 0.05,
    "blend": lambda clean: 0.7 * clean + 0.3 * clean[::-1],
}
