"""Runs and Runs: what was started over gRPC has an object too, and what lost its object ends.

Asked for again and again, so that it does not matter what happened while the operator was away.
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

log = logging.getLogger(__name__)

PERIOD_SECONDS = 5.0
# Runs of a page that are looked at: those that are at work are among the newest.
NEWEST = 200


class Resync:
    """Compares the controller's runs with the objects of the namespace."""

    def __init__(self, client: accord.Client, cluster: Cluster, roster: SeenRuns) -> None:
        self._client = client
        self._cluster = cluster
        self._roster = roster
        # Runs that were over when they were first seen, or have an object.
        self._settled: set[str] | None = None

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.take()
            except AccordError as error:
                log.warning("runs and their objects could not be compared: %s", error.message)
            except Exception:
                log.exception("fault in the operator: runs and their objects could not be compared")
            await asyncio.sleep(PERIOD_SECONDS)

    async def take(self) -> None:
        """Once. The runs are read first: a run whose object is not there then had lost it, or had none."""
        runs = [run async for run in self._newest()]
        objects = {one["metadata"]["name"] for one in await self._cluster.list("Run", {})}
        seen = await self._roster.read()
        first, settled = self._settled is None, self._settled or set()
        for run in runs:
            over = run.status.state in resource.ENDED and run.status.state != controller_v1.RUN_STATE_FAILED
            if run.run_id in objects:
                settled.add(run.run_id)
            elif run.run_id in seen and not over:
                await self._end(run)
            elif run.run_id not in settled and not (over and first):
                await self._show(run)
            if over:
                settled.add(run.run_id)
                await self._roster.remove(run.run_id)
        self._settled = settled

    async def _newest(self) -> AsyncIterator[controller_v1.Run]:
        number = 0
        async for run in self._client.runs.list():
            yield run
            number += 1
            if number == NEWEST:
                return

    async def _end(self, run: controller_v1.Run) -> None:
        """Its object was deleted."""
        log.info("run %s lost its object and is cancelled", run.run_id)
        try:
            await self._client.runs.cancel(run.run_id)
        except FailedPrecondition as error:
            if error.reason != "RUN_ENDED":
                raise
        await self._roster.remove(run.run_id)

    async def _show(self, run: controller_v1.Run) -> None:
        """It was started over gRPC."""
        try:
            await self._cluster.create("Run", resource.object_of(run))
        except Aborted:
            return  # it has one by now
