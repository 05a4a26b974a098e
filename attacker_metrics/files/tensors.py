"""File of tensors (``.npy``, safetensors, ``torch.save``) -> what it holds; nothing in it is ever run."""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

SAFE_TORCH = "2.6"
"""Before this version ``torch.load`` could be made to run code whatever its arguments (CVE-2025-32434)."""
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f]+")


class TensorFileError(ValueError):
    """A file that no tensors can be read from; the message says what was found and what to do."""


def load_tensors(
    source: bytes | str | os.PathLike[str], where: str | os.PathLike[str] | None = None, *, own: bool = False
) -> Any:
    """Read a file of tensors, onto the CPU. Its content tells what it is, not its name.

    Args:
        source: the content of a file, or its path.
        where: what error messages call it; by default the path.
        own: whether this very library wrote the file for this user: then ``torch.save``'s present format is read by every
            version of torch.

    Returns:
        A tensor for ``.npy``, a dict of tensors by name for safetensors, what was saved for ``torch.save``: a tensor, or
        dicts and lists of tensors, numbers and texts.

    Raises:
        TensorFileError: if it is none of these, damaged, holds anything else than tensors, or was written by ``torch.save``
            and torch is older than 2.6, where reading such a file may run code that is hidden in it.
        ModuleNotFoundError: if it is a safetensors file and safetensors is not installed.
        OSError: if the path cannot be read.

    Example:
        >>> load_tensors(save_tensors({"weight": torch.ones(2)}), "mine.safetensors")
        {'weight': tensor([1., 1.])}
    """
    if not isinstance(source, bytes):
        path = Path(source)
        where = path if where is None else where
        if path.exists() and not path.is_file():
            raise TensorFileError(f"{_plain(os.fspath(where))} is not a regular file.")
        source = path.read_bytes()
    name = "the file" if where is None else _plain(os.fspath(where))
    if source.startswith(_NPY):
        return _from_npy(source, name)
    if _is_safetensors(source):
        return _from_safetensors(source, name)
    if not source.startswith((_ZIP, b"\x80")):
        raise TensorFileError(_unknown(name))
    return _from_torch(source, name, own)


def save_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file: holds tensors and texts, nothing that could run.

    Args:
        tensors: by name, such as a ``state_dict``.
        metadata: texts by name.

    Raises:
        ModuleNotFoundError: without safetensors.
    """
    try:
        from safetensors.torch import save
    except ModuleNotFoundError as error:
        raise _missing("writing weights", error) from error
    # clones, since tensors that share memory are refused
    content = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    written: bytes = save(content, None if metadata is None else dict(metadata))
    return written


def _from_npy(content: bytes, name: str) -> Tensor:
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # a header is parsed as Python, which raises what it likes
        raise TensorFileError(f"{name} is a damaged .npy file: its header cannot be read.") from error
    if dtype.hasobject:
        raise TensorFileError(f"{name} holds Python objects, which are never read; save an array of numbers.")
    told, there = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if told > there:
        raise TensorFileError(f"{name} is a damaged .npy file: {there} bytes of numbers where {told} belong; save it again.")
    try:
        return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False).astype(dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:
        raise TensorFileError(f"{name} holds {dtype} values; save an array of numbers.") from error


def _is_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def _from_safetensors(content: bytes, name: str) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ModuleNotFoundError as error:
        raise _missing(f"reading {name}", error) from error
    try:
        return dict(load(content))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TensorFileError(f"{name} is a damaged safetensors file: {_plain(str(error))}") from error


def _from_torch(content: bytes, name: str, own: bool) -> Any:
    if TorchVersion(str(torch.__version__)) < SAFE_TORCH and not (own and content.startswith(_ZIP)):
        raise TensorFileError(
            f"{name} was written by torch.save; torch {torch.__version__} may run code hidden in such a file"
            f" (CVE-2025-32434), so it is not read. Save it as safetensors or .npy, or install torch {SAFE_TORCH} or newer."
        )
    if content.startswith(_ZIP):
        _check_archive(content, name)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of the reader, of the unpickler, or of what a damaged file makes of them
        found = _code_in(content)
        if found:
            raise TensorFileError(
                f"{name} holds more than tensors: it names code ({', '.join(found)}), which is never run here. Save the"
                " tensor or the state_dict alone, as safetensors or .npy."
            ) from None
        raise TensorFileError(_unknown(name)) from error


def _check_archive(content: bytes, name: str) -> None:
    """A small file must not unfold to a large one; ``torch.save`` never compresses."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except Exception as error:  # of a damaged directory
        raise TensorFileError(_unknown(name)) from error
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise TensorFileError(f"{name} is a ZIP archive, but none of torch.save; store tensors as safetensors or .npy.")
    if sum(entry.file_size for entry in entries) > len(content):
        raise TensorFileError(f"{name} would unfold to more than it holds; save it again, as safetensors or .npy.")


def _code_in(content: bytes) -> list[str]:
    """The names of classes and functions that the file would have had called; a few, empty if it cannot be told."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    except Exception:  # a damaged file, or one of a format without such a list
        return []
    return [_plain(one) for one in sorted(found)[:5]]


def _unknown(name: str) -> str:
    return (
        f"{name} is damaged, or no file of tensors that is read here: store tensors alone, as safetensors, as .npy, or with"
        " torch.save."
    )


def _missing(doing: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{doing} needs safetensors: pip install safetensors", name=error.name)


def _plain(text: str) -> str:
    """Without what a terminal would obey, in one line."""
    return " ".join(_CONTROL.sub(" ", text).split())
