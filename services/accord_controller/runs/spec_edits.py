"""Edits to an active run's spec: which fields may change, which differ, and the engine swap that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from accord.controller import v1 as controller_v1
from accord.errors import FailedPrecondition, FieldViolation, InvalidArgument
from accord_controller.clients.rollout_services import current_services
from accord_controller.engine_swap import records
from accord_controller.ledger.keys import key
from accord_controller.ledger.recorder import NewEvent, RunRecorder
from accord_controller.spec.defaults import resolve
from accord_controller.spec.validation import check_numbers

EDITABLE = ("spec.rollout.engine", "spec.rollout.replicas", "spec.rollout.engine_options")
_ENGINE, _, _OPTIONS = EDITABLE
# Pod placement: it applies to pods created after the edit and does not cause a swap.
PLACEMENT = "spec.placement"
_RANKS = f"{PLACEMENT}.trainer_ranks"
# Compared as a whole, because its fields are not fields of the spec.
_FREE = "google.protobuf.Struct"

# Checks the requested rollout services. Receives the resolved spec and the path of the field that requests them.
Check = Callable[[controller_v1.RolloutServices, controller_v1.RunSpec, str], None]


async def edit(recorder: RunRecorder, request: controller_v1.UpdateRunRequest, check: Check) -> None:
    """Records an edit and the swap that it causes. InvalidArgument; FailedPrecondition, RUN_ENDED, SWAP_UNDER_WAY."""
    fields, edited = _edited(recorder.requested, request)
    _check_editable(fields)
    if not fields:
        return
    records.check_not_ended(recorder)
    resolved = resolve(edited)
    if max(1, resolved.placement.trainer_ranks) != max(1, recorder.spec.placement.trainer_ranks):
        _check_editable([_RANKS])  # a different number of ranks would compute different weights
    if any(field in EDITABLE for field in fields):
        services = _edited_services(current_services(recorder.status), resolved.rollout, fields)
        effective = controller_v1.RunSpec()
        effective.CopyFrom(recorder.spec)
        effective.rollout.CopyFrom(resolved.rollout)
        check_numbers(effective)
        check(services, effective, "run.spec.rollout")
        # Record the swap first: a client that is cut off here and repeats the call still finds the difference, and
        # finds the swap by its request_id.
        if not _in_use(recorder.status, services):
            await records.request(recorder, request.request_id, services)
    if edited != recorder.requested:
        await _record(recorder, request, edited, resolved, fields)


def _edited(
    before: controller_v1.RunSpec, request: controller_v1.UpdateRunRequest
) -> tuple[Sequence[str], controller_v1.RunSpec]:
    """The edited fields (`spec.rollout.engine`) and the spec after the edit."""
    if not request.update_mask.paths:
        given = request.run.spec
        return list(_differences(resolve(before), resolve(given), "spec")), given
    fields = list(dict.fromkeys(request.update_mask.paths))
    source, target = controller_v1.Run(), controller_v1.Run(spec=before)
    source.CopyFrom(request.run)
    source.spec.rollout.SetInParent()
    taken = FieldMask(paths=[field for field in fields if _may_be_edited(field)])
    taken.MergeMessage(source, target, replace_message_field=True)
    after = target.spec
    if _ENGINE in fields and _OPTIONS not in fields and after.rollout.engine != before.rollout.engine:
        after.rollout.ClearField("engine_options")
    return fields, after


def _differences(one: Message, other: Message, at: str) -> Iterable[str]:
    """The paths of the fields in which two messages differ, as deep as both messages go."""
    for field in one.DESCRIPTOR.fields:
        mine, theirs, path = getattr(one, field.name), getattr(other, field.name), f"{at}.{field.name}"
        one_sided = field.has_presence and one.HasField(field.name) != other.HasField(field.name)
        if mine == theirs and not one_sided:
            continue
        deeper = field.message_type is not None and not field.is_repeated and field.message_type.full_name != _FREE
        if deeper and not one_sided:
            yield from _differences(mine, theirs, path)
        else:
            yield path


def _check_editable(fields: Iterable[str]) -> None:
    fixed = [field for field in fields if not _may_be_edited(field)]
    if fixed:
        may = ", ".join(field.removeprefix("spec.") for field in (*EDITABLE, PLACEMENT))
        raise InvalidArgument(
            f"{', '.join(field.removeprefix('spec.') for field in fixed)} cannot be changed after the run was created. "
            f"Editable: {may}. For anything else, start another run",
            reason="NOT_EDITABLE",
            violations=[
                FieldViolation(f"run.{field}", "cannot be changed after the run was created") for field in fixed
            ],
        )


def _may_be_edited(field: str) -> bool:
    return field in EDITABLE or field == PLACEMENT or (field.startswith(f"{PLACEMENT}.") and field != _RANKS)


def _edited_services(
    now: controller_v1.RolloutServices, wanted: controller_v1.RolloutSpec, fields: Sequence[str]
) -> controller_v1.RolloutServices:
    """The services after the edit. Fields that were not edited keep their current values."""
    if now.addresses and _ENGINE not in fields:
        raise FailedPrecondition(
            f"The run uses external rollout services at {', '.join(now.addresses)}. Set rollout.engine to start an "
            "engine instead, or pass other addresses to SwapEngine",
            reason="GIVEN_ADDRESSES",
        )
    names = {field.rpartition(".")[2] for field in fields}
    engine = wanted.engine if "engine" in names else now.engine
    replicas = wanted.replicas if "replicas" in names or now.addresses else max(1, now.replicas)
    services = controller_v1.RolloutServices(engine=engine, replicas=replicas)
    # Options belong to one engine. A different engine gets the options of the spec.
    options = wanted if "engine_options" in names or engine != now.engine else now
    if options.HasField("engine_options"):
        services.engine_options.CopyFrom(options.engine_options)
    return services


def _in_use(status: controller_v1.RunStatus, services: controller_v1.RolloutServices) -> bool:
    """Whether these services are in use or an open swap is bringing them in."""
    swap = records.in_progress(status)
    target = controller_v1.RolloutServices()
    target.CopyFrom(swap.services if swap is not None else current_services(status))
    target.swap = 0
    target.replicas = max(1, target.replicas)
    return target == services


async def _record(
    recorder: RunRecorder,
    request: controller_v1.UpdateRunRequest,
    edited: controller_v1.RunSpec,
    resolved: controller_v1.RunSpec,
    fields: Sequence[str],
) -> None:
    number = 1
    while key(0, "edit", number) in recorder.ledger:
        number += 1
    names = [field.removeprefix("spec.") for field in fields]
    before = controller_v1.RunSpec()
    before.CopyFrom(recorder.spec)
    recorder.spec.rollout.CopyFrom(resolved.rollout)
    recorder.spec.ClearField("placement")
    if resolved.HasField("placement"):
        recorder.spec.placement.CopyFrom(resolved.placement)
    try:
        await recorder.record_beside(
            [recorder.ledger.message_entry(key(0, "edit", number), request)],
            NewEvent("edited", f"edited: {', '.join(names)}"),
            spec=edited,
        )
    except BaseException:
        recorder.spec.CopyFrom(before)
        raise
