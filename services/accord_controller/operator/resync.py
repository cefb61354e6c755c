"""Periodically compares all runs of the controller with the objects of the namespace. A run that was started over gRPC
gets an object, and a run whose object was deleted while the operator was down is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import accord
from accord.controller import v1 as controller_v1
from accord.errors import Aborted, AccordError, FailedPrecondition
from accord_controller.cluster import Cluster
from accord_controller.operator import resource
from accord_controller.operator.seen_runs import SeenRuns
from accord_controller.operator.sync import FINAL, Cancel, CreateObject, sync_run

log = logging.getLogger(__name__)

PERIOD_SECONDS = 5.0
# The number of runs to compare; active runs are among the newest.
NEWEST = 200


class Resync:
    """Executes what `sync_run` decides for each run."""

    def __init__(self, client: accord.Client, cluster: Cluster, seen_runs: SeenRuns) -> None:
        self._client = client
        self._cluster = cluster
        self._seen_runs = seen_runs
        # Runs that have or had an object, or that had already ended when they were first seen; None before the first
        # comparison.
        self._settled: set[str] | None = None

    async def keep(self) -> None:
        """Compares until cancelled."""
        while True:
            try:
                await self.compare()
            except AccordError as error:
                log.warning("runs and their objects could not be compared: %s", error.message)
            except Exception:
                log.exception("internal error in the operator: runs and their objects could not be compared")
            await asyncio.sleep(PERIOD_SECONDS)

    async def compare(self) -> None:
        """Compares once. The runs are read first, so that a run without an object is one whose object was deleted or
        never existed."""
        runs = [run async for run in self._newest()]
        objects = {body["metadata"]["name"] for body in await self._cluster.list("Run", {})}
        seen = await self._seen_runs.read()
        first, settled = self._settled is None, self._settled or set()
        for run in runs:
            name = run.run_id
            action = sync_run(
                run, has_object=name in objects, had_object=name in seen, settled=name in settled, first=first
            )
            match action:
                case Cancel():
                    await self._cancel(run)
                case CreateObject():
                    await self._create_object(run)
            if name in objects:
                settled.add(name)
            if run.status.state in FINAL:
                settled.add(name)
                await self._seen_runs.remove(name)
        self._settled = settled

    async def _newest(self) -> AsyncIterator[controller_v1.Run]:
        number = 0
        async for run in self._client.runs.list():
            yield run
            number += 1
            if number == NEWEST:
                return

    async def _cancel(self, run: controller_v1.Run) -> None:
        """Cancels a run whose object was deleted."""
        log.info("run %s is cancelled: its object was deleted", run.run_id)
        try:
            await self._client.runs.cancel(run.run_id)
        except FailedPrecondition as error:
            if error.reason != "RUN_ENDED":
                raise
        await self._seen_runs.remove(run.run_id)

    async def _create_object(self, run: controller_v1.Run) -> None:
        """Creates the object of a run that was started over gRPC."""
        try:
            await self._cluster.create("Run", resource.object_of(run))
        except Aborted:
            return  # another client has created it
