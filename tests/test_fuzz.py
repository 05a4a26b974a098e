"""Whatever bytes a picture or manifest holds, only the errors that say what is wrong come out of reading it."""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imagecodecs", reason="needs the cli extra")
from conftest import BENCHMARKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks are not in the package: run from a clone", allow_module_level=True)
SPECIFICATION = importlib.util.spec_from_file_location("fuzz", BENCHMARKS / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(fuzz)
SEEDS = fuzz.seeds()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(SEEDS)), seed=st.integers(0, 2**32 - 1))
def test_damaged_files_of_every_kind(name, seed):
    with tempfile.TemporaryDirectory() as folder:
        fuzz.read(name, fuzz.damaged(SEEDS[name], np.random.default_rng(seed)), Path(folder))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(SEEDS)),
    begin=st.sampled_from(sorted(SEEDS)),
    length=st.integers(0, 64),
    rest=st.binary(max_size=200),
)
def test_bytes_behind_the_begin_of_any_kind(name, begin, length, rest):
    with tempfile.TemporaryDirectory() as folder:
        fuzz.read(name, SEEDS[begin][:length] + rest, Path(folder))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(rows=st.text(alphabet='a,;"\n\r\t\0 \u00e9\ufeff:/', max_size=80))
def test_manifests_of_any_text(rows):
    with tempfile.TemporaryDirectory() as folder:
        fuzz.read("m.csv", b"id,clean,noisy\n" + rows.encode(), Path(folder))


def test_intact_files_are_read(tmp_path):
    for name, content in SEEDS.items():
        fuzz.read(name, content, tmp_path)
        if not name.startswith("m."):
            assert fuzz.decode_image(content, name).pixels.shape[0] == 3
