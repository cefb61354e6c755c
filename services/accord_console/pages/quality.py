"""The operator's page of data quality: agreement, annotators, drift, flags; exclude, reinstate, withdraw."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response as Reply
from starlette.routing import Route

from accord.controller import v1 as controller_v1
from accord.errors import AccordError, InvalidArgument, NotFound
from accord.preference import v1 as preference_v1
from accord_console.annotation.form_parsing import FLAGS
from accord_console.pages.operating import page, posted, services
from accord_console.web import console_of, go

KINDS = {
    preference_v1.ANNOTATOR_KIND_HUMAN: "people",
    preference_v1.ANNOTATOR_KIND_SIMULATED: "simulated annotators",
    preference_v1.ANNOTATOR_KIND_MODEL: "model judges",
}
STATES = {
    preference_v1.ANNOTATOR_STATE_ACTIVE: "active",
    preference_v1.ANNOTATOR_STATE_EXCLUDED: "excluded",
    preference_v1.ANNOTATOR_STATE_WITHDRAWN: "withdrawn",
}
REASONS = {reason: text for text, reason in FLAGS.values()}
RESOLUTIONS = {
    "reopen": preference_v1.TASK_RESOLUTION_REOPEN,
    "cancel": preference_v1.TASK_RESOLUTION_CANCEL,
}
# A page shows the newest flags only.
MOST_FLAGS = 50


async def show(request: Request) -> Reply:
    """The quality of the feedback, optionally of one queue."""
    client = await services(request, "preference")
    queue = request.query_params.get("queue", "").strip()
    seconds = console_of(request).settings.call_seconds
    kinds = await client.annotators.quality(queues=[queue] if queue else [], timeout=seconds)
    flags = []
    async for flag in client.preferences.flags(queue=queue, timeout=seconds):
        flags.append(flag)
        if len(flags) == MOST_FLAGS:
            break
    return page(
        request,
        "quality.html",
        "/quality",
        queue=queue,
        kinds=[(KINDS.get(kind.kind, "others"), kind) for kind in kinds],
        states=STATES,
        flags=flags,
        reasons=REASONS,
        flagged=preference_v1.TASK_STATE_FLAGGED,
    )


async def act(request: Request) -> Reply:
    """Excludes, reinstates or withdraws an annotator. A withdrawal shows the models that learned from the feedback."""
    action = request.path_params["action"]
    form = await posted(request)
    client = await services(request, "preference")
    seconds = console_of(request).settings.call_seconds
    who, reason = _annotator(form), form.get("reason", "").strip()
    request_id = f"console-{action}-{who.annotator_id}-{form.get('once', '')}"
    if action == "exclude":
        await client.annotators.exclude(who, reason=reason, request_id=request_id, timeout=seconds)
    elif action == "reinstate":
        await client.annotators.reinstate(who, request_id=request_id, timeout=seconds)
    elif action == "withdraw":
        done = await client.annotators.withdraw(who, reason=reason, request_id=request_id, timeout=seconds)
        models, unknown = await _trained(request, [use.snapshot.digest for use in done.snapshots])
        return page(
            request, "withdrawn.html", "/quality", name=who.annotator_id, uses=done.snapshots, models=models,
            unknown=unknown,
        )  # fmt: skip
    else:
        raise NotFound(f"Annotators can be excluded, reinstated and withdrawn; {action!r} is unknown")
    return go(request, "/quality")


async def _trained(request: Request, digests: list[str]) -> tuple[Sequence[controller_v1.TrainedModel], str]:
    """The models that learned from these snapshots, or the reason why the controller does not answer. The withdrawal is
    complete in both cases."""
    if not digests:
        return (), ""
    try:
        client = await services(request, "controller")
        return await client.models.trained_on(digests, timeout=console_of(request).settings.call_seconds), ""
    except AccordError as error:
        return (), error.message


async def resolve(request: Request) -> Reply:
    """Reopens a flagged task, or cancels it."""
    form = await posted(request)
    client = await services(request, "preference")
    chosen = RESOLUTIONS.get(form.get("resolution", ""))
    if chosen is None:
        raise InvalidArgument.at("resolution", "must be reopen or cancel")
    await client.preferences.resolve_task(
        form.get("task", ""),
        chosen,
        request_id=f"console-resolve-{form.get('task', '')}-{form.get('once', '')}",
        timeout=console_of(request).settings.call_seconds,
    )
    return go(request, "/quality")


def _annotator(form: dict[str, str]) -> preference_v1.Annotator:
    """The annotator of a form."""
    try:
        kind = preference_v1.AnnotatorKind.ValueType(int(form.get("kind", "")))
    except ValueError as error:
        raise InvalidArgument.at("kind", "this form is damaged; please reload the page") from error
    return preference_v1.Annotator(annotator_id=form.get("annotator", ""), kind=kind)


routes = [
    Route("/quality", show),
    Route("/quality/resolve", resolve, methods=["POST"]),
    Route("/quality/{action}", act, methods=["POST"]),
]
