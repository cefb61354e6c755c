"""The engine computes as it did when the run began: a deterministic run is held to that."""

from __future__ import annotations

from accord.errors import FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord_controller.ledger import keys
from accord_controller.stages.context import StageContext


async def check_same_engine(context: StageContext) -> None:
    """FailedPrecondition, OTHER_ENGINE, where a deterministic run meets an engine that computes in another way than the
    one that it began with: what is still to be sampled would come out differently than without the interruption."""
    if not context.spec.deterministic:
        return
    then = context.ledger.need(keys.ENGINE, rollout_v1.GetStatusResponse)
    now = await context.rollout.status()
    for field, flag in (("engine", "--engine"), ("compute_dtype", "--dtype"), ("compute_threads", "--threads")):
        before, found = getattr(then, field), getattr(now, field)
        if before != found:
            raise FailedPrecondition(
                f"the rollout service has {field} {found} now and had {before} when this deterministic run began; "
                f"start it with {flag} {before}",
                reason="OTHER_ENGINE",
                metadata={"field": field, "recorded": str(before), "found": str(found)},
            )
