"""Whatever bytes a foreign file holds, only the errors that say what is wrong come out of reading it."""

import functools
import sys

import numpy as np
import pytest

pytest.importorskip("imagecodecs", reason="needs the cli extra")
pytest.importorskip("sqlalchemy", reason="needs the annotate extra")
pytest.importorskip("pydantic", reason="needs the study extra")
from conftest import BENCHMARKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks are not in the package: run from a clone", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))
import fuzz
import fuzz_targets

sys.path.remove(str(BENCHMARKS))
QUICK = ("picture", "tiff", "tensor", "table", "checkpoint", "study", "votes")
"""Those of a few milliseconds per file; ``benchmarks/fuzz.py`` has whole commands too."""
SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@functools.cache
def seeds(target, work):
    return fuzz_targets.TARGETS[target].seeds(work)


def read(target, work, name, content):
    """As the fuzzer does: in the folder, which holds nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        for path in sorted(work.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        fuzz_targets.TARGETS[target].read(work, name, content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", QUICK)
@settings(SETTINGS, max_examples=100)
@given(place=st.integers(0, 999), seed=st.integers(0, 2**32 - 1), how=st.sampled_from([fuzz.damaged, fuzz.bent]))
def test_damaged_files_of_every_kind(target, place, seed, how, work):
    files = sorted(seeds(target, work).items())
    name, content = files[place % len(files)]
    changed = how(content, np.random.default_rng(seed))
    read(target, work, name, fuzz_targets.TARGETS[target].repair(changed) if seed % 2 else changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", QUICK)
@settings(SETTINGS, max_examples=40)
@given(places=st.tuples(st.integers(0, 999), st.integers(0, 999)), length=st.integers(0, 64), rest=st.binary(max_size=200))
def test_bytes_behind_the_begin_of_any_kind(target, places, length, rest, work):
    names = sorted(seeds(target, work))
    name, begin = (names[place % len(names)] for place in places)
    read(target, work, name, seeds(target, work)[begin][:length] + rest)


@pytest.mark.filterwarnings("ignore")
@settings(SETTINGS, max_examples=200)
@given(rows=st.text(alphabet='a,;"\n\r\t\0 \u00e9\ufeff:/', max_size=80))
def test_manifests_of_any_text(rows, work):
    read("table", work, "m.csv", b"id,clean,noisy\n" + rows.encode())


def test_intact_pictures_are_read(work):
    for target, unread in (("picture", ("alpha", "animated", "cmyk", "16bit.ppm")), ("tiff", ()), ("tensor", ("c.", "z."))):
        for name, content in seeds(target, work).items():
            if not name.startswith(unread) and (target != "tensor" or name.startswith(("a.", "b.", "be.", "view."))):
                assert fuzz_targets.decode_image(content, name).pixels.shape[0] == 3
