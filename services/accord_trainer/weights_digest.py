"""The digest that a model would have if it were published now, without writing it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from accord_models.loading import torch_dtype

# The names of the safetensors format.
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


def published_digest(model: PreTrainedModel, dtype: str) -> str:
    """Lower-case hex SHA-256, as accord_runtime.digest gives it for the folder that `save_model` would write."""
    return state_digest(published_state(model), torch_dtype(dtype))


def published_state(model: PreTrainedModel) -> Mapping[str, Tensor]:
    """The tensors that `save_pretrained` writes: tied ones once, under the name that is not declared as tied."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in sorted(model.state_dict().items(), key=lambda item: (item[0] in tied, item[0])):
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in seen and tensor.numel():
            continue
        seen[key] = name
        kept[name] = tensor
    return kept


def state_digest(state: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of tensors sorted by name, floating ones cast to `dtype`."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        cast = (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        total.update(json.dumps([name, NAMES[cast.dtype], list(cast.shape)]).encode() + b"\n")
        total.update(cast.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
