"""Which GPUs are in use, by ids that are the same in every process of a machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

import torch


def held_gpus(ranks: int = 1) -> list[str]:
    """Ids of the GPUs that hold memory of this process and of its other `ranks` on this machine; rank i uses GPU i.
    Allocates nothing itself."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    held = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
    return gpu_ids(range(ranks)) if held and ranks > 1 else gpu_ids(held)


def gpu_ids(indices: Iterable[int]) -> list[str]:
    """Ids from torch's GPU numbers, which count only the GPUs that the environment makes visible."""
    shown = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [f"{socket.gethostname()}/{shown[index] if shown else index}" for index in indices]
