"""The digest of a model in its published form, computed without writing it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from accord_models.loading import torch_dtype
from accord_models.streaming import digest_line, tensor_bytes


def published_digest(model: PreTrainedModel, dtype: str) -> str:
    """Lower-case hex SHA-256, equal to accord.digest of the folder that `save_model` would write.

    All ranks call this together if the weights are sharded."""
    return state_digest(published_state(model), torch_dtype(dtype))


def published_state(model: PreTrainedModel) -> Mapping[str, Tensor]:
    """The tensors that `save_pretrained` writes: tied ones once, under the name that is not declared as tied."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    seen: set[tuple[int, tuple[int, ...]]] = set()
    kept: dict[str, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in sorted(state.items(), key=lambda item: (item[0] in tied, item[0])):
        # A sharded tensor has no address, but tied ones are the same object.
        address = id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()
        key = (address, tuple(tensor.shape))
        if key in seen and tensor.numel():
            continue
        seen.add(key)
        kept[name] = tensor.detach()
    return kept


def state_digest(state: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of tensors sorted by name, floating ones cast to `dtype`."""
    total = hashlib.sha256()
    for name, tensor in published_tensors(state, dtype):
        total.update(digest_line(name, tensor))
        total.update(tensor_bytes(tensor))
    return total.hexdigest()


def published_tensors(state: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Each tensor in its published form, sorted by name: whole, on the CPU, cast. One at a time, so that at most one
    sharded tensor is whole on any rank; all ranks must iterate to the end."""
    for name in sorted(state):
        tensor = state[name].detach()
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        yield name, (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().contiguous()
