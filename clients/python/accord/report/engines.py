"""Which engines generated a run's samples, and from which point on."""

from __future__ import annotations

from collections.abc import Iterable

from accord.controller import v1 as controller_v1
from accord.names import stage_name
from accord.report.model import EngineUse

_TAKEN = (controller_v1.SWAP_STATE_SHIFTED, controller_v1.SWAP_STATE_DONE)


def engine_uses(run: controller_v1.Run, events: Iterable[controller_v1.RunEvent]) -> tuple[EngineUse, ...]:
    """The run's initial engine, then the engine of each swap, in order. The events determine when each swap was
    decided."""
    status = run.status
    decided = {int(e.metrics.get("swap", 0)): e for e in events if e.kind in ("swap_shifted", "swap_refused")}
    found = [EngineUse(_described(_first(status)))]
    for swap in status.swaps:
        event = decided.get(swap.number)
        found.append(
            EngineUse(
                _described(swap.services),
                taken=swap.state in _TAKEN,
                reason=(swap.reason or "REFUSED") if swap.state == controller_v1.SWAP_STATE_REFUSED else "",
                iteration=event.iteration if event else None,
                stage=stage_name(event.stage) if event else "",
                step=event.step if event else 0,
            )
        )
    return tuple(found)


def _first(status: controller_v1.RunStatus) -> controller_v1.RolloutServices:
    if status.swaps and status.swaps[0].HasField("replaces"):
        return status.swaps[0].replaces
    if status.HasField("rollout") and not status.rollout.swap:
        return status.rollout
    wanted = status.resolved_spec.rollout
    return controller_v1.RolloutServices(engine=wanted.engine, replicas=wanted.replicas)


def _described(services: controller_v1.RolloutServices) -> str:
    size = len(services.addresses) or services.replicas
    name = services.engine or "transformers"
    return f"{size} x {name}" if size > 1 else name
