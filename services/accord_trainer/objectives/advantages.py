"""Rewards of response tokens, and generalised advantage estimation.

Schulman et al. 2015, arXiv 1506.02438: delta_t = r_t + gamma V_{t+1} - V_t (equation 10), A_t = sum over l of
(gamma lambda)^l delta_{t+l} (equation 16), computed backwards.
"""

from __future__ import annotations

import torch
from torch import Tensor


def last_action_B(mask_BR: Tensor) -> Tensor:
    """The index of the last true entry of each row; each row has one."""
    positions_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    return torch.where(mask_BR, positions_R, -1).amax(dim=1)


def token_rewards(score_B: Tensor, kl_BR: Tensor, mask_BR: Tensor, *, kl_coefficient: float) -> Tensor:
    """Rewards_BR: -coefficient * KL at every response token, plus the score at the last one; 0 where masked.

    Ziegler et al. 2019, equation 2. The last token is that of the mask, wherever padding or a tool's output lies.
    """
    rewards_BR = torch.where(mask_BR, -kl_coefficient * kl_BR, 0.0)
    rows_B = torch.arange(len(score_B), device=score_B.device)
    rewards_BR[rows_B, last_action_B(mask_BR)] += score_B
    return rewards_BR


def gae(
    rewards_BR: Tensor,
    values_BR: Tensor,
    mask_BR: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages_BR and returns_BR (= advantages + values), both 0 where masked.

    values_BR[b, t] is the value of the state before token t. `bootstrap_B` is the value of the state after the last
    token: that of a response which was cut off, 0 (the default) of one which ended. Tokens that the policy did not
    choose are passed over: the accumulators are carried across them.
    """
    values_BR = torch.where(mask_BR, values_BR, 0.0)
    advantages_BR = torch.zeros_like(values_BR)
    advantage_B = torch.zeros_like(values_BR[:, 0])
    next_value_B = torch.zeros_like(advantage_B) if bootstrap_B is None else bootstrap_B
    for t in reversed(range(values_BR.shape[1])):
        delta_B = rewards_BR[:, t] + gamma * next_value_B - values_BR[:, t]
        advantage_B = torch.where(mask_BR[:, t], delta_B + gamma * lam * advantage_B, advantage_B)
        next_value_B = torch.where(mask_BR[:, t], values_BR[:, t], next_value_B)
        advantages_BR[:, t] = torch.where(mask_BR[:, t], advantage_B, 0.0)
    return advantages_BR, advantages_BR + values_BR
