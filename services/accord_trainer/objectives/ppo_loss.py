"""The clipped policy objective.

Schulman et al. 2017, arXiv 1707.06347, equation 7: -min(rho A, clip(rho, 1 - e, 1 + e) A). Asymmetric bounds: DAPO,
arXiv 2503.14476. Dual clip, a floor of c A where A < 0: Ye et al. 2019, arXiv 1912.09729, equation 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord_trainer.objectives.kl import k3, log_ratio
from accord_trainer.objectives.whitening import masked_sum


@dataclass(frozen=True)
class PolicyTerms:
    """Sums over the masked tokens; the caller divides by the token count of the whole minibatch, over all its parts."""

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor
    ratio: Tensor
    ratio_max: Tensor


def ppo_policy_terms(
    logprobs_BR: Tensor,
    old_logprobs_BR: Tensor,
    advantages_BR: Tensor,
    mask_BR: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    importance_BR: Tensor | None = None,
) -> PolicyTerms:
    """The terms of the policy loss for one part of a minibatch.

    `importance_BR`, where given, weighs each token's loss (mismatch.py: the old policy against the one that
    sampled). Everything but `loss` carries no gradient.
    """
    # Pads are zeroed before exp: where() after it would let a NaN of a pad into the gradient.
    difference_BR = torch.where(mask_BR, log_ratio(logprobs_BR, old_logprobs_BR), 0.0)
    ratio_BR = difference_BR.exp()
    advantages_BR = torch.where(mask_BR, advantages_BR, 0.0)
    clipped_BR = ratio_BR.clamp(1.0 - clip_low, 1.0 + clip_high)
    objective_BR = torch.minimum(ratio_BR * advantages_BR, clipped_BR * advantages_BR)
    if dual_clip is not None:
        floor_BR = dual_clip * advantages_BR
        objective_BR = torch.where(advantages_BR < 0, torch.maximum(objective_BR, floor_BR), objective_BR)
    if importance_BR is not None:
        objective_BR = objective_BR * torch.where(mask_BR, importance_BR, 0.0)
    with torch.no_grad():
        # The clip acts where it takes the gradient away: outside the bounds on the side that the advantage pushes to.
        acts_BR = (clipped_BR * advantages_BR) < (ratio_BR * advantages_BR)
        return_terms = {
            "clipped": masked_sum(acts_BR.to(ratio_BR.dtype), mask_BR),
            "approx_kl": masked_sum(k3(-difference_BR, torch.zeros_like(difference_BR)), mask_BR),
            "ratio": masked_sum(ratio_BR, mask_BR),
            "ratio_max": torch.where(mask_BR, ratio_BR, 0.0).amax(),
        }
    return PolicyTerms(loss=-masked_sum(objective_BR, mask_BR), **return_terms)
