"""Edits of a run's spec while the run goes on: what may change, what differs, and the swap that it asks for."""

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
# Where pods go: those that are made from then on follow it, and nothing is swapped.
PLACEMENT = "spec.placement"
_RANKS = f"{PLACEMENT}.trainer_ranks"
# What is compared as a whole: its fields are no fields of the spec.
_FREE = "google.protobuf.Struct"

# Looks at what is to draw, with the resolved spec and the field that asks for it.
Check = Callable[[controller_v1.RolloutServices, controller_v1.RunSpec, str], None]


async def edit(recorder: RunRecorder, request: controller_v1.UpdateRunRequest, check: Check) -> None:
    """Records an edit and the swap that it asks for. InvalidArgument; FailedPrecondition, RUN_ENDED, SWAP_UNDER_WAY."""
    fields, asked = _edited(recorder.asked, request)
    _check_editable(fields)
    if not fields:
        return
    records.check_goes_on(recorder)
    resolved = resolve(asked)
    if max(1, resolved.placement.trainer_ranks) != max(1, recorder.spec.placement.trainer_ranks):
        _check_editable([_RANKS])  # they would compute other weights
    if any(field in EDITABLE for field in fields):
        services = _to_draw(current_services(recorder.status), resolved.rollout, fields)
        edited = controller_v1.RunSpec()
        edited.CopyFrom(recorder.spec)
        edited.rollout.CopyFrom(resolved.rollout)
        check_numbers(edited)
        check(services, edited, "run.spec.rollout")
        # The swap first: who was cut off here and asks again finds what differs still, and the swap by its request_id.
        if not _draws(recorder.status, services):
            await records.ask(recorder, request.request_id, services)
    if asked != recorder.asked:
        await _record(recorder, request, asked, resolved, fields)


def _edited(
    before: controller_v1.RunSpec, request: controller_v1.UpdateRunRequest
) -> tuple[Sequence[str], controller_v1.RunSpec]:
    """The fields that are edited (`spec.rollout.engine`), and the spec as it is to be."""
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
    """Paths of the fields that two messages do not have in common, as deep as both have them."""
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
            f"{', '.join(field.removeprefix('spec.') for field in fixed)}: a run keeps that to its end; what may be "
            f"edited: {may}. For anything else start another run",
            reason="NOT_EDITABLE",
            violations=[FieldViolation(f"run.{field}", "a run keeps this to its end") for field in fixed],
        )


def _may_be_edited(field: str) -> bool:
    return field in EDITABLE or field == PLACEMENT or (field.startswith(f"{PLACEMENT}.") and field != _RANKS)


def _to_draw(
    now: controller_v1.RolloutServices, wanted: controller_v1.RolloutSpec, fields: Sequence[str]
) -> controller_v1.RolloutServices:
    """What is to draw: as edited, and for the rest as what draws now."""
    if now.addresses and _ENGINE not in fields:
        raise FailedPrecondition(
            f"the run draws from services that somebody else runs, at {', '.join(now.addresses)}: name the engine that "
            "is to be started, or give other addresses to SwapEngine",
            reason="GIVEN_ADDRESSES",
        )
    names = {field.rpartition(".")[2] for field in fields}
    engine = wanted.engine if "engine" in names else now.engine
    replicas = wanted.replicas if "replicas" in names or now.addresses else max(1, now.replicas)
    services = controller_v1.RolloutServices(engine=engine, replicas=replicas)
    # Options are for one engine: another one gets those of the spec.
    options = wanted if "engine_options" in names or engine != now.engine else now
    if options.HasField("engine_options"):
        services.engine_options.CopyFrom(options.engine_options)
    return services


def _draws(status: controller_v1.RunStatus, services: controller_v1.RolloutServices) -> bool:
    """Whether that is what draws, or is about to."""
    under_way = records.under_way(status)
    target = controller_v1.RolloutServices()
    target.CopyFrom(under_way.services if under_way is not None else current_services(status))
    target.swap = 0
    target.replicas = max(1, target.replicas)
    return target == services


async def _record(
    recorder: RunRecorder,
    request: controller_v1.UpdateRunRequest,
    asked: controller_v1.RunSpec,
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
            spec=asked,
        )
    except BaseException:
        recorder.spec.CopyFrom(before)
        raise
