"""Weights sharded over the ranks: torch's FSDP2 (`fully_shard`; Zhao et al. 2023, arXiv 2304.11277).

Each transformer block is a separate group, gathered when it runs; the rest (embeddings, final norm, heads; tied weights
are one) is the root's group, whole during a pass through the model.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

T = TypeVar("T")


class Root(nn.Module):
    """The module that FSDP treats as the model. Its forward runs any computation on the parts, since passes call them
    one by one (trunk, then head), never as one module."""

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, compute: Callable[[], Any], made: list[Any]) -> list[Tensor]:
        # FSDP attaches the gathering for the backward pass to the tensors it sees here, so dataclasses are taken apart.
        made.append(compute())
        return tensors_in(made[0])


class ShardedPasses:
    """Passes through `root`."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def __call__(self, compute: Callable[[], T]) -> T:
        made: list[T] = []
        self._root(compute, made)
        return made[0]


def shard(
    modules: Iterable[nn.Module], blocks: Iterable[nn.Module], mesh: DeviceMesh, compute_dtype: str
) -> ShardedPasses:
    """Keeps only this rank's part of each weight, split along the first dimension. `blocks` are parts of the modules,
    each a group that is gathered when it runs. Gradients are summed, in float32.

    Between GPUs the blocks are gathered in bfloat16 if that is the compute type, at half the traffic: their matrix
    products cast to it anyway, but norms are then rounded too. On CPUs the figures stay those of one rank.
    """
    # No code here modifies the result of a pass in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    root = Root(modules)
    half = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None, cast_forward_inputs=False
    )
    to_halve = compute_dtype == "bfloat16" and mesh.device_type == "cuda"
    policy = half if to_halve else MixedPrecisionPolicy()
    for block in blocks:
        if not isinstance(block, FSDPModule):
            _shard(block, mesh, policy)
    _shard(root, mesh, MixedPrecisionPolicy())
    return ShardedPasses(root)


def _shard(module: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    # The root is resharded after a pass too: weights that are loaded or updated in between must reach the next pass.
    sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return tensors_in(list(value.values()))
    if isinstance(value, list | tuple):
        return [tensor for entry in value for tensor in tensors_in(entry)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tensors_in([getattr(value, field.name) for field in dataclasses.fields(value)])
    return []
