"""Group relative policy optimisation: Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300, section 4.1.

No critic: a response's advantage is its reward relative to its group, the same at each of its tokens. KL is a term of
the loss (equation 4). Dr. GRPO (arXiv 2503.20783) is `scale_advantages` off and `loss_aggregation` constant.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accord_trainer.algorithms.policy_gradient import PolicyGradient, PolicyGradientOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, Trajectories
from accord_trainer.objectives.group_baselines import group_index, group_normalised


class GrpoOptions(PolicyGradientOptions):
    """Options of `grpo`, in addition to those of every policy-gradient algorithm."""

    epochs: int = Field(1, ge=1, description="Passes over the batch.")
    kl_coefficient: float = Field(0.0, ge=0, description="Penalty in the reward for each nat of KL to the reference.")
    kl_loss_coefficient: float = Field(0.04, ge=0, description="Weight of the KL as a term of the loss.")
    loss_aggregation: Literal["token", "sequence", "constant"] = Field(
        "sequence", description="Mean over responses of their token means (as in the paper), or token, or constant."
    )
    scale_advantages: bool = Field(True, description="Divide by the standard deviation of the group's rewards.")


class GRPO(PolicyGradient):
    """The algorithm `grpo`. Learns from scored samples of the current version, two or more to each prompt."""

    options_type = GrpoOptions
    least_group = 2
    options: GrpoOptions

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        reward_B, group_B = inputs.rewards_BR.sum(1), group_index(data.prompts)
        advantage_B = group_normalised(reward_B, group_B, scale=self.options.scale_advantages)
        return Advantages(advantage_B[:, None] * data.mask_BR)
