"""An algorithm: the best response to each prompt is reinforced, the others are ignored.

PolicyGradient implements everything that on-policy policy-gradient algorithms share: the frozen old policy, the KL
penalty, the clipped loss, the optimizer. An algorithm only computes the advantage of each token.
"""

from __future__ import annotations

import torch
from pydantic import Field

from accord_trainer.algorithms.policy_gradient import PolicyGradient, PolicyGradientOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, Trajectories
from accord_trainer.objectives.group_baselines import group_index


class BestOfGroupOptions(PolicyGradientOptions):
    """Options of `best_of_group`, in addition to those of every policy-gradient algorithm."""

    epochs: int = Field(1, ge=1, description="Passes over the batch.")
    best_advantage: float = Field(1.0, gt=0, description="The advantage of each token of a group's best response.")


class BestOfGroup(PolicyGradient):
    """The algorithm `best_of_group`. Learns from scored samples of the current version, two or more per prompt."""

    options_type = BestOfGroupOptions
    least_group = 2
    options: BestOfGroupOptions

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        """Shapes: B responses, R tokens."""
        reward_B, group_B = inputs.rewards_BR.sum(1), group_index(data.prompts)
        best_G = torch.full((int(group_B.max()) + 1,), -torch.inf).scatter_reduce(0, group_B, reward_B, "amax")
        best_B = (reward_B == best_G[group_B]).float() * self.options.best_advantage
        return Advantages(best_B[:, None] * data.mask_BR)
