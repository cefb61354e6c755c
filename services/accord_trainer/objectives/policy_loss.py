"""The terms of a policy-gradient loss: KL to the reference, off-policy weights, clipped objective, critic's loss.

- k1, k2, k3: estimators of KL(policy || reference) from sampled tokens (J. Schulman, "Approximating KL Divergence",
  2020). With x sampled from the policy and d = log policy(x) - log reference(x), nats: k1 = d, k2 = d^2 / 2,
  k3 = exp(-d) - 1 + d. k1 is unbiased and belongs in the reward; k3 is also unbiased and never negative, but its
  gradient is not that of the KL, so it is only reported.
- importance_weights, accepted: the policy that sampled and the old policy of the trainer differ by the staleness of the
  samples and by how engine and trainer compute. With r the ratio old / rollout of a token: truncated importance
  sampling, Espeholt et al. 2018, arXiv 1802.01561, by token or by response; the old policy between the two is the
  decoupled objective of Hilton et al. 2021, arXiv 2110.00641. All of it is frozen for a step and carries no gradient.
- ppo_policy_terms: Schulman et al. 2017, arXiv 1707.06347, equation 7: -min(rho A, clip(rho, 1 - e, 1 + e) A).
  Asymmetric bounds: DAPO, arXiv 2503.14476. Dual clip, a floor of c A where A < 0: Ye et al. 2019, arXiv 1912.09729,
  equation 5.
- value_loss_sum: 0.5 max((V - G)^2, (clip(V, V_old - e, V_old + e) - G)^2): Schulman et al. 2016 (OpenAI baselines),
  Ziegler et al. 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from accord_trainer.objectives.advantages import VARIANCE_FLOOR, masked_sum, masked_variance

LOG_RATIO_BOUND = 20.0
Bound = Literal["truncate", "mask"]
Level = Literal["token", "sequence"]
Measure = Literal["product", "mean", "worst"]


def log_ratio(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log policy - log reference of each token, within +-20 so that one outlier cannot overflow later terms."""
    return (logprobs - reference_logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k1 estimate of each token, nats; may be negative."""
    return log_ratio(logprobs, reference_logprobs)


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k2 estimate of each token, nats; biased, low variance, with the gradient of the KL."""
    return 0.5 * log_ratio(logprobs, reference_logprobs).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k3 estimate of each token, nats; never negative."""
    ratio = log_ratio(logprobs, reference_logprobs)
    return torch.expm1(-ratio) + ratio


@dataclass(frozen=True)
class KlController:
    """The KL coefficient and its control: fixed if `target` is None, otherwise proportional.

    Ziegler et al. 2019, section 2.2: e = clip(KL / target - 1, -0.2, 0.2); coefficient *= 1 + e * n / horizon, with KL
    summed over the tokens of a response and averaged over n responses.
    """

    coefficient: float
    target: float | None = None
    horizon: float = 10_000.0

    def after(self, kl_nats: float, episodes: int) -> KlController:
        """The controller after `episodes` responses of `kl_nats` each."""
        if self.target is None:
            return self
        error = min(max(kl_nats / self.target - 1.0, -0.2), 0.2)
        return KlController(self.coefficient * (1.0 + error * episodes / self.horizon), self.target, self.horizon)


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
    that length has no influence; `worst` that of the token that is farthest from 0."""
    difference_BR = torch.where(mask_BR, log_ratio(old_BR, rollout_BR), 0.0)
    if measure == "worst":
        return difference_BR.gather(1, difference_BR.abs().argmax(1, keepdim=True))[:, 0]
    total_B = difference_BR.sum(1)
    if measure == "mean":
        return total_B / mask_BR.sum(1).clamp(min=1)
    return total_B.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def accepted(old_BR: Tensor, rollout_BR: Tensor, mask_BR: Tensor, cap: float, measure: Measure) -> Tensor:
    """Which responses are used for learning, (B,): those whose ratio is within 1 / cap .. cap."""
    return response_ratio(old_BR, rollout_BR, mask_BR, measure).abs() <= math.log(cap)


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

    `importance_BR`, if given, weights each token's loss (see importance_weights). Only `loss` carries a gradient.
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
        # The clip is active if it removes the gradient: outside the bounds, on the side that the advantage pushes
        # to.
        active_BR = (clipped_BR * advantages_BR) < (ratio_BR * advantages_BR)
        return_terms = {
            "clipped": masked_sum(active_BR.to(ratio_BR.dtype), mask_BR),
            "approx_kl": masked_sum(k3(-difference_BR, torch.zeros_like(difference_BR)), mask_BR),
            "ratio": masked_sum(ratio_BR, mask_BR),
            "ratio_max": torch.where(mask_BR, ratio_BR, 0.0).amax(),
        }
    return PolicyTerms(loss=-masked_sum(objective_BR, mask_BR), **return_terms)


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


def token_weights(mask_BR: Tensor, limit_B: Tensor, how: str) -> Tensor | None:
    """Factors, (B, 1), for token losses that are summed and divided by the number of tokens of `mask_BR`, the whole
    minibatch; None where that is the mean already.

    - token: every token counts alike (DAPO, arXiv 2503.14476, equation 8).
    - sequence: every response counts alike (GRPO, arXiv 2402.03300, equation 3).
    - constant: divided by responses times `limit_B`, so that a token's weight is independent of length (Dr. GRPO, arXiv
      2503.20783).
    Responses without a token that counts are ignored.
    """
    if how == "token":
        return None
    length_B = mask_BR.sum(1)
    responses = (length_B > 0).sum()
    divisor_B = length_B.clamp(min=1) if how == "sequence" else limit_B
    return (mask_BR.sum() / (responses * divisor_B))[:, None]
