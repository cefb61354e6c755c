"""Merges a LoRA adapter, as PEFT saves it, into its base on disk: W + scaling * B A in float32, cast back.

Hu et al. 2021 (arXiv 2106.09685); scaling is alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732). It adds
in the same order as PEFT's `merge_and_unload` of a float32 model, one layer at a time, so it needs neither PEFT nor a
model in memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from accord.digest import StoredTensor
from accord.errors import InvalidArgument, Unimplemented
from accord_models.patching import Bits, patched
from accord_models.streaming import TYPES

_PREFIX = "base_model.model."
# Settings whose merge needs another formula.
_UNKNOWN = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias")


@torch.no_grad()
def merge_adapter(base: Path, adapter: Path, target: Path) -> None:
    """Applies `adapter` to the model in `base` and writes the result as folder `target`, whole or not at all.

    InvalidArgument/BAD_ADAPTER if it is damaged or does not fit; Unimplemented/ADAPTER_UNSUPPORTED for anything but
    plain LoRA on linear layers.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        tensors = load_file(adapter / "adapter_model.safetensors")
        scaling = _scaling(config)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidArgument(f"{adapter} is not a PEFT adapter: {error}", reason="BAD_ADAPTER") from error
    with patched(base, target) as writable:
        for name in sorted(tensors):
            layer, found, rest = name.removeprefix(_PREFIX).partition(".lora_A")
            if found:
                pair = tensors.get(f"{_PREFIX}{layer}.lora_B{rest}")
                tensor, elements = writable(f"{layer}.weight")
                _merge(tensor, elements, tensors[name], pair, scaling)
            elif ".lora_B" not in name:
                raise Unimplemented(f"{adapter} changes {name}, which is not LoRA; publish it merged", reason=_REASON)


_REASON = "ADAPTER_UNSUPPORTED"


def _scaling(config: dict[str, Any]) -> float:
    used = [name for name in _UNKNOWN if config.get(name)]
    if config.get("peft_type") != "LORA" or used or config.get("bias", "none") != "none":
        raise Unimplemented(
            f"the adapter is not plain LoRA ({config.get('peft_type')} {' '.join(used)}); publish it merged",
            reason=_REASON,
        )
    rank = config["r"]
    return float(config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _merge(
    tensor: StoredTensor, elements: Bits, low_A: torch.Tensor, high_B: torch.Tensor | None, scaling: float
) -> None:
    dtype = TYPES[tensor.dtype]
    fits = high_B is not None and (high_B.shape[0], low_A.shape[1]) == tensor.shape and high_B.shape[1] == len(low_A)
    if not fits or not dtype.is_floating_point:
        raise InvalidArgument(f"the adapter's {tensor.name} does not fit the base", reason="BAD_ADAPTER")
    assert high_B is not None
    weight = torch.from_numpy(elements).view(dtype).view(tensor.shape)
    weight.copy_(weight.float() + (high_B.float() @ low_A.float()) * scaling)
