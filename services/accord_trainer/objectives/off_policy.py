"""The policy that sampled and the old policy of the trainer are not quite the same: what a loss is weighed by for
that, and which responses are too far off to be learned from.

They differ by the staleness of the samples and by how engine and trainer compute. With r the ratio old / rollout of
a token: truncated importance sampling, Espeholt et al. 2018, arXiv 1802.01561, by token or by response; the old policy
between the two is the decoupled objective of Hilton et al. 2021, arXiv 2110.00641. All of it is frozen for a step and
carries no gradient.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from accord_trainer.objectives.kl import LOG_RATIO_BOUND, log_ratio

Bound = Literal["truncate", "mask"]
Level = Literal["token", "sequence"]
Measure = Literal["product", "mean", "worst"]


def importance_weights(
    old_BR: Tensor, rollout_BR: Tensor, mask_BR: Tensor, cap: float, *, bound: Bound, level: Level
) -> Tensor:
    """The weight of each token, (B, R): r, or for the level `sequence` the product of r over the response; above `cap`
    it is `cap`, or with `mask` outside 1 / cap .. cap it is 0."""
    ratio_BR = log_ratio(old_BR, rollout_BR).exp()
    if level == "sequence":
        ratio_BR = response_ratio(old_BR, rollout_BR, mask_BR, "product")[:, None].exp().expand_as(ratio_BR)
    if bound == "mask":
        return torch.where((ratio_BR <= cap) & (ratio_BR >= 1.0 / cap), ratio_BR, 0.0)
    return ratio_BR.clamp(max=cap)


def response_ratio(old_BR: Tensor, rollout_BR: Tensor, mask_BR: Tensor, measure: Measure) -> Tensor:
    """log old - log rollout of each response, (B,): `product` the sum over its tokens, within +-20; `mean` the mean, so
    that length has no part in it; `worst` that of the token that is farthest from 0."""
    difference_BR = torch.where(mask_BR, log_ratio(old_BR, rollout_BR), 0.0)
    if measure == "worst":
        return difference_BR.gather(1, difference_BR.abs().argmax(1, keepdim=True))[:, 0]
    total_B = difference_BR.sum(1)
    if measure == "mean":
        return total_B / mask_BR.sum(1).clamp(min=1)
    return total_B.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def accepted(old_BR: Tensor, rollout_BR: Tensor, mask_BR: Tensor, cap: float, measure: Measure) -> Tensor:
    """Which responses may be learned from, (B,): those whose ratio lies within 1 / cap .. cap."""
    return response_ratio(old_BR, rollout_BR, mask_BR, measure).abs() <= math.log(cap)
