"""The records of a run's engine swaps: requested, decided, done. Each state is a fact of the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, FieldViolation, InvalidArgument
from accord_controller.clients.rollout_services import current_services, initial_services
from accord_controller.ledger.keys import ENDED, key
from accord_controller.ledger.recorder import NewEvent, RunRecorder

IN_PROGRESS = (controller_v1.SWAP_STATE_PENDING, controller_v1.SWAP_STATE_SHIFTED)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/]+):\d{1,5}")
# The key under which each state is recorded, and the kind of its event.
_RECORDED = {
    controller_v1.SWAP_STATE_PENDING: ("asked", "swap_asked"),
    controller_v1.SWAP_STATE_SHIFTED: ("decided", "swap_shifted"),
    controller_v1.SWAP_STATE_REFUSED: ("decided", "swap_refused"),
    controller_v1.SWAP_STATE_DONE: ("done", "swap_done"),
}


def check(
    services: controller_v1.RolloutServices,
    spec: controller_v1.RunSpec,
    engines: Sequence[str] | None,
    *,
    startable: bool,
    at: str = "services",
) -> None:
    """Raises InvalidArgument with every problem of the services requested in the field `at`. `engines`: the available
    engines; `startable`: whether a launcher can start them. If it cannot: FailedPrecondition, NO_LAUNCHER."""
    problems = list(_problems(services, spec, engines, at))
    if problems:
        raise InvalidArgument(
            "; ".join(f"{problem.field}: {problem.description}" for problem in problems),
            reason="INVALID_SWAP",
            violations=problems,
        )
    if not startable and not services.addresses:
        raise FailedPrecondition(
            "This controller starts no services (--launcher none). Start the engine yourself and pass its address to "
            "SwapEngine",
            reason="NO_LAUNCHER",
        )


def in_progress(status: controller_v1.RunStatus) -> controller_v1.EngineSwap | None:
    """The swap that has not ended yet."""
    if status.swaps and status.swaps[-1].state in IN_PROGRESS:
        found = controller_v1.EngineSwap()
        found.CopyFrom(status.swaps[-1])
        return found
    return None


def previous_services(status: controller_v1.RunStatus, number: int) -> controller_v1.RolloutServices:
    """The services that swap `number` replaces."""
    if status.swaps[number - 1].HasField("replaces"):
        return status.swaps[number - 1].replaces
    # Recorded by a controller of an earlier release, which did not store the services.
    effective = (controller_v1.SWAP_STATE_SHIFTED, controller_v1.SWAP_STATE_DONE)
    earlier = [swap.services for swap in status.swaps if swap.number < number and swap.state in effective]
    return earlier[-1] if earlier else initial_services(status.resolved_spec)


def check_not_ended(recorder: RunRecorder) -> None:
    """FailedPrecondition, RUN_ENDED, if the run will generate no more samples. A failed run may be resumed."""
    state = recorder.status.state
    if state in ENDED and state != controller_v1.RUN_STATE_FAILED:
        raise FailedPrecondition(f"Run {recorder.run_id} has ended and generates no more samples", reason="RUN_ENDED")


async def request(
    recorder: RunRecorder, request_id: str, services: controller_v1.RolloutServices
) -> controller_v1.EngineSwap:
    """Records the request for a swap, once for each request_id. FailedPrecondition, RUN_ENDED, SWAP_UNDER_WAY."""
    status = recorder.status
    for known in status.swaps:
        if known.request_id == request_id:
            return known
    check_not_ended(recorder)
    if (other := in_progress(status)) is not None:
        raise FailedPrecondition(
            f"Swap {other.number} of run {recorder.run_id}, to {described(other.services)}, is still in progress. Wait "
            "until it has finished",
            reason="SWAP_UNDER_WAY",
            metadata={"swap": str(other.number)},
        )
    swap = controller_v1.EngineSwap(
        number=len(status.swaps) + 1,
        request_id=request_id,
        services=services,
        state=controller_v1.SWAP_STATE_PENDING,
        replaces=current_services(status),
    )
    swap.ask_time.GetCurrentTime()
    swap.services.swap = swap.number
    if not swap.services.addresses:
        swap.services.replicas = swap.services.replicas or max(1, current_services(status).replicas)
    await record(recorder, swap, f"swap to {described(swap.services)} requested")
    return swap


async def record(recorder: RunRecorder, swap: controller_v1.EngineSwap, message: str) -> None:
    """Makes a state of a swap durable: fact, status and event together, or none of them after an error."""
    earlier = controller_v1.RunStatus()
    earlier.CopyFrom(recorder.status)
    name, kind = _RECORDED[swap.state]
    if swap.number > len(recorder.status.swaps):
        recorder.status.swaps.add()
    recorder.status.swaps[swap.number - 1].CopyFrom(swap)
    if swap.state == controller_v1.SWAP_STATE_SHIFTED:
        recorder.status.rollout.CopyFrom(swap.services)
    try:
        await recorder.record_beside(
            [recorder.ledger.message_entry(key(0, "swap", swap.number, name), swap)],
            NewEvent(kind, message, {"swap": float(swap.number)}),
        )
    except BaseException:
        recorder.status.CopyFrom(earlier)
        raise


def described(services: controller_v1.RolloutServices) -> str:
    """For messages: `vllm`, `2 x transformers`, `sglang at 10.0.0.1:7001`."""
    if services.addresses:
        return f"{services.engine or 'the engine'} at {', '.join(services.addresses)}"
    return f"{services.replicas} x {services.engine}" if services.replicas > 1 else services.engine


def _problems(
    services: controller_v1.RolloutServices, spec: controller_v1.RunSpec, engines: Sequence[str] | None, at: str
) -> Iterable[FieldViolation]:
    if not services.addresses and not services.engine:
        yield FieldViolation(at, "must name an engine to start, or the addresses of running services")
    if services.addresses:
        for field, given in (("replicas", services.replicas), ("engine_options", services.engine_options.fields)):
            if given:
                yield FieldViolation(
                    f"{at}.{field}", "applies only to services that are started, not to given addresses"
                )
    elif engines is not None and services.engine and services.engine not in engines:
        yield FieldViolation(
            f"{at}.engine", f"unknown engine {services.engine!r}; available: {', '.join(engines) or 'none'}"
        )
    for index, address in enumerate(services.addresses):
        if not _ADDRESS.fullmatch(address):
            yield FieldViolation(f"{at}.addresses[{index}]", f"{address!r} is not host:port")
        elif address in services.addresses[:index]:
            yield FieldViolation(f"{at}.addresses[{index}]", f"{address} is named twice")
    if services.replicas < 0:
        yield FieldViolation(f"{at}.replicas", f"must be at least 1, not {services.replicas}")
    if spec.deterministic and max(services.replicas, len(services.addresses)) > 1:
        yield FieldViolation(at, "a deterministic run uses exactly one rollout service")
