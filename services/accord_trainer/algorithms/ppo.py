"""Proximal policy optimisation on single responses: Schulman et al. 2017, as Ziegler et al. 2019 use it on language.

Advantages by GAE (arXiv 1506.02438) from a critic, which learns together with the policy, with a clipped loss. The
defaults of the options are a configuration that was measured to learn (SmolLM2-135M, 32 samples a step).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from accord_trainer.algorithm import StepContext
from accord_trainer.algorithms.policy_gradient import PolicyGradient, PolicyGradientOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, StepTargets, Trajectories
from accord_trainer.model.optimizer import Group
from accord_trainer.model.policy import Outputs, ValueHead
from accord_trainer.objectives.advantages import gae, whiten
from accord_trainer.objectives.policy_loss import value_loss_sum


class PpoOptions(PolicyGradientOptions):
    """Options of `ppo`, in addition to those of every policy-gradient algorithm."""

    value_learning_rate: float = Field(1e-3, gt=0, description="Learning rate of a value head on the policy's trunk.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="Learning rate of a separate critic (critic_init).")
    value_head_init: ValueHead = Field(
        "zeros", description="Weights of a new head on the trunk: 0, or N(0, 1 / sqrt(d + 1)) as in a reward model."
    )
    value_coefficient: float = Field(0.1, ge=0, description="Weight of the value loss relative to the policy loss.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of a later token's reward.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of GAE.")
    value_clip: float | None = Field(0.2, gt=0, description="Bound of the change from the old value; null: none.")
    whiten_advantages: bool = Field(True, description="Normalise advantages to mean 0 and variance 1 over the batch.")
    whiten_rewards: bool = Field(False, description="Scale token rewards to variance 1, keeping the mean.")
    bootstrap_truncated: bool = Field(
        False,
        description="End a response that was cut off with the critic's value instead of 0. For scores of the text so "
        "far; a score that already judges the whole answer would be counted twice.",
    )
    critic_warmup_steps: int = Field(0, ge=0, description="Number of first steps in which only the critic learns.")


class PPO(PolicyGradient):
    """The algorithm `ppo`. Learns from scored samples of the current version."""

    options_type = PpoOptions
    critic = True
    options: PpoOptions

    def compute_advantages(self, data: Trajectories, inputs: AdvantageInputs) -> Advantages:
        options, mask_BR = self.options, data.mask_BR
        rewards_BR = inputs.rewards_BR
        if options.whiten_rewards:
            rewards_BR = whiten(rewards_BR, mask_BR, shift_mean=False)
        bootstrap_B = None
        if options.bootstrap_truncated:
            bootstrap_B = torch.where(data.truncated_B, inputs.old.final_value_B, 0.0)
        advantages_BR, returns_BR = gae(
            rewards_BR,
            inputs.old.values_BR,
            mask_BR,
            gamma=options.gamma,
            lam=options.gae_lambda,
            bootstrap_B=bootstrap_B,
        )
        return Advantages(whiten(advantages_BR, mask_BR) if options.whiten_advantages else advantages_BR, returns_BR)

    def value_loss(self, out: Outputs, step_targets: StepTargets, mask_BR: Tensor) -> Tensor | None:
        assert step_targets.returns_BR is not None
        old_BR, returns_BR = step_targets.old.values_BR[out.members], step_targets.returns_BR[out.members]
        return value_loss_sum(out.values_BR, old_BR, returns_BR, mask_BR, clip=self.options.value_clip)

    def warming(self, context: StepContext) -> bool:
        return context.version < self.options.critic_warmup_steps

    @staticmethod
    def value_head(options: PpoOptions) -> ValueHead:
        return options.value_head_init

    def groups(self) -> dict[str, Group]:
        rate = self.options.critic_learning_rate if self.policy.critic else self.options.value_learning_rate
        return {**super().groups(), "value": Group(rate, self.policy.value_parameters())}
