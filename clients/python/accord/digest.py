"""The identity of weights: SHA-256 over a folder's tensors, independent of the files that hold them. No torch."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from accord.errors import DataLoss, NotFound


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its name, type and shape as in the safetensors format, and its range of bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int  # bytes into the file
    end: int


def weights_digest(folder: Path) -> str:
    """Lower-case hex SHA-256 over the tensors of `folder`/*.safetensors sorted by name: for each its name, dtype and
    shape as a JSON line, then its bytes. Tied weights are stored, and so count, once.

    NotFound if there is no safetensors file; DataLoss if one is damaged.
    """
    total = hashlib.sha256()
    for tensor in stored_tensors(folder):
        total.update(json.dumps([tensor.name, tensor.dtype, tensor.shape]).encode() + b"\n")
        if tensor.end > tensor.start:
            with (
                tensor.file.open("rb") as raw,
                mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as view,
                memoryview(view) as whole,
                whole[tensor.start : tensor.end] as part,
            ):
                total.update(part)
    return total.hexdigest()


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """The tensors of `folder`/*.safetensors, sorted by name. NotFound if there is none, DataLoss for a damaged
    one."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise NotFound(f"{folder} has no *.safetensors file; is it a model folder?", reason="WEIGHTS_NOT_FOUND")
    return sorted((tensor for file in files for tensor in _tensors(file)), key=lambda tensor: tensor.name)


def content_digest(parts: Iterable[bytes]) -> str:
    """Lower-case hex SHA-256 over parts, each preceded by its length, so that different lists never collide."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Lower-case hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(file: Path) -> list[StoredTensor]:
    """The index of a safetensors file: 8 bytes of header length, a JSON header, then the data."""
    size = file.stat().st_size
    try:
        with file.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(raw.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        found = [
            StoredTensor(
                name, entry["dtype"], tuple(entry["shape"]), file, *(start + offset for offset in entry["data_offsets"])
            )
            for name, entry in header.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLoss(f"{file} is not a complete safetensors file: {error}", reason="WEIGHTS_DAMAGED") from error
    if any(tensor.end > size for tensor in found):
        raise DataLoss(f"{file} ends before its last tensor; fetch or publish it again", reason="WEIGHTS_DAMAGED")
    return found
