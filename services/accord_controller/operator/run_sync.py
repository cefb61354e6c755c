"""Keeps one Run object and the controller's run in agreement: executes the decisions of sync.py, and mirrors the run's
status and events.

Both are read again in every round, so outages of the operator, the controller or the watch do no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import accord
from accord.controller import v1 as controller_v1
from accord.errors import (
    AccordError,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from accord_controller.operator import resource, status
from accord_controller.operator.resource import Object
from accord_controller.operator.seen_runs import SeenRuns
from accord_controller.operator.status_writer import StatusWriter
from accord_controller.operator.sync import (
    FINAL,
    Accept,
    Create,
    Hold,
    Pause,
    Refuse,
    Remember,
    Resume,
    RewriteSpec,
    Update,
    is_settled,
    sync,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
# Reasons for which an edit can never succeed.
FIXED = ("NOT_EDITABLE", "RUN_ENDED")


class RunSync:
    """Syncs one Run, in its own task."""

    def __init__(
        self, body: Object, client: accord.Client, writer: StatusWriter, seen_runs: SeenRuns, data_dir: Path
    ) -> None:
        self._body = body
        self._client = client
        self._writer = writer
        self._seen_runs = seen_runs
        self._data_dir = data_dir
        self._edited = asyncio.Event()
        self._last_event = 0  # the sequence number of the last event that was posted
        # The last generation that this or an earlier operator acted on.
        self._seen_generation = int(body.get("status", {}).get("observedGeneration", 0))

    @property
    def name(self) -> str:
        """The name of the run and of the object."""
        return str(self._body["metadata"]["name"])

    def see(self, body: Object) -> None:
        """Handles a change of the object, perhaps only of its status."""
        edited = body["metadata"]["generation"] != self._body["metadata"]["generation"]
        self._body = body
        if edited:
            self._edited.set()

    async def keep(self) -> None:
        """Syncs until cancelled."""
        while True:
            try:
                self._edited.clear()
                await self._round(self._body)
            except (Unavailable, DeadlineExceeded, FailedPrecondition) as error:
                log.warning("run %s: %s", self.name, error.message)
                await self._wait_for_edit(RETRY_SECONDS)
            except AccordError as error:
                log.warning("run %s: %s", self.name, error)
                await self._wait_for_edit(5 * RETRY_SECONDS)
            except Exception:
                log.exception("run %s: internal error in the operator", self.name)
                await self._wait_for_edit(5 * RETRY_SECONDS)

    async def end(self) -> None:
        """Cancels the run because its object was deleted. Promoted models are kept."""
        try:
            await self._client.runs.cancel(self.name)
        except NotFound:
            return
        except FailedPrecondition as error:
            if error.reason != "RUN_ENDED":
                raise

    async def _round(self, body: Object) -> None:
        """Syncs this version of the object, then mirrors the run until either of them changes."""
        try:
            wanted = resource.run_of(body, self._data_dir)
            run = await self._find()
        except InvalidArgument as error:
            await self._refuse(body, Refuse(error.reason or "InvalidSpec", error.message))
            return
        report: list[Object] = []
        for action in sync(body, wanted, run, self._seen_generation):
            match action:
                case Refuse():
                    await self._refuse(body, action)
                    return
                case Hold():
                    await self._writer.show(body, {"state": "Suspended"}, [])
                    await self._edited.wait()
                    return
                case Remember():
                    await self._seen_runs.add(self.name, body["metadata"]["uid"])
                case Create():
                    await self._create(body, action)
                    return  # the next round reads the run
                case Accept():
                    report.append(status.condition(status.ACCEPTED, True, "Created", "the controller accepted the run"))
                case Update() | RewriteSpec():
                    report += await self._edit(body, action)
                case Pause():
                    await self._client.runs.pause(self.name)
                case Resume():
                    await self._client.runs.resume(self.name)
        self._seen_generation = body["metadata"]["generation"]
        run = await self._client.runs.get(self.name)
        await self._writer.show(body, status.status_of(run), [*status.of_state(run.status), *report])
        await self._mirror(body)
        run = await self._client.runs.get(self.name)
        await self._writer.show(body, status.status_of(run), status.of_state(run.status))
        while is_settled(body, run) and not self._edited.is_set():
            await self._wait_for_edit(None if run.status.state in FINAL else RETRY_SECONDS)
            run = await self._client.runs.get(self.name)

    async def _find(self) -> controller_v1.Run | None:
        try:
            return await self._client.runs.get(self.name)
        except NotFound:
            return None

    async def _create(self, body: Object, action: Create) -> None:
        try:
            await self._client.runs.create(action.run, request_id=action.request_id)
        except (InvalidArgument, AlreadyExists) as error:
            await self._refuse(body, Refuse(error.reason or "InvalidSpec", error.message))

    async def _edit(self, body: Object, action: Update | RewriteSpec) -> list[Object]:
        """Edits the run or the object; returns the condition that reports it."""
        try:
            if isinstance(action, RewriteSpec):
                await self._writer.rewrite_spec(body, action.patch)
                return []
            await self._client.runs.update(action.run, request_id=action.request_id)
        except (InvalidArgument, FailedPrecondition) as error:
            if error.reason == "SWAP_UNDER_WAY":
                raise
            hint = "Restore the previous value, or apply a Run with another name" if error.reason in FIXED else ""
            message = f"{error.message}. {hint}".rstrip(". ")
            await self._writer.warn(body, "EditRefused", message)
            return [status.condition(status.ACCEPTED, False, error.reason or "EditRefused", message)]
        return [status.condition(status.ACCEPTED, True, "Edited", "the controller accepted the edit")]

    async def _refuse(self, body: Object, refusal: Refuse) -> None:
        """Reports a refusal, then waits for an edit."""
        accepted = status.condition(status.ACCEPTED, False, refusal.reason, refusal.message)
        await self._writer.warn(body, accepted["reason"], refusal.message)
        await self._writer.show(body, {"state": "Refused", "message": refusal.message}, [accepted])
        await self._edited.wait()

    async def _mirror(self, body: Object) -> None:
        """Posts events as they arrive, until the run is no longer active, or the object or the run is edited."""
        self._last_event = max(self._last_event, int(body.get("status", {}).get("lastEvent", 0)))
        events = self._client.runs.watch(self.name, after_sequence=self._last_event)
        async with aclosing(events) as stream:  # type: ignore[type-var]
            async for batch in _batches(stream, self._edited):
                for event in batch:
                    await self._writer.post_event(body, event)
                run = await self._client.runs.get(self.name)
                figures = [status.figures_of(event.metrics) for event in batch if event.kind == "step"]
                shown = {**status.status_of(run), "lastEvent": batch[-1].sequence, **(figures[-1] if figures else {})}
                changes = [change for event in batch for change in status.of_event(event)]
                await self._writer.show(body, shown, [*changes, *status.of_state(run.status)])
                self._last_event = batch[-1].sequence
                if any(event.kind == "edited" for event in batch):
                    return  # if it was edited over gRPC, the object must be edited too

    async def _wait_for_edit(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._edited.wait()
        except TimeoutError:
            return


async def _batches(
    stream: AsyncIterator[controller_v1.RunEvent], stop: asyncio.Event
) -> AsyncIterator[Sequence[controller_v1.RunEvent]]:
    """Yields the stream's events in batches of those that arrived together, until the stream ends or `stop` is set."""
    arrived: asyncio.Queue[controller_v1.RunEvent | BaseException | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async for event in stream:
                arrived.put_nowait(event)
            arrived.put_nowait(None)
        except AccordError as error:
            arrived.put_nowait(error)

    reader, stopped = asyncio.create_task(read()), asyncio.create_task(stop.wait())
    try:
        while True:
            first = asyncio.create_task(arrived.get())
            await asyncio.wait([first, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                first.cancel()
                return
            found = [first.result()]
            while not arrived.empty():
                found.append(arrived.get_nowait())
            batch = [event for event in found if isinstance(event, controller_v1.RunEvent)]
            if batch:
                yield batch
            if not isinstance(found[-1], controller_v1.RunEvent):
                if isinstance(found[-1], BaseException):
                    raise found[-1]
                return
    finally:
        reader.cancel()
        stopped.cancel()
