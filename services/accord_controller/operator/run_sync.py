"""One Run: what its object wants is asked of the controller, and what the controller's run does is shown in it.

Both are read anew at every turn, so it does not matter who was away meanwhile: operator, controller, or a watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
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
from accord_controller.operator import conditions, resource
from accord_controller.operator.resource import Object
from accord_controller.operator.seen_runs import SeenRuns
from accord_controller.operator.status_writer import StatusWriter

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
# A run may have been made for this object when it is not older than the object, clocks being what they are.
SAME_AGE_SECONDS = 60.0
OVER = (controller_v1.RUN_STATE_SUCCEEDED, controller_v1.RUN_STATE_CANCELLED)
# Reasons why an edit can never be done.
FIXED = ("NOT_EDITABLE", "RUN_ENDED")


class RunSync:
    """Looks after one Run from a task of its own."""

    def __init__(
        self, body: Object, client: accord.Client, board: StatusWriter, roster: SeenRuns, data_dir: Path
    ) -> None:
        self._body = body
        self._client = client
        self._board = board
        self._roster = roster
        self._data_dir = data_dir
        self._edited = asyncio.Event()
        self._told = 0  # the last event that was posted
        # The version of the spec that was acted on, by this operator or one before: later ones are edits, and where
        # there are none the run is right.
        self._generation = int(body.get("status", {}).get("observedGeneration", 0))

    @property
    def name(self) -> str:
        """The run's and the object's."""
        return str(self._body["metadata"]["name"])

    def see(self, body: Object) -> None:
        """The object has changed, perhaps only its status."""
        edited = body["metadata"]["generation"] != self._body["metadata"]["generation"]
        self._body = body
        if edited:
            self._edited.set()

    async def follow(self) -> None:
        """Works until it is cancelled."""
        while True:
            try:
                self._edited.clear()
                await self._turn()
            except (Unavailable, DeadlineExceeded, FailedPrecondition) as error:
                log.warning("run %s: %s", self.name, error.message)
                await self._pause(AGAIN_SECONDS)
            except AccordError as error:
                log.warning("run %s: %s", self.name, error)
                await self._pause(5 * AGAIN_SECONDS)
            except Exception:
                log.exception("run %s: fault in the operator", self.name)
                await self._pause(5 * AGAIN_SECONDS)

    async def end(self) -> None:
        """The object is gone: its run is cancelled. What it promoted stays."""
        try:
            await self._client.runs.cancel(self.name)
        except NotFound:
            return
        except FailedPrecondition as error:
            if error.reason != "RUN_ENDED":
                raise

    async def _turn(self) -> None:
        """Brings the run to what the object wants, then shows what happens until that is something else."""
        try:
            wanted = resource.run_of(self._body, self._data_dir)
            run = await self._taken(wanted)
        except (InvalidArgument, AlreadyExists) as error:
            await self._refused(error.reason or "InvalidSpec", error.message)
            await self._edited.wait()
            return
        if run is None:
            await self._board.show(self._body, {"state": "Suspended"}, [])
            await self._edited.wait()
            return
        generation = self._body["metadata"]["generation"]
        edited = self._generation != generation
        accepted = await self._accept_changes(run, wanted, edited)
        run = await self._pause_or_resume(await self._client.runs.get(self.name), edited)
        self._generation = generation
        await self._board.show(self._body, resource.status_of(run), [*conditions.of_state(run.status), *accepted])
        await self._mirror()
        run = await self._client.runs.get(self.name)
        await self._board.show(self._body, resource.status_of(run), conditions.of_state(run.status))
        while run.status.state not in resource.AT_WORK and not self._edited.is_set():
            if run.status.state == controller_v1.RUN_STATE_PAUSED and not resource.is_suspended(self._body):
                return  # the next turn decides which of both is right
            await self._pause(AGAIN_SECONDS if run.status.state not in OVER else None)
            run = await self._client.runs.get(self.name)

    async def _taken(self, wanted: controller_v1.Run) -> controller_v1.Run | None:
        """The controller's run of this object, made now where there is none; None while it is suspended before that."""
        made = datetime.fromisoformat(self._body["metadata"]["creationTimestamp"])
        try:
            run = await self._client.runs.get(self.name)
        except NotFound:
            if resource.is_suspended(self._body):
                return None
            await self._roster.add(self.name, self._body["metadata"]["uid"])
            return await self._client.runs.create(wanted, request_id=self._body["metadata"]["uid"])
        age = made - run.create_time.ToDatetime(tzinfo=UTC)
        if age.total_seconds() > SAME_AGE_SECONDS and run.status.state == controller_v1.RUN_STATE_CANCELLED:
            raise AlreadyExists(
                f"there was a run {self.name} before, and it was cancelled; a run is not done twice: give this one "
                "another name",
                reason="NAME_TAKEN",
            )
        if run.status.state not in OVER:
            await self._roster.add(self.name, self._body["metadata"]["uid"])
        return run

    async def _accept_changes(self, run: controller_v1.Run, wanted: controller_v1.Run, edited: bool) -> list[Object]:
        """Makes the run do what an edited object says, or the object say what an edited run does; the condition that
        tells of it."""
        if not resource.differences(run.spec, wanted.spec):
            created = conditions.condition(conditions.ACCEPTED, True, "Created", "the controller has taken the run")
            return [] if run.status.swaps else [created]
        try:
            if not edited:
                await self._board.rewrite(self._body, resource.edits_of(run))
                return []
            version = f"{self._body['metadata']['uid']}.{self._body['metadata']['generation']}"
            await self._client.runs.update(wanted, request_id=version)
        except (InvalidArgument, FailedPrecondition) as error:
            if error.reason == "SWAP_UNDER_WAY":
                raise
            hint = "Put the old value back, or apply a Run of another name" if error.reason in FIXED else ""
            message = f"{error.message}. {hint}".rstrip(". ")
            await self._board.warn(self._body, "EditRefused", message)
            return [conditions.condition(conditions.ACCEPTED, False, error.reason or "EditRefused", message)]
        return [conditions.condition(conditions.ACCEPTED, True, "Edited", "the controller has taken the edit")]

    async def _pause_or_resume(self, run: controller_v1.Run, edited: bool) -> controller_v1.Run:
        """Whoever was changed last is right: the object, or the run over gRPC."""
        state, suspended = run.status.state, resource.is_suspended(self._body)
        if suspended and state in resource.AT_WORK:
            if edited:
                return await self._client.runs.pause(self.name)
            await self._board.rewrite(self._body, {resource.SUSPEND: None})
        if suspended:
            return run
        # A failed run is tried again when its object is edited, and not by itself.
        if state == controller_v1.RUN_STATE_PAUSED and not edited and not run.status.interrupted:
            await self._board.rewrite(self._body, {resource.SUSPEND: True})
        elif state == controller_v1.RUN_STATE_PAUSED or (state == controller_v1.RUN_STATE_FAILED and edited):
            return await self._client.runs.resume(self.name)
        return run

    async def _refused(self, reason: str, message: str) -> None:
        accepted = conditions.condition(conditions.ACCEPTED, False, reason, message)
        await self._board.warn(self._body, accepted["reason"], message)
        await self._board.show(self._body, {"state": "Refused", "message": message}, [accepted])

    async def _mirror(self) -> None:
        """Shows events as they come until the run is not at work, or the object was edited."""
        self._told = max(self._told, int(self._body.get("status", {}).get("lastEvent", 0)))
        events = self._client.runs.watch(self.name, after_sequence=self._told)
        async with aclosing(events) as stream:  # type: ignore[type-var]
            async for batch in _until(stream, self._edited):
                for event in batch:
                    await self._board.tell(self._body, event)
                run = await self._client.runs.get(self.name)
                figures = [resource.figures_of(event.metrics) for event in batch if event.kind == "step"]
                shown = {**resource.status_of(run), "lastEvent": batch[-1].sequence, **(figures[-1] if figures else {})}
                changes = [change for event in batch for change in conditions.of_event(event)]
                await self._board.show(self._body, shown, [*changes, *conditions.of_state(run.status)])
                self._told = batch[-1].sequence
                if any(event.kind == "edited" for event in batch):
                    return  # perhaps over gRPC: then the object is to say so too

    async def _pause(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._edited.wait()
        except TimeoutError:
            return


async def _until(
    stream: AsyncIterator[controller_v1.RunEvent], stop: asyncio.Event
) -> AsyncIterator[Sequence[controller_v1.RunEvent]]:
    """The stream's events, those that have come together as one batch, until it ends or `stop` is set."""
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
