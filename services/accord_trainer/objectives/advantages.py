"""Rewards of response tokens, advantages from rewards, and whitening over masked entries.

- gae: Schulman et al. 2015, arXiv 1506.02438: delta_t = r_t + gamma V_{t+1} - V_t (equation 10), A_t = sum over l of
  (gamma lambda)^l delta_{t+l} (equation 16), computed backwards.
- whiten: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences" (`whiten` of the released code;
  arXiv 2403.17031 section 3 explains why rewards keep their mean).
"""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8


def last_action_B(mask_BR: Tensor) -> Tensor:
    """The index of the last true entry of each row; each row has one."""
    positions_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    return torch.where(mask_BR, positions_R, -1).amax(dim=1)


def token_rewards(score_B: Tensor, kl_BR: Tensor, mask_BR: Tensor, *, kl_coefficient: float) -> Tensor:
    """Rewards_BR: -coefficient * KL at every response token, plus the score at the last one; 0 where masked.

    Ziegler et al. 2019, equation 2. The last token is the last one in the mask, regardless of padding or tool output.
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
    token: of a response that was cut off; 0 (the default) for one that ended. Tokens that the policy did not
    choose are skipped: the accumulators are carried across them.
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


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of `values` where `mask` is true (same shape), as a scalar. Excluded values may be NaN."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` is true; the mask must not be empty."""
    return masked_sum(values, mask) / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """The population variance (divided by the count) of `values` where `mask` is true."""
    centred = values - masked_mean(values, mask)
    return masked_mean(centred * centred, mask)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """`values` with variance 1 and, when `shift_mean`, mean 0 over the masked entries; 0 where the mask is false.

    Rewards are whitened without shifting the mean (the sign of a reward is meaningful), advantages with shifting. If
    all entries are equal, there is no variance, and the result is 0 (shifted), not a division by 0.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + VARIANCE_FLOOR)
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)
