"""The tensors of a policy-gradient step: the batch, and the targets of its epochs, which are computed once and frozen.

Trajectories (the batch) -> OldPolicy (passes before the step) -> AdvantageInputs (rewards) -> Advantages (what each
algorithm computes) -> StepTargets (all of it, for the loss).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_trainer.objectives.advantages import masked_mean, masked_sum
from accord_trainer.objectives.policy_loss import explained_variance, k1, k3


@dataclass(frozen=True)
class Trajectories:
    """B responses, padded to R tokens. `mask_BR` is true where the policy chose the token."""

    prompts: list[list[int]]
    responses: list[list[int]]
    mask_BR: Tensor
    rollout_logprobs_BR: Tensor
    score_B: Tensor
    temperature_B: Tensor
    # True where the response was cut off at max_new_tokens.
    truncated_B: Tensor
    # The maximum tokens that the response could have had.
    limit_B: Tensor

    @property
    def width(self) -> int:
        """R."""
        return self.mask_BR.shape[1]


def trajectories(samples: list[trainer_v1.ScoredSample]) -> Trajectories:
    """The tensors of verified samples."""
    width = max(len(scored.sample.response_token_ids) for scored in samples)
    mask_BR = torch.zeros(len(samples), width, dtype=torch.bool)
    logprobs_BR = torch.zeros(len(samples), width)
    for b, scored in enumerate(samples):
        length = len(scored.sample.response_token_ids)
        mask_BR[b, :length] = torch.tensor(list(scored.sample.response_mask))
        logprobs_BR[b, :length] = torch.tensor(list(scored.sample.logprobs))
    return Trajectories(
        prompts=[list(scored.sample.prompt_token_ids) for scored in samples],
        responses=[list(scored.sample.response_token_ids) for scored in samples],
        mask_BR=mask_BR,
        rollout_logprobs_BR=logprobs_BR,
        score_B=torch.tensor([scored.score for scored in samples], dtype=torch.float32),
        temperature_B=torch.tensor([temperature(scored.sample) for scored in samples]),
        limit_B=torch.tensor(
            [max(s.sample.sampling.max_new_tokens, len(s.sample.response_token_ids)) for s in samples]
        ),
        truncated_B=torch.tensor([scored.sample.finish_reason == types_v1.FINISH_REASON_LENGTH for scored in samples]),
    )


def temperature(sample: types_v1.Sample) -> float:
    """The divisor of the sample's logits; unset means 1."""
    return sample.sampling.temperature if sample.sampling.HasField("temperature") else 1.0


@dataclass(frozen=True)
class OldPolicy:
    """The batch under the policy (and its critic) before the step, and under the reference. Without a critic the values
    are 0."""

    logprobs_BR: Tensor
    reference_logprobs_BR: Tensor
    entropy_BR: Tensor
    values_BR: Tensor
    final_value_B: Tensor


@dataclass(frozen=True)
class AdvantageInputs:
    """What advantages are computed from: the score minus penalties, and the reward of each token (KL penalty at every
    token, score at the last)."""

    score_B: Tensor
    rewards_BR: Tensor
    old: OldPolicy


@dataclass(frozen=True)
class Advantages:
    """The advantages of a batch. `returns_BR` are the critic's targets; `keep_B` is false for responses that are left
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
    # False for responses on which the sampling policy and the old one differ too much; None: nothing is rejected.
    accepted_B: Tensor | None = None


def target_metrics(data: Trajectories, step_targets: StepTargets) -> dict[str, float]:
    """Metrics of the batch under the old policy. KL, reward and score: per response; entropy: per token; nats."""
    mask_BR, responses, old = data.mask_BR, len(data.responses), step_targets.old
    found = {
        "reward": float(masked_sum(step_targets.rewards_BR, mask_BR)) / responses,
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
    if step_targets.returns_BR is not None:
        found["value_mean"] = float(masked_mean(old.values_BR, mask_BR))
        found["return_mean"] = float(masked_mean(step_targets.returns_BR, mask_BR))
        found["explained_variance"] = explained_variance(old.values_BR, step_targets.returns_BR, mask_BR)
    return found


def penalised_score(data: Trajectories, penalty: float, instead: float | None = None) -> Tensor:
    """The scores, (B,); for a response that was cut off: `instead`, if given, minus the penalty."""
    cut_B = data.score_B if instead is None else torch.full_like(data.score_B, instead)
    return torch.where(data.truncated_B, cut_B - penalty, data.score_B)
