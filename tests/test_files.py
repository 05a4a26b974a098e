"""Files of tensors are read without running anything; the package's digest follows its sources."""

import io
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import attacker_metrics
from attacker_metrics.files.digest import SOURCE_SUFFIXES, package_digest, sources_digest
from attacker_metrics.files.tensors import TensorFileError, load_tensors, save_tensors

PACKAGE = Path(attacker_metrics.__file__).parent
VALUES = torch.arange(6.0).reshape(2, 3)


class Harmful:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def message_of(content, where="mine.pt") -> str:
    with pytest.raises(TensorFileError) as error:
        load_tensors(content, where)
    told = str(error.value)
    assert told.startswith("mine.pt ")
    assert "weights_only" not in told
    assert "\n" not in told
    assert "\x1b" not in told
    return told


@pytest.mark.parametrize("name", ["odd.bin", "odd.pt", "odd"])
def test_the_content_tells_what_a_file_is_not_its_name(tmp_path, name):
    for content, expected in (
        (npy(VALUES.numpy()), VALUES),
        (npy(VALUES.numpy().astype(">f4")), VALUES),
        (npy(np.asfortranarray(VALUES.numpy())), VALUES),
        (saved(VALUES), VALUES),
    ):
        (tmp_path / name).write_bytes(content)
        assert torch.equal(load_tensors(tmp_path / name), expected)
    for content in (save({"a": VALUES}), saved({"a": VALUES}), saved({"a": VALUES}, _use_new_zipfile_serialization=False)):
        (tmp_path / name).write_bytes(content)
        found = load_tensors(str(tmp_path / name))
        assert list(found) == ["a"]
        assert torch.equal(found["a"], VALUES)


def test_what_is_saved_is_read_and_tied_weights_and_texts_are_no_matter():
    content = save_tensors({"a": VALUES, "b": VALUES, "c": VALUES.T}, {"of": "a test"})
    found = load_tensors(content, "mine")
    assert torch.equal(found["a"], VALUES)
    assert torch.equal(found["b"], VALUES)
    assert torch.equal(found["c"], VALUES.T)
    assert save_tensors({"a": VALUES, "b": VALUES[0]}) == save_tensors({"b": VALUES[0], "a": VALUES})


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_named_where_it_can_be_and_not_run(tmp_path, zipped):
    told = message_of(saved({"a": Harmful(tmp_path / "made")}, _use_new_zipfile_serialization=zipped))
    assert "safetensors" in told
    assert ".npy" in told
    if zipped:
        assert "pathlib" in told
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"\x80\x02",
        b"\x89PNG\r\n",
        pickle.dumps({"a": 1}),
        saved(VALUES)[:-50],
        saved(VALUES)[:100],
        npy(np.array([{}], dtype=object), allow_pickle=True),
        npy(VALUES.numpy())[:-1],
        npy(VALUES.numpy())[:40],
        npy(VALUES.numpy()).replace(b"(2, 3)", b"(9**9,"),
        npy(np.array(["text"])),
        npy(np.zeros(2, dtype=[("a", "f4")])),
        save({"a": VALUES})[:-1],
        save({"a": VALUES}).replace(b"F32", b"F99"),
    ],
)
def test_damaged_and_foreign_files_are_refused_in_our_words(content):
    message_of(content)


def test_names_of_files_cannot_steer_a_terminal():
    with pytest.raises(TensorFileError) as error:
        load_tensors(b"nothing", "\x1b[31mred\x1b[0m\n\x07.pt")
    assert str(error.value).startswith("red .pt is damaged")


def test_a_small_file_that_claims_to_be_large_is_refused_before_memory_is_taken():
    header = npy(np.zeros(0)).replace(b"'shape': (0,), }         ", b"'shape': (9999999999,), }")
    assert "9999999999" in header.decode("latin-1")
    assert "damaged" in message_of(header)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(torch.zeros(1 << 18)))) as old, zipfile.ZipFile(packed, "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    assert "unfold" in message_of(packed.getvalue())
    archive = io.BytesIO()
    np.savez(archive, a=VALUES.numpy())
    assert "ZIP archive" in message_of(archive.getvalue())


def test_older_torch_reads_no_file_of_torch_save_but_all_others(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    for content in (saved(VALUES), saved(VALUES, _use_new_zipfile_serialization=False)):
        told = message_of(content)
        assert "2.5.1+cpu" in told
        assert "safetensors or .npy" in told
    assert torch.equal(load_tensors(npy(VALUES.numpy()), "mine.npy"), VALUES)
    assert torch.equal(load_tensors(save({"a": VALUES}), "mine")["a"], VALUES)
    assert torch.equal(load_tensors(saved(VALUES), "last.ckpt", own=True), VALUES)
    with pytest.raises(TensorFileError):
        load_tensors(saved(VALUES, _use_new_zipfile_serialization=False), "last.ckpt", own=True)
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    assert torch.equal(load_tensors(saved(VALUES), "mine.pt"), VALUES)


def test_what_is_no_regular_file_is_told(tmp_path):
    with pytest.raises(TensorFileError, match="is not a regular file"):
        load_tensors(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none.pt")


def test_the_digest_follows_every_source_file_and_nothing_else(tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = sources_digest(copy)
    assert before == package_digest()
    for name in ("study/steps.py", "files/images.py", "engine/native/kernel.cpp", "engine/native/ms_ssim.h"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b"\n")
        assert sources_digest(copy) != before, name
        (copy / name).write_bytes(content)
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "a.py").touch()
    (copy / "native.so").touch()
    (copy / "study" / ".steps.py.swp").touch()
    (copy / "study" / "steps.py").write_bytes((copy / "study" / "steps.py").read_bytes().replace(b"\n", b"\r\n"))
    assert sources_digest(copy) == before
    (copy / "study" / "steps.py").rename(copy / "steps.py")
    assert sources_digest(copy) != before


def test_no_file_of_the_package_escapes_the_digest():
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=PACKAGE, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("the package is no checkout of git: what belongs to it cannot be told")
    assert [name for name in listed.stdout.split("\0") if name and not name.endswith(SOURCE_SUFFIXES)] == []
