"""Which Runs the operator has seen: what is at work for one that was deleted while nobody looked must end.

It is a ConfigMap and no finalizer on each Run: so a namespace, or the definition of Run, can always be deleted,
whatever of Accord was deleted before.
"""

from __future__ import annotations

from accord_controller.cluster import Cluster

NAME = "operator-roster"


class SeenRuns:
    """Runs by name, each with the uid of its object, until they are over."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, str] | None = None

    async def read(self) -> dict[str, str]:
        """The uid of each object that was seen, by the run's name."""
        if self._known is None:
            found = await self._cluster.get("ConfigMap", NAME) or {}
            self._known = dict(found.get("data") or {})
        return self._known

    async def add(self, run_id: str, uid: str) -> None:
        """Before anything is done for it."""
        known = await self.read()
        if known.get(run_id) != uid:
            await self._write({run_id: uid})
            known[run_id] = uid

    async def remove(self, run_id: str) -> None:
        """It is over: nothing is to be ended any more."""
        known = await self.read()
        if run_id in known:
            await self._write({run_id: None})
            del known[run_id]

    async def _write(self, data: dict[str, str | None]) -> None:
        if await self._cluster.get("ConfigMap", NAME) is None:
            there = {key: value for key, value in data.items() if value is not None}
            meta = {"name": NAME, "labels": {"app.kubernetes.io/component": "operator"}}
            await self._cluster.create(
                "ConfigMap", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": there}
            )
            return
        await self._cluster.patch("ConfigMap", NAME, {"data": data})
