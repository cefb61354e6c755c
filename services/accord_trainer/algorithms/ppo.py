"""Proximal policy optimisation on single responses: Schulman et al. 2017, as Ziegler et al. 2019 use it on language.

Advantages by GAE (arXiv 1506.02438) from a critic, which learns beside the policy with a clipped loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accord_trainer.algorithm import StepContext
from accord_trainer.algorithms.policy_gradient import PolicyGradient
from accord_trainer.algorithms.ppo_options import PpoOptions
from accord_trainer.algorithms.step_targets import AdvantageInputs, Advantages, StepTargets
from accord_trainer.data.trajectories import Trajectories
from accord_trainer.model.optimizer import Group
from accord_trainer.model.policy import Outputs, ValueHead
from accord_trainer.objectives.advantages import gae
from accord_trainer.objectives.value_loss import value_loss_sum
from accord_trainer.objectives.whitening import whiten


class PPO(PolicyGradient):
    """The algorithm `ppo`. Learns from scored samples of the current version."""

    options_type = PpoOptions
    critic = True
    options: PpoOptions

    def estimate(self, data: Trajectories, draft: AdvantageInputs) -> Advantages:
        options, mask_BR = self.options, data.mask_BR
        rewards_BR = draft.rewards_BR
        if options.whiten_rewards:
            rewards_BR = whiten(rewards_BR, mask_BR, shift_mean=False)
        bootstrap_B = None
        if options.bootstrap_truncated:
            bootstrap_B = torch.where(data.truncated_B, draft.old.final_value_B, 0.0)
        advantages_BR, returns_BR = gae(
            rewards_BR,
            draft.old.values_BR,
            mask_BR,
            gamma=options.gamma,
            lam=options.gae_lambda,
            bootstrap_B=bootstrap_B,
        )
        return Advantages(whiten(advantages_BR, mask_BR) if options.whiten_advantages else advantages_BR, returns_BR)

    def value_loss(self, out: Outputs, targets: StepTargets, mask_BR: Tensor) -> Tensor | None:
        assert targets.returns_BR is not None
        old_BR, returns_BR = targets.old.values_BR[out.members], targets.returns_BR[out.members]
        return value_loss_sum(out.values_BR, old_BR, returns_BR, mask_BR, clip=self.options.value_clip)

    def warming(self, context: StepContext) -> bool:
        return context.version < self.options.critic_warmup_steps

    @staticmethod
    def value_head(options: PpoOptions) -> ValueHead:
        return options.value_head_init

    def groups(self) -> dict[str, Group]:
        rate = self.options.critic_learning_rate if self.policy.critic else self.options.value_learning_rate
        return {**super().groups(), "value": Group(rate, self.policy.value_parameters())}
