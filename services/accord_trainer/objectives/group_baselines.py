"""Baselines from the other responses to the same prompt, and the other functions of group algorithms.

- group_normalised: Shao et al. 2024 (GRPO, DeepSeekMath), arXiv 2402.03300, section 4.1.2; without the deviation: Liu
  et al. 2025 (Dr. GRPO), arXiv 2503.20783.
- leave_one_out: Kool et al. 2019; Ahmadian et al. 2024 (RLOO), arXiv 2402.14740, section 3.2.
- overlong_penalty: Yu et al. 2025 (DAPO), arXiv 2503.14476, equation 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def group_index(prompts: Sequence[Sequence[int]]) -> Tensor:
    """The group of each response, (B,), numbered by first appearance: responses to equal prompts are one group."""
    numbers: dict[tuple[int, ...], int] = {}
    return torch.tensor([numbers.setdefault(tuple(prompt), len(numbers)) for prompt in prompts])


def group_mean(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """The mean reward of each response's group, (B,)."""
    sums_G, counts_G = _sums(reward_B, group_B)
    return (sums_G / counts_G)[group_B]


def without_signal(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """True, (B,), where all rewards of the response's group are equal: the group carries no signal."""
    size = int(group_B.max()) + 1
    highest_G = torch.full((size,), -torch.inf, dtype=reward_B.dtype).scatter_reduce(0, group_B, reward_B, "amax")
    lowest_G = torch.full((size,), torch.inf, dtype=reward_B.dtype).scatter_reduce(0, group_B, reward_B, "amin")
    return (highest_G == lowest_G)[group_B]


def group_normalised(reward_B: Tensor, group_B: Tensor, *, scale: bool = True) -> Tensor:
    """(reward - mean) / deviation of the group, (B,); with `scale` off, only the difference. Groups of equal rewards
    get exactly 0: no division by a deviation of 0, and no amplified rounding noise."""
    centred_B = torch.where(without_signal(reward_B, group_B), 0.0, reward_B - group_mean(reward_B, group_B))
    if not scale:
        return centred_B
    sums_G, counts_G = _sums(centred_B.square(), group_B)
    deviation_B = (sums_G / counts_G).sqrt()[group_B]
    return torch.where(deviation_B > 0, centred_B / deviation_B.clamp(min=torch.finfo(reward_B.dtype).tiny), 0.0)


def leave_one_out(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """The reward minus the mean of the others in its group, (B,); 0 in a group of one."""
    sums_G, counts_G = _sums(reward_B, group_B)
    others_B = counts_G[group_B] - 1
    advantage_B = reward_B - (sums_G[group_B] - reward_B) / others_B.clamp(min=1)
    return torch.where((others_B > 0) & ~without_signal(reward_B, group_B), advantage_B, 0.0)


def overlong_penalty(length_B: Tensor, limit_B: Tensor, buffer: int) -> Tensor:
    """0 up to `limit - buffer` tokens, falling linearly to -1 at the limit, (B,)."""
    return ((limit_B - buffer - length_B) / buffer).clamp(min=-1.0, max=0.0)


def returns_to_go(rewards_BR: Tensor, mask_BR: Tensor, gamma: float) -> Tensor:
    """The discounted sum of rewards from each token on, (B, R), skipping tokens that the policy did not choose."""
    found_BR = torch.zeros_like(rewards_BR)
    running_B = torch.zeros_like(rewards_BR[:, 0])
    for t in reversed(range(rewards_BR.shape[1])):
        running_B = torch.where(mask_BR[:, t], rewards_BR[:, t] + gamma * running_B, running_B)
        found_BR[:, t] = torch.where(mask_BR[:, t], running_B, 0.0)
    return found_BR


def _sums(values_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count of each group, (G,)."""
    size = int(group_B.max()) + 1
    zeros_G = torch.zeros(size, dtype=values_B.dtype)
    return zeros_G.index_add(0, group_B, values_B), zeros_G.index_add(0, group_B, torch.ones_like(values_B))
