"""The Runs that the operator has seen. If an object is deleted while the operator is down, its run is cancelled later.

They are kept in a ConfigMap, not as a finalizer on each Run, so that a namespace or the definition of Run can be
deleted at any time, in any order with the parts of Accord.
"""

from __future__ import annotations

from accord_controller.cluster import Cluster

NAME = "operator-roster"


class SeenRuns:
    """Run name -> uid of its object, until the run has ended."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, str] | None = None

    async def read(self) -> dict[str, str]:
        """The uid of each seen object, by the name of its run."""
        if self._known is None:
            found = await self._cluster.get("ConfigMap", NAME) or {}
            self._known = dict(found.get("data") or {})
        return self._known

    async def add(self, run_id: str, uid: str) -> None:
        """Remembers an object before anything is done for it."""
        known = await self.read()
        if known.get(run_id) != uid:
            await self._write({run_id: uid})
            known[run_id] = uid

    async def remove(self, run_id: str) -> None:
        """Forgets a run that has ended."""
        known = await self.read()
        if run_id in known:
            await self._write({run_id: None})
            del known[run_id]

    async def _write(self, data: dict[str, str | None]) -> None:
        if await self._cluster.get("ConfigMap", NAME) is None:
            added = {key: value for key, value in data.items() if value is not None}
            meta = {"name": NAME, "labels": {"app.kubernetes.io/component": "operator"}}
            await self._cluster.create(
                "ConfigMap", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": added}
            )
            return
        await self._cluster.patch("ConfigMap", NAME, {"data": data})
