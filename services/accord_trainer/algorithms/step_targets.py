"""What the epochs of a policy-gradient step aim at, computed once and frozen: the old policy, rewards, advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord_trainer.data.trajectories import Trajectories
from accord_trainer.objectives.kl import k1, k3
from accord_trainer.objectives.value_loss import explained_variance
from accord_trainer.objectives.whitening import masked_mean, masked_sum


@dataclass(frozen=True)
class OldPolicy:
    """What the policy (and its critic) before the step and the reference say of the batch. Without a critic the values
    are 0."""

    logprobs_BR: Tensor
    reference_logprobs_BR: Tensor
    entropy_BR: Tensor
    values_BR: Tensor
    final_value_B: Tensor


@dataclass(frozen=True)
class AdvantageInputs:
    """What an algorithm makes advantages from: the score with penalties taken off, and the reward of each token (KL
    penalty at every token, score at the last)."""

    score_B: Tensor
    rewards_BR: Tensor
    old: OldPolicy


@dataclass(frozen=True)
class Advantages:
    """What an algorithm made of it. `returns_BR` is what a critic learns; `keep_B` is false for responses that are left
    out of the loss."""

    advantages_BR: Tensor
    returns_BR: Tensor | None = None
    keep_B: Tensor | None = None


@dataclass(frozen=True)
class StepTargets:
    """Frozen over the epochs. `mask_BR` is true where a token counts in the loss."""

    old: OldPolicy
    rewards_BR: Tensor
    advantages_BR: Tensor
    returns_BR: Tensor | None
    mask_BR: Tensor
    importance_BR: Tensor | None
    # False for responses that the sampling policy and the old one see too differently; None: nothing is rejected.
    accepted_B: Tensor | None = None


def target_metrics(data: Trajectories, targets: StepTargets) -> dict[str, float]:
    """Figures of the batch under the old policy. KL, reward and score: per response; entropy: per token; nats."""
    mask_BR, responses, old = data.mask_BR, len(data.responses), targets.old
    found = {
        "reward": float(masked_sum(targets.rewards_BR, mask_BR)) / responses,
        "score": float(data.score_B.mean()),
        "score_std": float(data.score_B.std(correction=0)),
        "kl_k1": float(masked_sum(k1(old.logprobs_BR, old.reference_logprobs_BR), mask_BR)) / responses,
        "kl_k3": float(masked_sum(k3(old.logprobs_BR, old.reference_logprobs_BR), mask_BR)) / responses,
        "mismatch_kl": float(masked_mean(k3(data.rollout_logprobs_BR, old.logprobs_BR), mask_BR)),
        "mismatch_max": float(torch.where(mask_BR, k1(data.rollout_logprobs_BR, old.logprobs_BR), 0.0).abs().amax()),
        "entropy": float(masked_mean(old.entropy_BR, mask_BR)),
        "response_tokens": sum(map(len, data.responses)) / responses,
        "eos_rate": 1.0 - float(data.truncated_B.float().mean()),
        "samples": float(responses),
        "tokens": float(sum(map(len, data.responses))),
    }
    if targets.returns_BR is not None:
        found["value_mean"] = float(masked_mean(old.values_BR, mask_BR))
        found["return_mean"] = float(masked_mean(targets.returns_BR, mask_BR))
        found["explained_variance"] = explained_variance(old.values_BR, targets.returns_BR, mask_BR)
    return found


def penalised_score(data: Trajectories, penalty: float, instead: float | None = None) -> Tensor:
    """The scores, (B,); where a response was cut off: `instead`, if there is one, less the penalty."""
    cut_B = data.score_B if instead is None else torch.full_like(data.score_B, instead)
    return torch.where(data.truncated_B, cut_B - penalty, data.score_B)
