"""Loads new weights into the existing module, without a copy, and computes the digest of the module's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from accord.errors import InvalidArgument
from accord_models.streaming import digest_line, tensor_bytes
from accord_rollout.engine import PROBE_TOKENS


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of `folder`/*.safetensors, in memory, as stored. InvalidArgument/BAD_MODEL for damaged files."""
    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            state.update(load_file(file))
        except SafetensorError as error:
            raise InvalidArgument(f"{file} is damaged: {error}; publish it again", reason="BAD_MODEL") from error
    return state


def fits(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    """Whether `state` names exactly the tensors of `model`, tied ones once, in the same shapes."""
    wanted = model.state_dict()
    if any(name not in wanted or wanted[name].shape != tensor.shape for name, tensor in state.items()):
        return False
    stored = [wanted[name].data_ptr() for name in state]
    return len(set(stored)) == len(stored) and {tensor.data_ptr() for tensor in wanted.values()} == set(stored)


@torch.no_grad()
def converted(model: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy of `state`, which must fit, in the number types and on the device of `model`."""
    wanted = model.state_dict()
    return {
        # Not the file's mapped pages: a later write to the file must not change the model.
        name: torch.empty_like(wanted[name], memory_format=torch.contiguous_format).copy_(tensor)
        for name, tensor in state.items()
    }


@torch.no_grad()
def swap_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Replaces the tensors of `model` by those of `state`, already converted; tied ones stay tied."""
    tensors = dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))
    for name, tensor in state.items():
        tensors[name].data = tensor


@torch.inference_mode()
def probe_logprobs(model: nn.Module) -> tuple[float, ...]:
    """Log-probabilities of PROBE_TOKENS from the second on, nats."""
    ids_1T = torch.tensor([PROBE_TOKENS], device=next(model.parameters()).device)
    logprobs_TV = model(ids_1T).logits[0, :-1].float().log_softmax(dim=-1)
    return tuple(logprobs_TV.gather(-1, ids_1T[0, 1:, None])[:, 0].tolist())


def resident_digest(model: nn.Module, stored: Mapping[str, torch.dtype]) -> str:
    """The digest of the module's tensors in the types in which they are `stored`, as accord.digest.weights_digest;
    empty if the module names its tensors differently or rounded them."""
    state = model.state_dict()
    total = hashlib.sha256()
    for name in sorted(stored):
        if name not in state or torch.promote_types(stored[name], state[name].dtype) != state[name].dtype:
            return ""
        tensor = state[name].detach().to(device="cpu", dtype=stored[name]).contiguous()
        total.update(digest_line(name, tensor))
        total.update(tensor_bytes(tensor))
    return total.hexdigest()
