"""The operator's pages of runs: state, curves, samples, gates, cost; pause, resume, cancel, swap the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.responses import Response as Reply
from starlette.routing import Route

from accord.controller import v1 as controller_v1
from accord.errors import AccordError, NotFound
from accord.names import stage_name, stage_title, state_name
from accord.report.json_form import report_json
from accord.report.report import build_report
from accord.report.text import STAGE_ORDER, stage_order
from accord_console.annotation import rendering
from accord_console.pages.operating import page, posted, services
from accord_console.web import console_of, go, operator_of

# An idle stream sends comments, so that dead connections are noticed.
HEARTBEAT_SECONDS = 15.0
# The number of events on a run's page, newest first.
SHOWN_EVENTS = 40


async def overview(request: Request) -> Reply:
    """All runs, newest first."""
    client = await services(request, "controller")
    runs = [run async for run in client.runs.list(timeout=_seconds(request))]
    return page(request, "runs.html", "/runs", runs=[_row(run) for run in runs])


async def show(request: Request) -> Reply:
    """One run."""
    client = await services(request, "controller")
    run = await client.runs.get(request.path_params["run"], timeout=_seconds(request))
    report = build_report(run)
    names = sorted({name for row in report.iterations for name in row.stage_seconds}, key=stage_order)
    return page(
        request,
        "run.html",
        "/runs",
        run=_row(run),
        etag=run.etag,
        report=report,
        stages=[(name, stage_title(name)) for name in STAGE_ORDER],
        cost=[(name, stage_title(name)) for name in names],
        used=[row for row in report.iterations if row.stage_used],
        longest=max((row.seconds for row in report.iterations), default=0.0) or 1.0,
        samples=[
            (rendering.visible(side.prompt), [(number, rendering.markdown(answer.response), answer.score)
                                              for number, answer in side.by_iteration])
            for side in report.side_by_side()
        ],
    )  # fmt: skip


async def data(request: Request) -> Reply:
    """The figures of a run's curves, and its newest events."""
    client = await services(request, "controller")
    name, seconds = request.path_params["run"], _seconds(request)
    events = [event async for event in client.runs.events(name, timeout=seconds)]
    found = report_json(build_report(await client.runs.get(name, timeout=seconds), events))
    for iteration in found["iterations"]:
        del iteration["samples"]  # the page has them
    found["events"] = [event_json(event) for event in events[-SHOWN_EVENTS:]]
    found["sequence"] = events[-1].sequence if events else 0
    return JSONResponse(found)


async def events(request: Request) -> Reply:
    """Server-sent events: the events of a run after `after`, or after the last one of a broken stream."""
    client = await services(request, "controller")
    after = request.headers.get("last-event-id") or request.query_params.get("after", "0")
    run = await client.runs.get(request.path_params["run"], timeout=_seconds(request))
    watch = client.runs.watch(run.run_id, after_sequence=int(after) if after.isdigit() else 0)
    return StreamingResponse(
        _stream(watch, console_of(request).draining),
        media_type="text/event-stream",
        headers={"x-accel-buffering": "no"},
    )


async def _stream(watch: AsyncIterator[controller_v1.RunEvent], draining: asyncio.Event) -> AsyncIterator[str]:
    """Yields events as they arrive, a comment while there are none, and `end` when the run is no longer active. Also
    ends while draining. Errors are sent as `trouble`, and the page reconnects."""
    ending = asyncio.create_task(draining.wait())
    async with aclosing(watch) as source:  # type: ignore[type-var]
        coming: asyncio.Task[controller_v1.RunEvent | None] | None = None
        try:
            while not draining.is_set():
                coming = coming or asyncio.create_task(_next(source))
                done, _ = await asyncio.wait(
                    (coming, ending), timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if coming in done:
                    event = coming.result()
                    coming = None
                    if event is None:
                        yield "event: end\ndata: {}\n\n"
                        return
                    yield f"id: {event.sequence}\ndata: {json.dumps(event_json(event))}\n\n"
                elif not done:
                    yield ": nothing new\n\n"
        except AccordError as error:
            yield f"event: trouble\ndata: {json.dumps({'message': error.message})}\n\n"
        finally:
            for task in (ending, coming):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(task for task in (ending, coming) if task), return_exceptions=True)


