"""All Runs of a namespace: a follower for each, started and ended as objects come and go.

An object that is deleted is gone at once, its pods go with it, and its run is cancelled: here, or by the census where
nobody looked.
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
from accord_controller.operator.run_sync import AGAIN_SECONDS, RunSync
from accord_controller.operator.seen_runs import SeenRuns
from accord_controller.operator.status_writer import StatusWriter

log = logging.getLogger(__name__)


class OperatorManager:
    """Followers by the object's uid."""

    def __init__(self, client: accord.Client, board: StatusWriter, roster: SeenRuns, data_dir: Path) -> None:
        self._client = client
        self._board = board
        self._roster = roster
        self._data_dir = data_dir
        self._followed: dict[str, tuple[RunSync, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def see(self, body: Object) -> None:
        """An object is there, or has changed."""
        uid = body["metadata"]["uid"]
        if uid in self._followed:
            self._followed[uid][0].see(body)
            return
        follower = RunSync(body, self._client, self._board, self._roster, self._data_dir)
        task = asyncio.create_task(follower.follow(), name=f"run {body['metadata']['name']}")
        self._followed[uid] = (follower, task)

    def gone(self, body: Object) -> None:
        """An object was deleted."""
        follower, task = self._followed.pop(body["metadata"]["uid"], (None, None))
        if follower is None or task is None:
            return
        task.cancel()
        self._board.forget(body)
        ending = asyncio.create_task(self._end(follower), name=f"end {body['metadata']['name']}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Lets the runs go on; another operator takes them up."""
        tasks = [task for _, task in self._followed.values()] + list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, follower: RunSync) -> None:
        while True:
            try:
                await follower.end()
                await self._roster.remove(follower.name)
                return
            except AccordError as error:
                log.warning("a deleted run is not cancelled yet: %s", error.message)
                await asyncio.sleep(AGAIN_SECONDS)


def registry(desk: OperatorManager) -> kopf.OperatorRegistry:
    """What kopf calls."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    async def login(**options: Any) -> Any:
        return kopf.login_with_service_account(**options) or kopf.login_with_kubeconfig(**options)

    @kopf.on.event("accord.dev", "v1", "runs", registry=found)
    async def seen(event: Any, body: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            desk.gone(dict(body))
        else:
            desk.see(dict(body))

    return found
