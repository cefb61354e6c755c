"""Writes a model folder tensor by tensor, so that only one whole tensor is in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord import atomic
from accord_models.loading import torch_dtype
from accord_models.publishing import record_dtype

# The safetensors format's names of the types, and back.
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TYPES = {name: dtype for dtype, name in NAMES.items()}


def save_streamed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dtype: str,
    state: Mapping[str, torch.Tensor],
    tensors: Iterable[tuple[str, torch.Tensor]],
) -> str:
    """Writes config, tokenizer and weights as `folder`, atomically, as `save_model` does; returns the digest.

    `state` has the shapes. `tensors` yields the same names, sorted, each whole, on the CPU, in the type to write.
    """
    header = _header(state, torch_dtype(dtype))
    length = (len(header) + 7) // 8 * 8
    atomic.require_space(folder.parent, length + sum(_bytes(t, torch_dtype(dtype)) for t in state.values()))
    total = hashlib.sha256()
    with atomic.folder(folder) as part:
        with (part / "model.safetensors").open("wb") as out:
            out.write(length.to_bytes(8, "little"))
            out.write(header.ljust(length))
            for name, tensor in tensors:
                total.update(digest_line(name, tensor))
                total.update(tensor_bytes(tensor))
                out.write(tensor_bytes(tensor))
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(part)
        if model.can_generate():
            model.generation_config.save_pretrained(part)
        tokenizer.save_pretrained(part)
        record_dtype(part / "config.json", dtype)
    return total.hexdigest()


def digest_line(name: str, tensor: torch.Tensor) -> bytes:
    """The line that a digest of weights contains before the tensor's bytes."""
    return json.dumps([name, NAMES[tensor.dtype], list(tensor.shape)]).encode() + b"\n"


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _header(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(state):
        end = at + _bytes(state[name], dtype)
        entries[name] = {
            "dtype": NAMES[_type(state[name], dtype)],
            "shape": list(state[name].shape),
            "data_offsets": [at, end],
        }
        at = end
    return json.dumps(entries).encode()


def _type(tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if tensor.is_floating_point() else tensor.dtype


def _bytes(tensor: torch.Tensor, dtype: torch.dtype) -> int:
    return tensor.numel() * _type(tensor, dtype).itemsize
