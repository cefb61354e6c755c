"""Losses of implicit language Q-learning: Snell et al. 2022, arXiv 2206.11871; expectile regression as in
implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169, equations 5 and 6).

Each token is an action, the text before it the state. H heads estimate Q; their targets follow them slowly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accord_trainer.objectives.advantages import masked_sum


def bellman_targets(
    rewards_BR: Tensor, values_BR: Tensor, final_value_B: Tensor, mask_BR: Tensor, *, gamma: float
) -> Tensor:
    """r + gamma V(s') of each token, (B, R), without gradient; 0 where masked.

    V(s') is the value before the next token, and `final_value_B` after the last: 0 where the response ended. Masks
    have no holes and begin at the first token.
    """
    after_BR = torch.cat([values_BR[:, 1:], torch.zeros_like(values_BR[:, :1])], dim=1)
    last_B1 = mask_BR.sum(1, keepdim=True) - 1
    after_BR = after_BR.scatter(1, last_B1, final_value_B[:, None].to(after_BR.dtype))
    return torch.where(mask_BR, rewards_BR + gamma * after_BR, 0.0).detach()


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(difference < 0)| difference^2, element by element: above 0.5 the regression leans towards
    the upper values, and at 1 it would be their maximum."""
    square = difference.square()
    return torch.where(difference < 0, (1.0 - expectile) * square, expectile * square)


def q_loss_sum(q_HBR: Tensor, targets_BR: Tensor, mask_BR: Tensor, *, weight_B: Tensor) -> Tensor:
    """The squared errors of all heads, each response's counted `weight_B` times, summed over tokens and heads."""
    difference_HBR = torch.where(mask_BR, q_HBR - targets_BR, 0.0)
    return masked_sum(difference_HBR.square().sum(0) * weight_B[:, None], mask_BR)


def v_loss_sum(
    values_BR: Tensor, target_q_BR: Tensor, mask_BR: Tensor, *, expectile: float, weight_B: Tensor
) -> Tensor:
    """The expectile losses of V against the target heads' Q of the tokens in the data, summed over tokens. No
    gradient reaches Q."""
    difference_BR = torch.where(mask_BR, target_q_BR.detach() - values_BR, 0.0)
    return masked_sum(expectile_loss(difference_BR, expectile) * weight_B[:, None], mask_BR)


def follow(target: Tensor, source: Tensor, rate: float) -> None:
    """target += rate (source - target), in place: Polyak averaging."""
    target.mul_(1.0 - rate).add_(source.detach(), alpha=rate)
