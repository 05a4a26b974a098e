"""Quality metrics: torchmetrics' numbers, directions that cannot be read upside down, LPIPS with real weights."""

import copy
import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import spoil, warns_once
from reference import OBFUSCATIONS, photographs
from scipy import linalg
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchmetrics import MetricCollection

from attacker_metrics import BlurMSSSIM, MultiAttackerPrivacy
from attacker_metrics.metrics.leakage_direction import METRIC_FACTS
from attacker_metrics.quality import FID, LPIPS, MSE, PSNR, SSIM, ReconstructionQuality, quality_scores

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)


class Distance(nn.Module):
    """Stands in for AlexNet, with a bound weight."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, a, b):
        return self.weight * (a - b).square().mean(dim=(1, 2, 3), keepdim=True)


class Means(nn.Module):
    """Features of a set: mean colours."""

    num_features = 3

    def forward(self, images):
        return images.mean(dim=(2, 3))


def pairs(obfuscation="noise", side=64):
    clean = photographs(side, side)
    return torch.from_numpy(OBFUSCATIONS[obfuscation](clean)).float(), torch.from_numpy(clean).float()


def everything(**kwargs):
    return ReconstructionQuality(lpips_network=Distance(), fid_features=Means(), **kwargs)


def test_the_names_are_those_of_the_table_and_each_has_its_declared_direction():
    quality = everything(extra={"blur_gray": BlurMSSSIM(betas=(0.5, 0.5))}, prefix="val/")
    directions = quality.leakage_directions
    assert list(directions) == [f"val/{name}" for name in ("mse", "psnr", "ssim", "lpips", "fid", "blur_gray")]
    assert all(METRIC_FACTS[name.removeprefix("val/")].leakage_direction == way for name, way in directions.items())
    with pytest.raises(ValueError, match="declares leakage_direction=None"):
        ReconstructionQuality(("mse",), extra={"other": MetricCollection([MSE()])})


@pytest.mark.parametrize("name", ["mse", "psnr", "ssim", "lpips"])
def test_more_noise_means_less_leakage_by_every_declared_direction(name):
    _, clean = pairs()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(clean.shape, generator=generator)
    scores = []
    for strength in (0.01, 0.1, 0.5):
        quality = everything()
        quality.update(clean + strength * noise, clean)
        scores.append(float(quality.compute()[name]))
    wanted = sorted(scores, reverse=METRIC_FACTS[name].leakage_direction == "higher")
    assert scores == wanted
    assert all(METRIC_FACTS[name].lowest <= score <= METRIC_FACTS[name].highest for score in scores)


def test_values_per_image_are_those_of_scikit_image_and_their_mean_that_of_the_metrics():
    noisy, clean = pairs()
    scores = quality_scores(noisy, clean, lpips_network=Distance())
    shown, original = (images.double().numpy() for images in (noisy.clamp(0, 1), clean))
    settings = {"data_range": 1, "channel_axis": 0, "gaussian_weights": True, "use_sample_covariance": False}
    for k, (sent, wanted) in enumerate(zip(shown, original, strict=True)):
        psnr = peak_signal_noise_ratio(wanted, sent, data_range=1)
        assert float(scores["psnr"][k]) == pytest.approx(psnr, abs=1e-3)
        # torchmetrics averages every pixel with mirrored borders, scikit-image leaves five rows and columns out
        wider = (np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect") for image in (wanted, sent))
        assert float(scores["ssim"][k]) == pytest.approx(structural_similarity(*wider, **settings), abs=1e-5)
    quality = everything()
    for part in (slice(0, 1), slice(1, 4)):
        quality.update(noisy[part], clean[part])
    values = quality.compute()
    for name in ("mse", "ssim", "lpips"):
        torch.testing.assert_close(values[name].float(), scores[name].mean().float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(values["psnr"], -10 * scores["mse"].mean().log10(), rtol=0, atol=1e-4)


def test_identical_images():
    _, clean = pairs()
    quality = everything()
    quality.update(clean, clean)
    values = quality.compute()
    assert values["psnr"] == math.inf
    assert (values["mse"], values["ssim"], values["lpips"]) == (0, pytest.approx(1, abs=1e-6), 0)
    assert quality_scores(clean, clean)["psnr"].tolist() == [math.inf] * 4
    noisy, _ = pairs()
    quality.update(noisy, clean)  # one identical image does not make the whole set infinite
    assert quality["psnr"].compute() < 60


def test_values_outside_the_unit_interval_are_clamped_for_quality_and_not_for_attackers():
    _, clean = pairs()
    sent = 3 * clean - 1
    quality = everything(extra={"rgb_minmax": MultiAttackerPrivacy(betas=(0.5, 0.5))["rgb_minmax"]})
    quality.update(sent, clean)
    shown = everything()
    shown.update(sent.clamp(0, 1), clean)
    assert quality["mse"].compute() == shown["mse"].compute()
    direct = MultiAttackerPrivacy(betas=(0.5, 0.5))
    direct.update(sent, clean)
    wanted = direct.compute()["rgb_minmax"]
    torch.testing.assert_close(quality["rgb_minmax"].compute(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", [MSE, PSNR, SSIM, lambda: LPIPS(Distance()), lambda: FID(Means())])
def test_what_cannot_be_scored_is_an_error(metric):
    noisy, clean = pairs()
    with pytest.raises(ValueError, match=r"originals span .* must lie in \[0, 1\]"):
        metric().update(noisy, 255 * clean)
    broken = spoil(noisy, 2)
    with pytest.raises(ValueError, match="1 of 4 reconstructions hold NaN or infinite pixels"):
        metric().update(broken, clean)
    with pytest.raises(ValueError, match="shape"):
        metric().update(noisy[:2], clean)
    with pytest.raises(TypeError, match="uint8"):
        metric().update(noisy, (255 * clean).byte())
    if metric is SSIM:
        with pytest.raises(ValueError, match="images are 32 x 5; SSIM"):
            metric().update(noisy[..., :32, :5], clean[..., :32, :5])
    empty = metric()
    before = copy.deepcopy(empty.metric_state)
    empty.update(noisy[:0], clean[:0])
    torch.testing.assert_close(empty.metric_state, before)


def test_lpips_takes_the_unit_interval_and_hands_its_network_minus_one_to_one():
    seen = []

    class Spy(nn.Module):
        def forward(self, a, b):
            seen.append((float(a.min()), float(a.max()), float(b.min()), float(b.max())))
            return (a - b).abs().mean(dim=(1, 2, 3))

    clean = torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    LPIPS(Spy()).update(2 * clean, clean)
    assert seen == [(-1, 1, -1, 1)]


def test_lpips_of_two_networks_are_two_metrics_in_a_plain_collection():
    noisy, clean = pairs()
    metrics = MetricCollection({"one": LPIPS(Distance(1.0)), "two": LPIPS(Distance(2.0))})
    metrics.update(clean, clean)  # equal states: torchmetrics would merge metrics with the same state names for good
    metrics.update(noisy, clean)
    values = metrics.compute()
    assert values["two"] == pytest.approx(2 * float(values["one"]))


def test_fid_is_the_frechet_distance_and_warns_when_images_are_fewer_than_features():
    rng = torch.Generator().manual_seed(0)
    fake, real = (torch.rand(40, 3, 16, 16, generator=rng) ** power for power in (1.0, 2.0))
    metric = FID(Means())
    for part in (slice(0, 13), slice(13, 40)):
        assert metric(fake[part], real[part]).isnan()
    a, b = (Means()(images).double().numpy() for images in (fake, real))
    covariances = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert float(metric.compute()) == pytest.approx(wanted, rel=1e-3)
    few = FID(Means())
    few.update(fake[:3], real[:3])
    with warns_once("FID of 3 images with 3 features: the covariances are singular"):
        few.compute()
    one = FID(Means())
    one.update(fake[:1], real[:1])
    with pytest.raises(ValueError, match="needs at least 2 images"):
        one.compute()


def test_a_missing_package_or_missing_weights_are_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(ModuleNotFoundError, match=r"LPIPS needs torchvision: pip install .*quality"):
            ReconstructionQuality()
    else:
        with pytest.raises(FileNotFoundError, match="LPIPS needs AlexNet's weights alexnet-owt"):
            ReconstructionQuality()
    if importlib.util.find_spec("torch_fidelity") is None:
        with pytest.raises(ModuleNotFoundError, match=r"pip install .*quality"):
            ReconstructionQuality(("fid",))
    else:
        with pytest.raises(ValueError, match="needs its weights, got None"):
            ReconstructionQuality(("fid",))
    with pytest.raises(ValueError, match="no quality metric is called 'dists'"):
        ReconstructionQuality(("dists",))


# --------------------------------------------------------------------------- LPIPS with AlexNet's ImageNet weights


def read(path):
    from PIL import Image

    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def published_images(*names):
    """``ATTACKER_METRICS_LPIPS_IMAGES``: a folder with the images, which no package holds."""
    folder = Path(os.environ.get("ATTACKER_METRICS_LPIPS_IMAGES", "/nonexistent"))
    if not all((folder / name).is_file() for name in names):
        pytest.skip(f"ATTACKER_METRICS_LPIPS_IMAGES does not name a folder with {names[0]}; no package holds these images")
    return [read(folder / name) for name in names]


@pytest.mark.parametrize(("distorted", "published"), [("ex_p0.png", 0.722), ("ex_p1.png", 0.138)])
def test_lpips_of_its_authors_example_pair(alexnet, distorted, published):
    reference, image = published_images("ex_ref.png", distorted)
    metric = LPIPS(alexnet)
    metric.update(image, reference)
    assert float(metric.compute()) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "published"), [("I03", 0.7237), ("I04", 0.2572), ("I06", 0.0508), ("I08", 0.0521), ("I19", 0.4253)]
)
def test_lpips_of_the_calibration_images_of_pyiqa(alexnet, name, published):
    reference, image = published_images(f"ref_dir/{name}.bmp", f"dist_dir/{name}.bmp")
    assert float(quality_scores(image, reference, lpips_network=alexnet)["lpips"]) == pytest.approx(published, abs=6e-5)


def test_lpips_with_real_weights_orders_distortions_of_photographs(alexnet):
    """A shift by one pixel and a slight blur look alike to LPIPS and noise of the same squared error does not."""
    _, clean = pairs(side=128)
    shifted = clean.roll(1, dims=-1)
    strength = (shifted - clean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    noisy = clean + strength * torch.randn(clean.shape)
    near, far = (quality_scores(image, clean, lpips_network=alexnet)["lpips"] for image in (shifted, noisy))
    assert (near < far).all()
    assert (near > 0).all()
