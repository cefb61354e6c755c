"""What PPO's epochs aim at, computed once a step: old log-probabilities and values, advantages, returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord_trainer.algorithms.ppo_options import PpoOptions
from accord_trainer.objectives.advantages import gae, token_rewards
from accord_trainer.objectives.kl import k1, k3
from accord_trainer.objectives.ppo_loss import truncated_importance
from accord_trainer.objectives.value_loss import explained_variance
from accord_trainer.objectives.whitening import masked_mean, masked_sum, whiten
from accord_trainer.trajectories import Trajectories


@dataclass(frozen=True)
class Targets:
    """Frozen over the epochs. Scores have the penalty for a missing end taken off."""

    old_logprobs_BR: Tensor
    reference_logprobs_BR: Tensor
    entropy_BR: Tensor
    values_BR: Tensor
    score_B: Tensor
    rewards_BR: Tensor
    advantages_BR: Tensor
    returns_BR: Tensor
    importance_BR: Tensor | None


def make_targets(
    data: Trajectories,
    old_BR: Tensor,
    reference_BR: Tensor,
    entropy_BR: Tensor,
    values_BR: Tensor,
    final_value_B: Tensor,
    kl_coefficient: float,
    options: PpoOptions,
) -> Targets:
    """Rewards and GAE from what the old policy, the reference and the critic said of the batch."""
    mask_BR = data.mask_BR
    score_B = data.score_B - torch.where(data.truncated_B, options.missing_eos_penalty, 0.0)
    rewards_BR = token_rewards(score_B, k1(old_BR, reference_BR), mask_BR, kl_coefficient=kl_coefficient)
    used_BR = whiten(rewards_BR, mask_BR, shift_mean=False) if options.whiten_rewards else rewards_BR
    bootstrap_B = None
    if options.bootstrap_truncated:
        bootstrap_B = torch.where(data.truncated_B, final_value_B, 0.0)
    advantages_BR, returns_BR = gae(
        used_BR, values_BR, mask_BR, gamma=options.gamma, lam=options.gae_lambda, bootstrap_B=bootstrap_B
    )
    if options.whiten_advantages:
        advantages_BR = whiten(advantages_BR, mask_BR)
    importance_BR = None
    if options.importance_cap is not None:
        importance_BR = truncated_importance(old_BR, data.rollout_logprobs_BR, options.importance_cap)
    return Targets(
        old_BR, reference_BR, entropy_BR, values_BR, score_B, rewards_BR, advantages_BR, returns_BR, importance_BR
    )


def target_metrics(data: Trajectories, targets: Targets) -> dict[str, float]:
    """Figures of the batch under the old policy. KL, reward and score: per response; entropy: per token; nats."""
    mask_BR, responses = data.mask_BR, len(data.responses)
    old_BR, reference_BR, rollout_BR = targets.old_logprobs_BR, targets.reference_logprobs_BR, data.rollout_logprobs_BR
    return {
        "reward": float(masked_sum(targets.rewards_BR, mask_BR)) / responses,
        "score": float(data.score_B.mean()),
        "score_std": float(data.score_B.std(correction=0)),
        "kl_k1": float(masked_sum(k1(old_BR, reference_BR), mask_BR)) / responses,
        "kl_k3": float(masked_sum(k3(old_BR, reference_BR), mask_BR)) / responses,
        "mismatch_kl": float(masked_mean(k3(rollout_BR, old_BR), mask_BR)),
        "entropy": float(masked_mean(targets.entropy_BR, mask_BR)),
        "value_mean": float(masked_mean(targets.values_BR, mask_BR)),
        "return_mean": float(masked_mean(targets.returns_BR, mask_BR)),
        "explained_variance": explained_variance(targets.values_BR, targets.returns_BR, mask_BR),
        "response_tokens": sum(map(len, data.responses)) / responses,
        "eos_rate": 1.0 - float(data.truncated_B.float().mean()),
        "samples": float(responses),
        "tokens": float(sum(map(len, data.responses))),
    }
