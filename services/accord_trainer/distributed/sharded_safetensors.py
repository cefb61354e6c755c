"""Sharded tensors on disk: each rank writes its own rows, and any number of ranks reads them.

The files are safetensors; their metadata records which rows of which whole tensor a file contains.
torch.distributed.checkpoint is not used: its own format keeps the index as a pickle, and with its safetensors storage
the ranks still exchange pickled plans.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from accord_trainer.distributed.world import World, leads


def is_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether any of them is sharded over ranks."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def write_shards(path: Path, stem: str, tensors: Mapping[str, Tensor], world: World) -> None:
    """Writes this rank's part of the tensors below `path`, durably; rank 0 writes the whole ones."""
    own: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            start, count = _own_rows(tensor)
            if count:
                own[name] = tensor.to_local().contiguous()
                rows[name] = {"start": start, "shape": list(tensor.shape)}
        elif leads(world):
            own[name] = tensor.contiguous()
    file = path / f"{stem}-{world.rank + 1:05d}-of-{world.size:05d}.safetensors"
    save_file(own, file, metadata={"rows": json.dumps(rows)})
    with file.open("rb") as written:
        os.fsync(written.fileno())


def read_shards(path: Path, stem: str, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `write_shards` or `save_file` wrote, sharded as this rank's `current` tensors of the same name
    (for `<name>/<entry>`: as <name>). ValueError if rows are missing; OSError, SafetensorError for damaged files."""
    files = sorted([*path.glob(f"{stem}.safetensors"), *path.glob(f"{stem}-*-of-*.safetensors")])
    if not files:
        raise ValueError(f"no {stem}*.safetensors")
    _require_all(files)
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        parts: dict[str, list[tuple[int, Any]]] = {}
        shapes: dict[str, list[int]] = {}
        for file in opened:
            rows = json.loads((file.metadata() or {}).get("rows", "{}"))
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                shapes[name] = rows[name]["shape"] if name in rows else file.get_slice(name).get_shape()
                parts.setdefault(name, []).append((rows[name]["start"] if name in rows else 0, file))
        return {name: _read(name, parts[name], shapes[name], _like(name, current)) for name in sorted(parts)}


def _read(name: str, parts: list[tuple[int, Any]], shape: list[int], like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or list(like.shape) != shape:
        whole = _join(name, parts, 0, shape[0]) if shape else parts[0][1].get_tensor(name)
        return whole if like is None else whole.to(like.device)
    local = like.to_local()
    start, count = _own_rows(like)
    found = _join(name, parts, start, count).to(local.device) if count else torch.empty_like(local)
    return DTensor.from_local(
        found, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def _join(name: str, parts: list[tuple[int, Any]], start: int, count: int) -> Tensor:
    """Rows start to start + count, from the parts that hold them."""
    found: list[Tensor] = []
    at = start
    for first, file in sorted(parts, key=lambda entry: entry[0]):
        part = file.get_slice(name)
        last = first + part.get_shape()[0]
        if first <= at < last:
            end = min(last, start + count)
            found.append(part[at - first : end - first])
            at = end
    if at < start + count:
        raise ValueError(f"row {at} of {name} is missing in all files")
    return torch.cat(found) if len(found) != 1 else found[0]


def _like(name: str, current: Mapping[str, Tensor]) -> Tensor | None:
    return current.get(name, current.get(name.rpartition("/")[0]))


def _own_rows(tensor: DTensor) -> tuple[int, int]:
    """The first row and the number of rows of this rank."""
    assert tuple(tensor.placements) == (Shard(0),), "FSDP splits along the first dimension"
    count = len(tensor.to_local())
    size, rank = tensor.device_mesh.size(), tensor.device_mesh.get_local_rank()
    each = -(-tensor.shape[0] // size)  # as torch.chunk: all parts but the last have this length
    return min(each * rank, tensor.shape[0]), count


def _require_all(files: list[Path]) -> None:
    """ValueError if one of `-00001-of-00004` and so on is missing."""
    last = files[-1].stem
    if "-of-" in last and len(files) != int(last.rpartition("-of-")[2]):
        raise ValueError(f"found {len(files)} of {int(last.rpartition('-of-')[2])} shards, up to {files[-1].name}")
