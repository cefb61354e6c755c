"""Makes a changed copy of a model folder: copies its files, then writes tensors in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from accord import atomic
from accord.digest import StoredTensor, stored_tensors
from accord.errors import InvalidArgument

# Bytes per element, by the safetensors format's name of the type.
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
Bits = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]


def bits(tensor: StoredTensor, *, writable: bool = False) -> Bits:
    """The elements of a stored tensor as flat unsigned numbers of the same width, mapped from the file."""
    if tensor.dtype not in ITEM_BYTES:
        raise InvalidArgument(f"{tensor.file} has tensors of type {tensor.dtype}", reason="BAD_MODEL")
    width = ITEM_BYTES[tensor.dtype]
    count = (tensor.end - tensor.start) // width
    if count == 0:
        return np.empty(0, dtype=f"<u{width}")
    return np.memmap(
        tensor.file, dtype=f"<u{width}", mode="r+" if writable else "r", offset=tensor.start, shape=(count,)
    )


@contextmanager
def patched(base: Path, target: Path) -> Iterator[Callable[[str], tuple[StoredTensor, Bits]]]:
    """Makes `target` a copy of `base` whose tensors the block can write, by name; whole or not at all.

    Yields `name -> (tensor, its bits)`; InvalidArgument/BAD_CHANGE for a name that the base does not have.
    """
    atomic.require_space(target.parent, sum(file.stat().st_size for file in base.rglob("*") if file.is_file()))
    with atomic.folder(target, durable=False) as part:
        shutil.copytree(base, part, dirs_exist_ok=True, copy_function=shutil.copyfile)
        tensors = {tensor.name: tensor for tensor in stored_tensors(part)}

        def writable(name: str) -> tuple[StoredTensor, Bits]:
            if name not in tensors:
                raise InvalidArgument(
                    f"the base {base} has no tensor {name} to change; publish merged",
                    reason="BAD_CHANGE",
                )
            return tensors[name], bits(tensors[name], writable=True)

        yield writable
