"""The critic's loss, clipped as the policy is, and how well it explains the returns.

0.5 max((V - G)^2, (clip(V, V_old - e, V_old + e) - G)^2): Schulman et al. 2016 (OpenAI baselines), Ziegler et al. 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accord_trainer.objectives.whitening import VARIANCE_FLOOR, masked_sum, masked_variance


def value_loss_sum(
    values_BR: Tensor, old_values_BR: Tensor, returns_BR: Tensor, mask_BR: Tensor, *, clip: float | None
) -> Tensor:
    """The sum of the tokens' losses; the caller divides by the minibatch's token count. `clip` None: plain squares."""
    values_BR = torch.where(mask_BR, values_BR, 0.0)
    old_values_BR = torch.where(mask_BR, old_values_BR, 0.0)
    returns_BR = torch.where(mask_BR, returns_BR, 0.0)
    losses_BR = (values_BR - returns_BR).square()
    if clip is not None:
        clipped_BR = old_values_BR + (values_BR - old_values_BR).clamp(-clip, clip)
        losses_BR = torch.maximum(losses_BR, (clipped_BR - returns_BR).square())
    return 0.5 * masked_sum(losses_BR, mask_BR)


def explained_variance(values_BR: Tensor, returns_BR: Tensor, mask_BR: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask; 0 where the returns do not vary."""
    variance = masked_variance(returns_BR, mask_BR)
    if float(variance) < VARIANCE_FLOOR:
        return 0.0
    return float(1.0 - masked_variance(returns_BR - values_BR, mask_BR) / variance)
