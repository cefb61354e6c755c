"""What every on-policy policy-gradient algorithm can be told; each algorithm sets its own defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accord_trainer.objectives.off_policy import Bound, Level, Measure
from accord_trainer.options import AlgorithmOptions


class PolicyGradientOptions(AlgorithmOptions):
    """Options of ppo, grpo, rloo, reinforce++ and dapo; those of every algorithm besides."""

    epochs: int = Field(2, ge=1, description="Passes over the batch.")
    minibatch_size: int = Field(16, ge=1, description="Samples for each optimizer update, about.")
    max_row_tokens: int = Field(1024, ge=1, description="The longest row that responses to one prompt are packed into.")
    kl_coefficient: float = Field(
        0.05, ge=0, description="Penalty in the reward for each nat of KL to the reference; the start of it."
    )
    kl_target: float | None = Field(
        None, gt=0, description="Nats a response to steer the coefficient to; unset: fixed."
    )
    kl_horizon: float = Field(10_000.0, gt=0, description="Episodes over which the steering acts.")
    kl_loss_coefficient: float = Field(
        0.0, ge=0, description="Weight of the KL to the reference as a term of the loss."
    )
    kl_loss_estimator: Literal["k2", "k3"] = Field("k3", description="Estimator of that term.")
    clip: float = Field(0.2, gt=0, description="Bound of the probability ratio, below and above.")
    clip_high: float | None = Field(None, gt=0, description="Another bound above; unset: as below.")
    dual_clip: float | None = Field(None, gt=1, description="Floor of the objective where the advantage is negative.")
    loss_aggregation: Literal["token", "sequence", "constant"] = Field(
        "token",
        description="Mean over the minibatch's tokens; mean over responses of their token means; or sum over tokens "
        "divided by responses times max_new_tokens, so that length has no weight of its own.",
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="Bonus for each nat of entropy.")
    missing_eos_penalty: float = Field(0.0, ge=0, description="Taken from the score of a response that was cut off.")
    missing_eos_score: float | None = Field(
        None, description="What a response that was cut off scores, whatever it was given; unset: what it was given."
    )
    importance_cap: float | None = Field(
        2.0, gt=0, description="Cap of the importance weight old / rollout policy of each token; null: no weight."
    )
    importance_bound: Bound = Field(
        "truncate",
        description="A weight above the cap becomes the cap; or a token whose weight is above the cap or below 1 / cap "
        "gets none.",
    )
    importance_level: Level = Field(
        "token", description="Whose weight it is: the token's own, or the product over its whole response."
    )
    rejection_cap: float | None = Field(
        None,
        gt=1,
        description="Leave out responses whose ratio old / rollout is outside 1 / cap .. cap; unset: none is left out.",
    )
    rejection_measure: Measure = Field(
        "product",
        description="What a response's ratio is: the product over its tokens, their geometric mean, or that of the "
        "token that differs most.",
    )
    kl_stop: float | None = Field(None, gt=0, description="Stop the epochs when a minibatch's approx_kl exceeds it.")
