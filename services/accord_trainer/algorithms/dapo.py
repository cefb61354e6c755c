"""Decoupled clip and dynamic sampling: Yu et al. 2025 (DAPO), arXiv 2503.14476.

GRPO's advantages with a higher upper bound of the ratio (clip-higher), a token-level loss (equation 8), no KL, groups
of equal rewards left out (dynamic sampling; the caller samples more to replace them), and a soft penalty for overlong
responses.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from accord_trainer.algorithms.policy_gradient import PolicyGradient, PolicyGradientOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, Trajectories
from accord_trainer.objectives.group_baselines import group_index, group_normalised, overlong_penalty, without_signal


class DapoOptions(PolicyGradientOptions):
    """Options of `dapo`, in addition to those of every policy-gradient algorithm."""

    kl_coefficient: float = Field(0.0, ge=0, description="Penalty in the reward for each nat of KL to the reference.")
    clip_high: float | None = Field(0.28, gt=0, description="Upper bound of the ratio; the lower one is `clip`.")
    overlong_buffer: int = Field(
        0, ge=0, description="The last tokens before max_new_tokens, over which a penalty rises to 1; 0: none."
    )


class DAPO(PolicyGradient):
    """The algorithm `dapo`. Learns from scored samples of the current version, two or more to each prompt."""

    options_type = DapoOptions
    least_group = 2
    options: DapoOptions

    def score(self, data: Trajectories) -> Tensor:
        score_B = super().score(data)
        if not self.options.overlong_buffer:
            return score_B
        return score_B + overlong_penalty(data.mask_BR.sum(1), data.limit_B, self.options.overlong_buffer)

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        reward_B, group_B = inputs.rewards_BR.sum(1), group_index(data.prompts)
        advantage_B = group_normalised(reward_B, group_B)
        return Advantages(advantage_B[:, None] * data.mask_BR, keep_B=~without_signal(reward_B, group_B))
