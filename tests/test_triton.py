"""The Triton kernels are right in Triton's interpreter or on a CUDA device, compile without one, and are chosen as asked.

The interpreter has to be asked for before the kernels are defined, by ``TRITON_INTERPRET=1``: in a process of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from attacker_metrics.engine import operators as engine
from attacker_metrics.engine import self_check
from attacker_metrics.engine.backends import backend

SCRIPT = Path(__file__).with_name("triton_kernels_script.py")
SOURCES = Path(engine.__file__).parent / "triton_kernels"


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_kernels_return_what_torch_does(which):
    command = [sys.executable, "-m", "pytest", "-q", "-m", which, "-p", "no:cacheprovider", "-p", "no:xdist", str(SCRIPT)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment |= {"OMP_NUM_THREADS": "1"} | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wanted", "chosen"), [(None, "torch"), ("torch", "torch"), ("native", "torch"), ("triton", "triton")]
)
def test_the_kernels_are_chosen_only_where_asked_for_and_only_if_they_pass(monkeypatch, wanted, chosen):
    monkeypatch.delenv("ATTACKER_METRICS_BACKEND", raising=False)
    if wanted:
        monkeypatch.setenv("ATTACKER_METRICS_BACKEND", wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(self_check, "of_triton", lambda device: "")
    assert backend("cuda") == chosen
    assert backend("cuda", torch.float64) == "torch"
    monkeypatch.setattr(self_check, "of_triton", lambda device: "their scores are off by 0.5")
    if chosen == "torch":
        assert backend("cuda") == "torch"
        return
    with pytest.raises(RuntimeError, match=r"their scores are off by 0\.5: unset the variable"):
        backend("cuda")


def test_every_kernel_compiles_for_an_h200_without_one(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).with_name("compile_kernels_script.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = dict(line.split() for line in done.stdout.splitlines())
    modules = (SOURCES / f"{direction}_kernels.py" for direction in ("forward", "backward"))
    defined = {name for module in modules for name in re.findall(r"^def (\w+_kernel)\(", module.read_text(), re.MULTILINE)}
    assert set(compiled) == defined
    assert all(int(size) > 10_000 for size in compiled.values())
