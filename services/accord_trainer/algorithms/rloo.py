"""REINFORCE leave-one-out: Ahmadian et al. 2024, arXiv 2402.14740, section 3.2.

The whole response is one action. Its reward is the score minus the KL penalty of all its tokens; the baseline is the
mean reward of the other responses to the prompt. With one epoch the clipped ratio is 1 and the gradient is REINFORCE's.
"""

from __future__ import annotations

from pydantic import Field

from accord_trainer.algorithms.policy_gradient import PolicyGradient, PolicyGradientOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, Trajectories
from accord_trainer.objectives.group_baselines import group_index, leave_one_out


class RlooOptions(PolicyGradientOptions):
    """Options of `rloo`, in addition to those of every policy-gradient algorithm."""

    epochs: int = Field(1, ge=1, description="Passes over the batch.")


class RLOO(PolicyGradient):
    """The algorithm `rloo`. Learns from scored samples of the current version, two or more to each prompt."""

    options_type = RlooOptions
    least_group = 2
    options: RlooOptions

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        advantage_B = leave_one_out(inputs.rewards_BR.sum(1), group_index(data.prompts))
        return Advantages(advantage_B[:, None] * data.mask_BR)
