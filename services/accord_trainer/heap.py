"""Memory that torch has freed stays with the process.

On the CPU a training step takes and frees the same hundreds of megabytes over and over. glibc gives such pieces back to
the system at once, which clears every page anew: seen as a sixth of a PPO step's CPU time. The price is that the
process keeps the most that it ever needed, until it ends.
"""

from __future__ import annotations

import ctypes
import platform

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc so; call it before anything big is allocated. False where the C library is another one."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena that grows, no piece mapped by itself, little given back: the threshold is bytes in an int.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
