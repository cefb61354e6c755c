"""The operator's pages of models: registry, lineage, and blind comparisons by people."""

from __future__ import annotations

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import Response as Reply
from starlette.routing import Route

import accord
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, InvalidArgument, NotFound
from accord.preference import v1 as preference_v1
from accord_console.comparisons.comparisons import Comparison, standing
from accord_console.pages.operating import page, posted, services
from accord_console.web import console_of, go

# The number of changes of active policies on the page, newest first.
SHOWN_CHANGES = 20
_KINDS = {
    controller_v1.MODEL_CHANGE_KIND_GATE: "the gate promoted",
    controller_v1.MODEL_CHANGE_KIND_PROMOTED: "promoted by hand:",
    controller_v1.MODEL_CHANGE_KIND_ROLLED_BACK: "rolled back to",
}


async def overview(request: Request) -> Reply:
    """The registry, the deployment history, and the comparisons."""
    client = await services(request, "controller")
    console = console_of(request)
    found = [model async for model in client.models.list(timeout=console.settings.call_seconds)]
    changes: list[tuple[controller_v1.ModelChange, str]] = []
    async for change in client.models.changes(timeout=console.settings.call_seconds):
        changes.append((change, _KINDS.get(change.kind, "")))
        if len(changes) == SHOWN_CHANGES:
            break
    comparisons = console.comparisons.all()
    if comparisons:
        client = await services(request, "controller", "preference")
    return page(
        request,
        "models.html",
        "/models",
        models=found,
        changes=changes,
        comparisons=[await _shape(client, comparison) for comparison in comparisons],
    )


async def show(request: Request) -> Reply:
    """A model and its lineage."""
    client = await services(request, "controller")
    seconds = console_of(request).settings.call_seconds
    model = await client.models.get(request.path_params["model"], timeout=seconds)
    try:
        lineage, unknown = await client.models.lineage(model.name, timeout=seconds), ""
    except AccordError as error:  # the model can be shown without its lineage
        lineage, unknown = None, error.message
    return page(request, "model.html", "/models", model=model, lineage=lineage, unknown=unknown)


async def change(request: Request) -> Reply:
    """Makes a model the active policy, or rolls back from it."""
    name, action = request.path_params["model"], request.path_params["action"]
    form = await posted(request)
    client = await services(request, "controller")
    options: dict[str, Any] = {
        "request_id": f"console-{action}-{name}-{form.get('once', '')}",
        "reason": form.get("reason", ""),
        "operator": "console",  # operators share one token and cannot be distinguished
        "timeout": console_of(request).settings.call_seconds,
    }
    if action == "promote":
        await client.models.promote(name, **options)
    elif action == "rollback":
        model = await client.models.get(name, timeout=options["timeout"])
        await client.models.roll_back(model.run_id, in_force=model.name, **options)
    else:
        raise NotFound(f"Models can be promoted and rolled back; {action!r} is unknown")
    return go(request, "/models")


async def compare(request: Request) -> Reply:
    """Starts a comparison."""
    form = await posted(request)
    await console_of(request).comparison_runner.start(
        form.get("first", ""),
        form.get("second", ""),
        prompts=int(_number(form, "prompts")),
        redundancy=int(_number(form, "redundancy")),
        max_new_tokens=int(_number(form, "max_new_tokens")),
        temperature=_number(form, "temperature"),
    )
    return go(request, "/models")


async def _shape(client: accord.Client, comparison: Comparison) -> dict[str, Any]:
    """A comparison with its current result."""
    records = []
    if comparison.state == "open" and comparison.tasks:
        people = [preference_v1.ANNOTATOR_KIND_HUMAN]
        wanted = preference_v1.SnapshotFilter(queues=[comparison.queue], annotator_kinds=people)
        source = client.preferences.export_records(preference_v1.SNAPSHOT_KIND_PREFERENCES, filter=wanted)
        records = [record async for record in source]
    return {"asked": comparison, "standing": standing(comparison, records)}


def _number(form: dict[str, str], field: str) -> float:
    try:
        number = float(form.get(field, ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidArgument.at(field, f"{form.get(field, '')!r} is not a number")
    return number


routes = [
    Route("/models", overview),
    Route("/models/compare", compare, methods=["POST"]),
    Route("/models/{model}", show),
    Route("/models/{model}/{action}", change, methods=["POST"]),
]
