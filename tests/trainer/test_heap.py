"""A trainer process keeps the memory that it freed: the next step does not have it cleared by the system again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

FAULTS = """
import resource, sys
if sys.argv[1] == "kept":
    from accord_trainer.heap import keep_freed_memory
    assert keep_freed_memory()
import torch
def use():
    return float(torch.ones(16 * 2**20).sum())  # 64 MiB
for _ in range(20):  # small objects settle in the gaps first
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    command = [sys.executable, "-c", FAULTS, mode]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    given_back = faults("given back")
    assert given_back > 10 * 64 * 2**20 // 4096
    assert faults("kept") < given_back / 3
