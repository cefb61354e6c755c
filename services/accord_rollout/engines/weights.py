"""New weights into the module that is there: half the memory of a second model, and nothing is traced again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from accord.errors import InvalidArgument

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
def copy_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Copies `state`, which fits, into `model`, cast to the model's number type."""
    wanted = model.state_dict()
    for name, tensor in state.items():
        wanted[name].copy_(tensor)


def _architecture(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _NOT_ARCHITECTURE}