async def act(request: Request) -> Reply:
    """Pauses, resumes or cancels a run, or swaps its engine."""
    name, action = request.path_params["run"], request.path_params["action"]
    form = await posted(request)
    client = await services(request, "controller")
    options: dict[str, Any] = {
        "request_id": f"console-{action}-{name}-{form.get('once', '')}",
        "timeout": _seconds(request),
    }
    if action == "pause":
        await client.runs.pause(name, **options)
    elif action == "resume":
        await client.runs.resume(name, **options)
    elif action == "cancel":
        await client.runs.cancel(name, etag=form.get("etag", ""), **options)
    elif action == "swap-engine":
        # An engine by its name, or by the address of a running rollout service.
        wanted = form.get("engine", "").strip()
        addresses = [wanted] if ":" in wanted else []
        await client.runs.swap_engine(name, "" if addresses else wanted, addresses=addresses, **options)
    else:
        raise NotFound(f"Runs can be paused, resumed and cancelled, and their engine swapped; {action!r} is unknown")
    return go(request, f"/runs/{name}")


def event_json(event: controller_v1.RunEvent) -> dict[str, Any]:
    """An event for scripts."""
    return {
        "sequence": event.sequence,
        "time": event.time.ToMilliseconds() / 1000,
        "iteration": event.iteration,
        "stage": stage_name(event.stage),
        "step": event.step,
        "total_steps": event.total_steps,
        "kind": event.kind,
        "message": event.message,
        "metrics": {name: value for name, value in event.metrics.items() if value == value},
    }


def _row(run: controller_v1.Run) -> dict[str, Any]:
    status = run.status
    state = state_name(status.state)
    best = [row for row in status.iterations if row.HasField("heldout_score")]
    return {
        "name": run.run_id,
        "state": state,
        "active": state in ("running", "pending"),
        "resumable": state in ("paused", "failed"),
        "ended": state in ("succeeded", "cancelled"),
        "iteration": status.iteration,
        "iterations": max(1, status.resolved_spec.iterations or run.spec.iterations),
        "stage": stage_name(status.stage),
        "stage_title": stage_title(stage_name(status.stage)),
        "step": status.step,
        "total_steps": status.total_steps,
        "message": status.message,
        "simulated": status.simulated_feedback,
        "algorithm": status.resolved_spec.policy.algorithm or "ppo",
        "first": best[0].heldout_score if best else None,
        "score": best[-1].heldout_score if best else None,
        "created": run.create_time.ToDatetime(),
        "seconds": sum(row.seconds for row in status.iterations),
        "engine": status.rollout.engine or status.resolved_spec.rollout.engine or "transformers",
        "swap": swap_progress(status),
    }


def swap_progress(status: controller_v1.RunStatus) -> str:
    """The progress of the last engine swap; empty if there was none or it succeeded."""
    if not status.swaps:
        return ""
    swap = status.swaps[-1]
    engine = swap.services.engine or ", ".join(swap.services.addresses)
    return {
        controller_v1.SWAP_STATE_PENDING: f"{engine} is being checked",
        controller_v1.SWAP_STATE_SHIFTED: "the previous engine is finishing its requests",
        controller_v1.SWAP_STATE_REFUSED: f"{engine} was refused: {swap.message}",
    }.get(swap.state, "")


async def _next(source: AsyncIterator[controller_v1.RunEvent]) -> controller_v1.RunEvent | None:
    return await anext(source, None)


def _seconds(request: Request) -> float:
    operator_of(request)
    return console_of(request).settings.call_seconds


routes = [
    Route("/runs", overview),
    Route("/runs/{run}", show),
    Route("/runs/{run}/data", data),
    Route("/runs/{run}/events", events),
    Route("/runs/{run}/{action}", act, methods=["POST"]),
]
