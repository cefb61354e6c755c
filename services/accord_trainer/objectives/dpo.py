"""Losses of direct preference optimisation on a pair's log-ratios, one per pair.

With d = (log policy - log reference) of the better response minus that of the worse, nats:

- sigmoid: -log sigmoid(beta d): Rafailov et al. 2023, arXiv 2305.18290, equation 7; with label smoothing s it is cDPO
  (Mitchell 2023): (1 - s) of that and s of the reverse.
- ipo: (d - 1 / (2 beta))^2: Azar et al. 2023, arXiv 2310.12036, equation 17.
- hinge: max(0, 1 - beta d): Zhao et al. 2023 (SLiC-HF), arXiv 2305.10425.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dpo_loss(difference_N: Tensor, *, beta: float, kind: str, label_smoothing: float = 0.0) -> Tensor:
    """The loss of each pair, (N,). Label smoothing acts on `sigmoid` only."""
    if kind == "ipo":
        return (difference_N - 1.0 / (2.0 * beta)).square()
    logits_N = beta * difference_N
    if kind == "hinge":
        return torch.relu(1.0 - logits_N)
    if kind != "sigmoid":
        raise ValueError(f"unknown DPO loss {kind!r}")
    straight_N, reverse_N = functional.logsigmoid(logits_N), functional.logsigmoid(-logits_N)
    return -(1.0 - label_smoothing) * straight_N - label_smoothing * reverse_N
