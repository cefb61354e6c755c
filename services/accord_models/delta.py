"""A sparse delta: the elements of a model that differ from another model's, exact to the bit.

One file, delta.safetensors. For each tensor that differs either `NAME:indices` (I64 or I32, flat, ascending) and
`NAME:values` (in the tensor's own type), or, if that would not be smaller, `NAME:whole`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from accord import atomic
from accord.digest import StoredTensor, stored_tensors
from accord.errors import InvalidArgument
from accord_models.patching import Bits, bits, patched

FILE = "delta.safetensors"


@dataclass(frozen=True)
class DeltaSize:
    """The size of a delta: elements of the model, elements that changed, bytes of the file."""

    elements: int
    changed: int
    bytes: int


@dataclass(frozen=True)
class Delta:
    """The difference between two models, found but not yet written. `write` reads the new model's files."""

    size: DeltaSize
    _parts: Mapping[str, tuple[str, Bits]] = field(repr=False)

    def write(self, target: Path) -> None:
        """Writes folder `target`, whole or not at all. ResourceExhausted/DISK_FULL before anything is written."""
        atomic.require_space(target.parent, self.size.bytes)
        with atomic.folder(target) as part:
            _write(part / FILE, self._parts)


def find_delta(base: Path, new: Path) -> Delta:
    """The delta from the model in folder `base` to the model in `new`.

    InvalidArgument/OTHER_ARCHITECTURE if the two have different tensors.
    """
    old, changed, elements = {tensor.name: tensor for tensor in stored_tensors(base)}, 0, 0
    parts: dict[str, tuple[str, Bits]] = {}
    news = stored_tensors(new)
    if [(t.name, t.dtype, t.shape) for t in news] != [(t.name, t.dtype, t.shape) for t in old.values()]:
        raise InvalidArgument(f"{new} and {base} have different tensors; publish merged", reason="OTHER_ARCHITECTURE")
    for tensor in news:
        after = bits(tensor)
        indices = np.flatnonzero(after != bits(old[tensor.name]))
        elements += after.size
        changed += indices.size
        parts |= _parts(tensor, after, indices)
    size = len(_header(parts)) + sum(content.nbytes for _, content in parts.values())
    return Delta(DeltaSize(elements, changed, size), parts)


def write_delta(base: Path, new: Path, target: Path) -> DeltaSize:
    """`find_delta`, written as folder `target`."""
    found = find_delta(base, new)
    found.write(target)
    return found.size


def apply_delta(base: Path, delta: Path, target: Path) -> None:
    """Applies `delta` to the model in `base`; writes folder `target` with the base's config and tokenizer.

    InvalidArgument/BAD_CHANGE for a delta that does not fit. The digest of the result shows whether the base was
    correct; the caller verifies it.
    """
    found = {tensor.name: tensor for tensor in stored_tensors(delta)}
    with patched(base, target) as writable:
        for name, tensor in found.items():
            at, _, kind = name.rpartition(":")
            if kind == "indices":
                continue
            into, elements = writable(at)
            if tensor.dtype != into.dtype or kind not in ("whole", "values"):
                raise _bad(name)
            if kind == "whole":
                if tensor.shape != into.shape:
                    raise _bad(name)
                elements[:] = bits(tensor)
                continue
            indices = _indices(found.get(f"{at}:indices"), name)
            if indices.size != bits(tensor).size or (indices.size and not 0 <= indices.max() < elements.size):
                raise _bad(name)
            elements[indices] = bits(tensor)


def _parts(tensor: StoredTensor, after: Bits, indices: np.ndarray) -> Mapping[str, tuple[str, Bits]]:
    if not indices.size:
        return {}
    kind = "I32" if after.size < 2**31 else "I64"
    narrow = indices.astype("<i4" if kind == "I32" else "<i8")
    if narrow.nbytes + indices.size * after.itemsize >= after.nbytes:
        return {f"{tensor.name}:whole": (json.dumps([tensor.dtype, tensor.shape]), after)}
    shape = [int(indices.size)]
    return {
        f"{tensor.name}:indices": (json.dumps([kind, shape]), narrow),
        f"{tensor.name}:values": (json.dumps([tensor.dtype, shape]), after[indices]),
    }


def _write(path: Path, parts: Mapping[str, tuple[str, Bits]]) -> None:
    """By hand: the library cannot write arrays of types that numpy lacks (BF16)."""
    with path.open("wb") as out:
        out.write(_header(parts))
        for name in sorted(parts):
            out.write(np.ascontiguousarray(parts[name][1]).data)


def _header(parts: Mapping[str, tuple[str, Bits]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "accord-delta-1"}}
    at = 0
    for name in sorted(parts):
        dtype, shape = json.loads(parts[name][0])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + parts[name][1].nbytes]}
        at += parts[name][1].nbytes
    text = json.dumps(header).encode()
    length = (len(text) + 7) // 8 * 8
    return length.to_bytes(8, "little") + text.ljust(length)


def _indices(tensor: StoredTensor | None, name: str) -> np.ndarray:
    if tensor is None or tensor.dtype not in ("I32", "I64"):
        raise _bad(name)
    return bits(tensor).view("<i4" if tensor.dtype == "I32" else "<i8")


def _bad(name: str) -> InvalidArgument:
    return InvalidArgument(f"the delta's {name} does not fit the base; publish it again", reason="BAD_CHANGE")
