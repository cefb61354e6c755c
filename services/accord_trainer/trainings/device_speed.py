"""The peak speed of a device, and its clock: the device side of MFU. The model side is in model/trunk.py."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import torch

# Dense bfloat16 matrix products, operations a second, from the data sheets, by a part of the device's name.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
}


def peak_flops(device: torch.device) -> float | None:
    """The device's peak, operations a second in bfloat16; None if it is unknown."""
    if device.type != "cuda":
        return None
    return peak_by_name(torch.cuda.get_device_name(device))


def peak_by_name(name: str) -> float | None:
    """The peak by torch's name for the device, such as `NVIDIA H100 80GB HBM3`."""
    words = re.findall(r"\w+", name)
    return next((peak for part, peak in PEAKS.items() if all(word in words for word in part.split())), None)


@dataclass(frozen=True)
class Speed:
    """The clock of a device. `peak_flops`: its peak, or that of all ranks' devices together; None: unknown."""

    device: torch.device
    peak_flops: float | None

    def now(self) -> float:
        """Seconds on a clock that waits for the device's pending work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()
