"""A deterministic run requires an engine that computes the same way as when the run began."""

from __future__ import annotations

from accord.errors import FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord_controller.ledger import keys
from accord_controller.stages.context import StageContext


async def check_same_engine(context: StageContext) -> None:
    """FailedPrecondition, OTHER_ENGINE, if the engine of a deterministic run computes differently than when the run
    began: later samples would differ from those of an uninterrupted run."""
    if not context.spec.deterministic:
        return
    initial = context.ledger.need(keys.ENGINE, rollout_v1.GetStatusResponse)
    current = await context.rollout.status()
    for field, flag in (("engine", "--engine"), ("compute_dtype", "--dtype"), ("compute_threads", "--threads")):
        before, found = getattr(initial, field), getattr(current, field)
        if before != found:
            raise FailedPrecondition(
                f"The rollout service has {field} {found}, but this deterministic run began with {before}. Start the "
                f"service with {flag} {before}",
                reason="OTHER_ENGINE",
                metadata={"field": field, "recorded": str(before), "found": str(found)},
            )
