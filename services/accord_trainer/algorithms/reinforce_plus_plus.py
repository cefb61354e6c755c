"""REINFORCE++: Hu 2025, arXiv 2501.03262.

No critic: a token's advantage is the sum of the rewards from that token on (score at the end, KL penalty at each
token), whitened over the whole batch and clipped as in PPO. With `group_baseline` the group's mean score is subtracted
first.
"""

from __future__ import annotations

from pydantic import Field

from accord_trainer.algorithms.policy_gradient import PolicyGradient, PolicyGradientOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, Trajectories
from accord_trainer.objectives.advantages import last_action_B, whiten
from accord_trainer.objectives.group_baselines import group_index, group_mean, returns_to_go


class ReinforcePlusPlusOptions(PolicyGradientOptions):
    """Options of `reinforce++`, in addition to those of every policy-gradient algorithm."""

    gamma: float = Field(1.0, gt=0, le=1, description="Discount of a later token's reward.")
    group_baseline: bool = Field(
        False, description="Subtract the mean score of the prompt's responses from each score."
    )


class ReinforcePlusPlus(PolicyGradient):
    """The algorithm `reinforce++`. Learns from scored samples of the current version."""

    options_type = ReinforcePlusPlusOptions
    options: ReinforcePlusPlusOptions

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        rewards_BR = inputs.rewards_BR
        if self.options.group_baseline:
            rewards_BR = rewards_BR.clone()
            baseline_B = group_mean(inputs.score_B, group_index(data.prompts))
            rewards_BR[range(len(baseline_B)), last_action_B(data.mask_BR)] -= baseline_B
        returns_BR = returns_to_go(rewards_BR, data.mask_BR, self.options.gamma)
        return Advantages(whiten(returns_BR, data.mask_BR))
