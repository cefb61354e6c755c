"""Writes model folders that `from_pretrained` loads, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord import atomic
from accord.digest import weights_digest
from accord_models.loading import torch_dtype


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> str:
    """Writes config, tokenizer and weights (safetensors, cast to `dtype`) as `folder`, atomically; returns the digest.

    The model itself is not changed. ResourceExhausted/DISK_FULL if there is no room, before anything is written.
    """
    target = torch_dtype(dtype)
    state = cast_state(model.state_dict(), target)
    atomic.require_space(folder.parent, state_bytes(state))
    with atomic.folder(folder) as part:
        model.save_pretrained(part, state_dict=state)
        tokenizer.save_pretrained(part)
        record_dtype(part / "config.json", dtype)
        return weights_digest(part)


def cast_state(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The floating tensors of `state` in `dtype`; tensors that share memory (tied weights) still do."""
    casts: dict[tuple[int, tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
    result: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            result[name] = tensor
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if key not in casts:
            casts[key] = tensor.detach().to(dtype=dtype, device="cpu").contiguous()
        result[name] = casts[key]
    return result


def state_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of a state, tied weights once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in state.values()}.values())


def record_dtype(path: Path, dtype: str) -> None:
    """Corrects config.json, which names the type of the module in memory, to the type of the stored weights."""
    config = json.loads(path.read_text())
    config["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
