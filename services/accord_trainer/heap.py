"""Keeps the memory that torch frees in the process.

On the CPU, a training step repeatedly allocates and frees the same hundreds of megabytes. glibc returns such blocks
to the system immediately, and the system clears every page again: a measured sixth of a PPO step's CPU time. In return,
the process keeps its peak memory until it ends.
"""

from __future__ import annotations

import ctypes
import platform

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Configures glibc accordingly; call it before large allocations. False if the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One growing arena, no separately mapped blocks, hardly anything returned: the threshold is an int of bytes.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
