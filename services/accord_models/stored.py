"""The contents of a model folder, read from the headers of its *.safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from accord.errors import InvalidArgument
from accord_models.streaming import TYPES


def stored_types(folder: Path) -> dict[str, torch.dtype]:
    """The number type of each tensor of `folder`/*.safetensors."""
    found: dict[str, torch.dtype] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found.update({name: TYPES[file.get_slice(name).get_dtype()] for name in file.keys()})  # noqa: SIM118
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
