"""All Runs of a namespace: one RunSync for each, started and stopped as objects are created and deleted.

A deleted object disappears at once, and its pods are deleted with it. Its run is cancelled here, or by Resync if the
operator was down.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import kopf

import accord
from accord.errors import AccordError
from accord_controller.operator.resource import Object
from accord_controller.operator.run_sync import RETRY_SECONDS, RunSync
from accord_controller.operator.seen_runs import SeenRuns
from accord_controller.operator.status_writer import StatusWriter

log = logging.getLogger(__name__)


class OperatorManager:
    """The RunSyncs of a namespace, by the uid of the object."""

    def __init__(self, client: accord.Client, writer: StatusWriter, seen_runs: SeenRuns, data_dir: Path) -> None:
        self._client = client
        self._writer = writer
        self._seen_runs = seen_runs
        self._data_dir = data_dir
        self._syncs: dict[str, tuple[RunSync, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def see(self, body: Object) -> None:
        """Handles an object that exists or has changed."""
        uid = body["metadata"]["uid"]
        if uid in self._syncs:
            self._syncs[uid][0].see(body)
            return
        run_sync = RunSync(body, self._client, self._writer, self._seen_runs, self._data_dir)
        task = asyncio.create_task(run_sync.keep(), name=f"run {body['metadata']['name']}")
        self._syncs[uid] = (run_sync, task)

    def gone(self, body: Object) -> None:
        """Handles a deleted object."""
        run_sync, task = self._syncs.pop(body["metadata"]["uid"], (None, None))
        if run_sync is None or task is None:
            return
        task.cancel()
        self._writer.forget(body)
        ending = asyncio.create_task(self._end(run_sync), name=f"end {body['metadata']['name']}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Stops syncing. The runs continue, and the next operator syncs them."""
        tasks = [task for _, task in self._syncs.values()] + list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, run_sync: RunSync) -> None:
        while True:
            try:
                await run_sync.end()
                await self._seen_runs.remove(run_sync.name)
                return
            except AccordError as error:
                log.warning("the run of a deleted object is not cancelled yet: %s", error.message)
                await asyncio.sleep(RETRY_SECONDS)


def registry(manager: OperatorManager) -> kopf.OperatorRegistry:
    """The handlers that kopf calls."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    async def login(**options: Any) -> Any:
        return kopf.login_with_service_account(**options) or kopf.login_with_kubeconfig(**options)

    @kopf.on.event("accord.dev", "v1", "runs", registry=found)
    async def seen(event: Any, body: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            manager.gone(dict(body))
        else:
            manager.see(dict(body))

    return found
