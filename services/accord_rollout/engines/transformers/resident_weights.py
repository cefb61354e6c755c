"""New weights into the module that is there: nothing is traced again, and the change itself moves no bytes.

And back out of it: the digest of what the module holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from accord.errors import InvalidArgument
from accord_models.streaming import NAMES, digest_line, tensor_bytes
from accord_rollout.engine import PROBE_TOKENS

# What may differ between two configs of the same architecture.
_NOT_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


def same_architecture(left: Any, right: Any) -> bool:
    """Whether two Hugging Face configs describe the same modules."""
    return _architecture(left) == _architecture(right)


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
    """`state`, which fits, in memory of its own, in the number types and on the device of `model`."""
    wanted = model.state_dict()
    return {
        # Not the file's mapped pages: whoever writes to the file later must not change the model.
        name: torch.empty_like(wanted[name], memory_format=torch.contiguous_format).copy_(tensor)
        for name, tensor in state.items()
    }


@torch.no_grad()
def swap_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Makes the tensors of `state`, which are converted, those of `model`; tied ones stay tied."""
    tensors = dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))
    for name, tensor in state.items():
        tensors[name].data = tensor


def stored_types(folder: Path) -> dict[str, torch.dtype]:
    """The number type of each tensor of `folder`/*.safetensors."""
    types = {name: dtype for dtype, name in NAMES.items()}
    found: dict[str, torch.dtype] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found.update({name: types[file.get_slice(name).get_dtype()] for name in file.keys()})  # noqa: SIM118
    return found


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of `folder`/*.safetensors. InvalidArgument/BAD_MODEL for damaged files or none."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise InvalidArgument(f"{path} is damaged: {error}; publish it again", reason="BAD_MODEL") from error
    if not found:
        raise InvalidArgument(f"{folder} has no *.safetensors", reason="BAD_MODEL")
    return found


@torch.inference_mode()
def probe_logprobs(model: nn.Module) -> tuple[float, ...]:
    """Of the probe, nats."""
    ids_1T = torch.tensor([PROBE_TOKENS], device=next(model.parameters()).device)
    logprobs_TV = model(ids_1T).logits[0, :-1].float().log_softmax(dim=-1)
    return tuple(logprobs_TV.gather(-1, ids_1T[0, 1:, None])[:, 0].tolist())


def held_digest(model: nn.Module, stored: Mapping[str, torch.dtype]) -> str:
    """Of the module's tensors in the types in which they are `stored`, as accord.digest.weights_digest; empty where the
    module names its tensors otherwise, or rounded them."""
    state = model.state_dict()
    total = hashlib.sha256()
    for name in sorted(stored):
        if name not in state or torch.promote_types(stored[name], state[name].dtype) != state[name].dtype:
            return ""
        tensor = state[name].detach().to(device="cpu", dtype=stored[name]).contiguous()
        total.update(digest_line(name, tensor))
        total.update(tensor_bytes(tensor))
    return total.hexdigest()


def _architecture(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _NOT_ARCHITECTURE}
