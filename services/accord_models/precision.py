"""The fastest number type and number of threads on this machine."""

from __future__ import annotations

import time
from functools import cache

import torch

from accord.errors import InvalidArgument

# bfloat16 loses precision, so it must be clearly faster.
_BFLOAT16_MUST_GAIN = 1.2


@cache
def fastest_dtype() -> str:
    """`bfloat16` if this CPU (or the GPU) multiplies matrices clearly faster in it, otherwise `float32`.

    Measured once per process, in under a second, on a product as large as a small model's feed-forward layer.
    """
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    gain = _seconds(torch.float32) / _seconds(torch.bfloat16)
    return "bfloat16" if gain >= _BFLOAT16_MUST_GAIN else "float32"


def resolve_dtype(setting: str) -> str:
    """`float32` or `bfloat16` as set, the measured choice for `auto`; InvalidArgument/UNKNOWN_DTYPE otherwise."""
    if setting == "auto":
        return fastest_dtype()
    if setting not in ("float32", "bfloat16"):
        raise InvalidArgument(f"dtype {setting!r} is unknown; known: auto, float32, bfloat16", reason="UNKNOWN_DTYPE")
    return setting


def compute_threads(setting: int) -> int:
    """Sets torch's number of threads (0: leave it to the environment) and returns the number in use."""
    if setting < 0:
        raise InvalidArgument(f"threads must be 0 (automatic) or more, not {setting}", reason="BAD_THREADS")
    if setting:
        torch.set_num_threads(setting)
    return torch.get_num_threads()


def _seconds(dtype: torch.dtype, repeats: int = 7) -> float:
    """The shortest of several timings of one matrix product, in seconds: the least disturbed one."""
    left, right = torch.ones(64, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    best = float("inf")
    with torch.inference_mode():
        torch.mm(left, right)
        for _ in range(repeats):
            start = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - start)
    return best
