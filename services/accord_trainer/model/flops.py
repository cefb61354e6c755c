"""What passes through a model cost, and what a device could do at most: the two sides of MFU.

Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, appendix B): what the model's mathematics need,
divided by what the device could have done meanwhile. Padding, activations that are computed again, norms and softmax do
not count; each matrix entry costs 2 operations a token. With N entries, L blocks of attention width W:

- forward: 2 N a token, and 4 L W for each token that a token sees (itself, and in a packed row only its own prompt and
  response: half of the square, which PaLM counts whole);
- backward: 2 N more for the gradient of the inputs, 2 N more where the weights are trained, twice the attention's;
- logits: of response tokens only. Frozen lower blocks: computed once a step, no backward pass.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from accord_trainer.model.packing import Row
from accord_trainer.model.trunk import Trunk

# Dense bfloat16 matrix products, operations a second, by a part of the device's name; the data sheets' figures.
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


class Costs:
    """Operations of passes through one trunk and the head on it. `done` adds them up."""

    def __init__(self, trunk: Trunk, head: nn.Module | None) -> None:
        """Counted before weights are spread over ranks. `head` is None where none meets every response token."""
        config: Any = trunk.module.config
        heads = config.num_attention_heads
        self._attention = int(heads * (getattr(config, "head_dim", None) or config.hidden_size // heads))
        self._lower = _entries(trunk.blocks[: trunk.frozen])
        self._upper = _entries(trunk.blocks[trunk.frozen :])
        self._trained = _entries(trunk.blocks[trunk.frozen :], trained=True)
        self._head = _entries([head]) if head is not None else 0
        self._head_trained = _entries([head], trained=True) if head is not None else 0
        self._blocks = (trunk.frozen, len(trunk.blocks) - trunk.frozen)
        self.done = 0.0

    def lower(self, rows: Sequence[Row]) -> None:
        """The frozen blocks."""
        self.done += 2.0 * self._lower * _tokens(rows) + self._blocks[0] * self._seen(rows)

    def upper(self, rows: Sequence[Row]) -> None:
        """The trained blocks and the head; where gradients are on, their backward pass too."""
        tokens, attention = _tokens(rows), self._blocks[1] * self._seen(rows)
        self.done += 2.0 * self._upper * tokens + attention
        if torch.is_grad_enabled():
            self.done += 2.0 * (self._upper + self._trained) * tokens + 2.0 * attention
        self.heads(rows, 1)

    def heads(self, rows: Sequence[Row], count: int) -> None:
        """`count` heads of the head's shape on the response tokens."""
        answered = count * sum(len(response) for row in rows for response in row.responses)
        self.done += 2.0 * self._head * answered
        if torch.is_grad_enabled():
            self.done += 2.0 * (self._head + self._head_trained) * answered

    def _seen(self, rows: Sequence[Row]) -> float:
        return 4.0 * self._attention * sum(map(seen_tokens, rows))


def seen_tokens(row: Row) -> int:
    """How many tokens each token of a row sees, itself among them, summed."""
    prompt = len(row.prompt)
    responses = sum(prompt * len(r) + len(r) * (len(r) + 1) // 2 for r in row.responses)
    return prompt * (prompt + 1) // 2 + responses


def peak_flops(device: torch.device) -> float | None:
    """What the device can do at most, operations a second in bfloat16; None where it is not known."""
    if device.type != "cuda":
        return None
    return peak_by_name(torch.cuda.get_device_name(device))


def peak_by_name(name: str) -> float | None:
    """The same by the name that torch gives, such as `NVIDIA H100 80GB HBM3`."""
    words = re.findall(r"\w+", name)
    return next((peak for part, peak in PEAKS.items() if all(word in words for word in part.split())), None)


@dataclass(frozen=True)
class Speed:
    """A device as what time is measured on. `peak_flops`: what it (or all ranks' together) could do; None: unknown."""

    device: torch.device
    peak_flops: float | None

    def now(self) -> float:
        """Seconds on a clock that waits for what the device still has to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


def _entries(modules: Iterable[nn.Module], *, trained: bool = False) -> int:
    """Entries of the matrices (embeddings are looked up, not multiplied)."""
    return sum(
        part.weight.numel()
        for module in modules
        for part in module.modules()
        if isinstance(part, nn.Linear) and (part.weight.requires_grad or not trained)
    )


def _tokens(rows: Sequence[Row]) -> int:
    return sum(map(len, rows))
