"""What PPO can be told. The defaults are a setting that was seen to learn (SmolLM2-135M, 32 samples a step)."""

from __future__ import annotations

from pydantic import Field

from accord_trainer.algorithms.policy_gradient_options import PolicyGradientOptions
from accord_trainer.model.policy import ValueHead


class PpoOptions(PolicyGradientOptions):
    """Options of `ppo`; those of every policy-gradient algorithm besides."""

    value_learning_rate: float = Field(1e-3, gt=0, description="Of a value head on the policy's trunk.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="Of a critic of its own (critic_init).")
    value_head_init: ValueHead = Field(
        "zeros", description="Weights of a fresh head on the trunk: 0, or N(0, 1 / sqrt(d + 1)) as a reward model's."
    )
    value_coefficient: float = Field(0.1, ge=0, description="The value loss's weight beside the policy loss.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of a later token's reward.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of GAE.")
    value_clip: float | None = Field(0.2, gt=0, description="Bound of the value's move from the old one; null: none.")
    whiten_advantages: bool = Field(True, description="Advantages to mean 0 and variance 1 over the batch.")
    whiten_rewards: bool = Field(False, description="Token rewards to variance 1, mean kept.")
    bootstrap_truncated: bool = Field(
        False,
        description="End a response that was cut off with the critic's value instead of 0. For scores of what has been "
        "said so far; where the score already judges the whole answer, it would be counted twice.",
    )
    critic_warmup_steps: int = Field(0, ge=0, description="First steps in which only the critic learns.")
