"""Whether a step fits: a lower bound of the bytes that it takes, worked out from shapes before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from accord.errors import ResourceExhausted
from accord_trainer.algorithm import AlgorithmState
from accord_trainer.model.packing import Row
from accord_trainer.model.trunk import Trunk
from accord_trainer.options import AlgorithmOptions

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
# What each part is, and what makes it smaller.
ADVICE = {
    "weights": "gradients and moments: train less of the model (trainable_layers, lora_rank), or spread it over ranks "
    "(--parallel fsdp)",
    "copy": "the copy that undoes a failed step: keep it on the disk (--undo disk)",
    "activations": "what blocks keep for the gradient: set activation_checkpointing, or lower micro_batch_tokens",
    "logits": "logits of one pass: set logits_chunk, or lower micro_batch_tokens",
    "batch": "what is kept of every sample: put fewer or shorter samples in a batch",
}


def require_room(needed: Mapping[str, int], free: int) -> None:
    """ResourceExhausted, OUT_OF_MEMORY, where `needed` bytes (by part, see ADVICE) are more than `free`."""
    total = sum(needed.values())
    if total <= free:
        return
    parts = sorted(needed, key=lambda part: -needed[part])
    named = "; ".join(f"{needed[part] / GIB:.3g} GiB for {ADVICE[part]}" for part in parts if needed[part])
    raise ResourceExhausted(
        f"the step takes at least {total / GIB:.3g} GiB more than is loaded, and {free / GIB:.3g} GiB are free; the "
        f"model is as it was. {named}",
        reason="OUT_OF_MEMORY",
        metadata={"needed_bytes": str(total), "free_bytes": str(free), **{k: str(v) for k, v in needed.items()}},
    )


def free_bytes(device: torch.device) -> int:
    """What can still be allocated on `device`: GPU memory, or this machine's, within the limit of its cgroup."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = int(psutil.virtual_memory().available)
    limited = cgroup_free(CGROUP)
    return free if limited is None else min(free, limited)


def cgroup_free(root: Path) -> int | None:
    """Bytes left below the limit of a container (cgroup v2), file cache counted as free; None without a limit."""
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        counts = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(counts.get("inactive_file", 0)))


def weights_bytes(state: AlgorithmState) -> int:
    """What a step allocates for trained weights: gradients, and moments that are not there yet."""
    weights = sum(map(_local_bytes, state.weights.values()))
    moments = sum(map(_local_bytes, state.optimizer.values()))
    return weights + max(2 * weights - moments, 0)


def copy_bytes(state: AlgorithmState) -> int:
    """What a copy of the state takes."""
    return sum(map(_local_bytes, [*state.weights.values(), *state.optimizer.values()]))


def activation_bytes(
    trunk: Trunk, groups: Sequence[Sequence[Row]], options: AlgorithmOptions, compute_dtype: str
) -> int:
    """What the trained blocks keep of the largest pass, about: the input and output of each linear layer.

    Attention's own (L x L scores, where no fused kernel avoids them) is left out: this is a lower bound."""
    tokens = max(len(group) * max(map(len, group)) for group in groups)
    size = 2 if compute_dtype == "bfloat16" else 4
    blocks = [_block_widths(block) for block in trunk.blocks[trunk.frozen :]]
    if options.activation_checkpointing:
        return tokens * (len(blocks) * trunk.width * 4 + max(blocks) * size)
    return tokens * sum(blocks) * size


def logits_bytes(most_tokens: int, vocabulary: int, options: AlgorithmOptions) -> int:
    """Float32 logits of one pass and the softmax that the gradient needs; of `logits_chunk` tokens, where set."""
    held = min(most_tokens, options.logits_chunk or most_tokens)
    return 2 * 4 * held * vocabulary


def _block_widths(block: nn.Module) -> int:
    """Adapters read what the layer beside them reads."""
    return sum(
        part.in_features + part.out_features
        for name, part in block.named_modules()
        if isinstance(part, nn.Linear) and "lora_" not in name
    )


def _local_bytes(tensor: Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes
