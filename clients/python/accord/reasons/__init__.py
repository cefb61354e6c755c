"""The catalogue of error reasons: the meaning and remedy of each. docs/reference/errors.md is generated from it.

A reason is `ErrorInfo.reason` of an error, `AccordError.reason` in the SDK, or `Failure.reason` inside an answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from accord.reasons import console, controller, general, models, preference, reward, rollout, runtime, sdk, trainer
from accord.reasons.reason import Reason

# Where services share a reason, the module of the part that they share has it.
REASONS: Mapping[str, Reason] = {
    **general.REASONS,
    **runtime.REASONS,
    **models.REASONS,
    **rollout.REASONS,
    **reward.REASONS,
    **preference.REASONS,
    **trainer.REASONS,
    **controller.REASONS,
    **console.REASONS,
    **sdk.REASONS,
}

__all__ = ["REASONS", "Reason"]
