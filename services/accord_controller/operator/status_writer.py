"""Writes a Run's status, its events and the edits of its spec to the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from accord.controller import v1 as controller_v1
from accord.errors import Aborted, InvalidArgument, NotFound
from accord_controller.cluster import Cluster
from accord_controller.operator import status
from accord_controller.operator.resource import Object

# Steps are shown in the status; an event for each step would hide the other events.
_SILENT = ("step",)
_WARNINGS = ("retry", "waiting", "failed", "service_restarted", "swap_refused")
LONGEST = 1024  # characters of an event's message that Kubernetes accepts


class StatusWriter:
    """Writes to the objects of one namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # uid of the object -> the conditions written last; those of a watched object may be older.
        self._conditions: dict[str, list[Object]] = {}

    async def show(self, body: Object, shown: Object, changes: Sequence[Object]) -> None:
        """Writes the status; fields that are not given are kept. A missing object is not an error."""
        uid, generation = body["metadata"]["uid"], body["metadata"]["generation"]
        before = self._conditions.get(uid) or body.get("status", {}).get("conditions", [])
        now = status.merged(before, changes, generation)
        self._conditions[uid] = now
        written = {
            **shown,
            "observedGeneration": generation,
            "conditions": [_without_empty(condition) for condition in now],
        }
        written = {key: None if value == "" else value for key, value in written.items()}  # null removes the field
        try:
            await self._cluster.patch("Run", body["metadata"]["name"], {"status": written}, subresource="status")
        except NotFound:
            return

    async def post_event(self, body: Object, event: controller_v1.RunEvent) -> None:
        """Posts a run's event. Posting it again changes nothing."""
        if event.kind in _SILENT:
            return
        reason = "".join(part.title() for part in event.kind.split("_"))
        kind = "Warning" if event.kind in _WARNINGS else "Normal"
        where = f"iteration {event.iteration}: " if event.iteration else ""
        when = event.time.ToDatetime(tzinfo=UTC)
        await self._post(body, f"{event.sequence:x}", kind, reason, where + (event.message or event.kind), when)

    async def warn(self, body: Object, reason: str, message: str) -> None:
        """Posts an operator warning once for each generation of the object."""
        await self._post(
            body, f"{reason.lower()}.{body['metadata']['generation']}", "Warning", reason, message, datetime.now(UTC)
        )

    async def rewrite_spec(self, body: Object, spec: Object) -> None:
        """Edits an object's spec to match the request made over gRPC (a merge patch)."""
        try:
            await self._cluster.patch("Run", body["metadata"]["name"], {"spec": spec})
        except NotFound:
            return

    def forget(self, body: Object) -> None:
        """Forgets an object that no longer exists."""
        self._conditions.pop(body["metadata"]["uid"], None)

    async def _post(self, body: Object, key: str, kind: str, reason: str, message: str, when: datetime) -> None:
        meta, time = body["metadata"], when.strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{meta['uid'][:8]}.{key}"},
            "involvedObject": {
                "apiVersion": body["apiVersion"],
                "kind": body["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message if len(message) <= LONGEST else f"{message[: LONGEST - 2]} …",
            "source": {"component": "accord-operator"},
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        try:
            await self._cluster.create("Event", event)
        except (Aborted, InvalidArgument, NotFound):
            return  # posted before, or the namespace is being deleted


def _without_empty(condition: Object) -> Object:
    """Removes empty strings, which some API servers refuse."""
    return {key: value for key, value in condition.items() if value != ""}
