"""The variants of the compiled kernel on the processors that they are for: emulated, the kernel called from C++."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import pictures

from attacker_metrics import Pair, standard_components
from attacker_metrics.engine.native import recipe
from attacker_metrics.scoring.components import program_of

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("kernel_driver.cpp")
COMPONENTS = standard_components(betas=(0.5, 0.5))
X86 = ("x86_64", "x86_64-linux-gnu-g++", "qemu-x86_64")
ARM = ("aarch64", "aarch64-linux-gnu-g++", "qemu-aarch64")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Compiles the driver and the kernel for a machine, once."""
    made: dict[str, Path] = {}

    def compiled(machine, compiler):
        if machine not in made:
            if shutil.which(compiler) is None:
                pytest.skip(f"{compiler} is not installed")
            folder = tmp_path_factory.mktemp(machine)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CXX", compiler)
                objects = recipe.compile_objects(folder, machine)
                command = [*recipe.compiler(), *recipe.FLAGS, "-static", str(DRIVER), *map(str, objects)]
            made[machine] = folder / "driver"
            subprocess.run([*command, "-o", str(made[machine])], check=True)
        return made[machine]

    return compiled


def asked(noisy, clean):
    """What the driver reads."""
    program = program_of(list(COMPONENTS.values()), *noisy.shape[1:])
    integers, numbers = program.to_numbers()
    counts = program.channels(noisy.shape[1])
    planes = sum(counts[comparison.noisy] for comparison in program.ms_ssim)
    sizes = [len(integers), len(numbers), *noisy.shape, program.components, planes]
    arrays = (np.array(sizes, np.int64), np.array(integers, np.int64), np.array(numbers, np.float64), noisy, clean)
    return b"".join(np.asarray(array).tobytes() for array in arrays)


def in_float64(noisy, clean):
    """Scores and both gradients by the engine in torch."""
    inputs = [image.double().requires_grad_() for image in (noisy, clean)]
    scores = torch.stack(Pair(*inputs).scores(COMPONENTS.values()), dim=1)
    return [scores.detach(), *torch.autograd.grad(scores.sum(), inputs)]


@pytest.mark.parametrize(
    ("machine", "processor", "able"),
    [
        (X86, "Nehalem", "baseline"),
        (X86, "Haswell", "avx2 baseline"),
        (X86, "Haswell,avx2=off", "baseline"),
        (X86, "Haswell,fma=off", "baseline"),
        (ARM, "cortex-a57", "neon"),
        (ARM, "max", "neon"),
    ],
    ids=str,
)
def test_a_processor_gets_the_best_variant_that_it_can_run_and_the_same_numbers(driver, machine, processor, able):
    name, compiler, emulator = machine
    program = driver(name, compiler)
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is not installed")
    noisy, clean = pictures(2, 23, 26)
    command = [emulator, "-cpu", processor, str(program)]
    output = subprocess.run(command, input=asked(noisy, clean), stdout=subprocess.PIPE, check=True).stdout
    variants, _, values = output.partition(b"\n")
    assert variants.decode() == able
    reached = torch.from_numpy(np.frombuffer(values, np.float32).copy()).double()
    scores, *gradients = in_float64(noisy, clean)
    reached, *slopes = reached.split([scores.numel(), noisy.numel(), clean.numel()])
    assert (reached.view_as(scores) - scores).abs().max() <= 2e-5
    for slope, exact in zip(slopes, gradients, strict=True):
        assert (slope.view_as(exact) - exact).norm() <= 1e-3 * exact.norm()


def test_nothing_of_a_variant_runs_before_it_is_called(driver):
    """A processor that is too old for a variant loads the library all the same."""
    reader = shutil.which("readelf")
    if reader is None:
        pytest.skip("readelf is not installed")
    folder = driver("x86_64", X86[1]).parent
    for name in recipe.variants("x86_64"):
        sections = subprocess.run([reader, "-SW", folder / f"{name}.o"], capture_output=True, text=True, check=True).stdout
        assert ".text" in sections
        assert ".init_array" not in sections
