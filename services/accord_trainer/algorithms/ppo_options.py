"""What PPO can be told. The defaults are a setting that was seen to learn (SmolLM2-135M, 32 samples a step)."""

from __future__ import annotations

from pydantic import Field

from accord_trainer.options import AlgorithmOptions


class PpoOptions(AlgorithmOptions):
    """Options of `ppo`; those of every algorithm besides."""

    value_learning_rate: float = Field(1e-3, gt=0, description="Of a value head on the policy's trunk.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="Of a critic of its own (critic_init).")
    value_coefficient: float = Field(0.1, ge=0, description="The value loss's weight beside the policy loss.")
    epochs: int = Field(2, ge=1, description="Passes over the batch.")
    minibatch_size: int = Field(16, ge=1, description="Samples for each optimizer update, about.")
    max_row_tokens: int = Field(1024, ge=1, description="The longest row that responses to one prompt are packed into.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of a later token's reward.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of GAE.")
    kl_coefficient: float = Field(
        0.05, ge=0, description="Penalty for each nat of KL to the reference; the start of it."
    )
    kl_target: float | None = Field(
        None, gt=0, description="Nats a response to steer the coefficient to; unset: fixed."
    )
    kl_horizon: float = Field(10_000.0, gt=0, description="Episodes over which the steering acts.")
    clip: float = Field(0.2, gt=0, description="Bound of the probability ratio, below and above.")
    clip_high: float | None = Field(None, gt=0, description="Another bound above; unset: as below.")
    dual_clip: float | None = Field(None, gt=1, description="Floor of the objective where the advantage is negative.")
    value_clip: float | None = Field(0.2, gt=0, description="Bound of the value's move from the old one; null: none.")
    entropy_coefficient: float = Field(0.0, ge=0, description="Bonus for each nat of entropy.")
    whiten_advantages: bool = Field(True, description="Advantages to mean 0 and variance 1 over the batch.")
    whiten_rewards: bool = Field(False, description="Token rewards to variance 1, mean kept.")
    missing_eos_penalty: float = Field(0.0, ge=0, description="Taken from the score of a response that was cut off.")
    bootstrap_truncated: bool = Field(
        False,
        description="End a response that was cut off with the critic's value instead of 0. For scores of what has been "
        "said so far; where the score already judges the whole answer, it would be counted twice.",
    )
    importance_cap: float | None = Field(
        2.0, gt=0, description="Cap of the importance weight old / rollout policy of each token; null: no weight."
    )
    kl_stop: float | None = Field(None, gt=0, description="Stop the epochs when a minibatch's approx_kl exceeds it.")
    critic_warmup_steps: int = Field(0, ge=0, description="First steps in which only the critic learns.")
