"""Checks before a step whether it fits into memory: the algorithm's lower bound against the free memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from accord.errors import ResourceExhausted

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
# A description of each part, and how to make it smaller.
ADVICE = {
    "weights": "gradients and moments: train less of the model (trainable_layers, lora_rank), or shard it over ranks "
    "(--parallel fsdp)",
    "copy": "the copy for the rollback of a failed step: keep it on disk (--undo disk)",
    "activations": "activations kept for the gradient: set activation_checkpointing, or lower micro_batch_tokens",
    "logits": "logits of one pass: set logits_chunk, or lower micro_batch_tokens",
    "batch": "tensors of every sample: put fewer or shorter samples in a batch",
}


def require_room(needed: Mapping[str, int], free: int) -> None:
    """ResourceExhausted, OUT_OF_MEMORY, if `needed` bytes (by part, see ADVICE) are more than `free`."""
    total = sum(needed.values())
    if total <= free:
        return
    parts = sorted(needed, key=lambda part: -needed[part])
    named = "; ".join(f"{needed[part] / GIB:.3g} GiB for {ADVICE[part]}" for part in parts if needed[part])
    raise ResourceExhausted(
        f"the step needs at least {total / GIB:.3g} GiB in addition to the loaded models, but {free / GIB:.3g} GiB are "
        f"free; the model is unchanged. {named}",
        reason="OUT_OF_MEMORY",
        metadata={"needed_bytes": str(total), "free_bytes": str(free), **{k: str(v) for k, v in needed.items()}},
    )


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`: GPU memory, or main memory within the limit of the cgroup."""
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
