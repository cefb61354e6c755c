"""What kubectl shows of a Run: its status and its events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from accord.controller import v1 as controller_v1
from accord.errors import Aborted, InvalidArgument, NotFound
from accord_controller.cluster import Cluster
from accord_controller.operator import conditions
from accord_controller.operator.resource import Object

# Steps are seen in the status; an event for each would drown the rest.
_SILENT = ("step",)
_WARNINGS = ("retry", "waiting", "failed", "service_restarted", "swap_refused")
LONGEST = 1024  # characters of an event's message that Kubernetes takes


class StatusWriter:
    """Writes to the objects of one namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # By object: the conditions as they were written last, since what was seen may be older.
        self._conditions: dict[str, list[Object]] = {}

    async def show(self, body: Object, shown: Object, changes: Sequence[Object]) -> None:
        """Writes the status; what is not named stays. An object that is gone is no error."""
        uid, generation = body["metadata"]["uid"], body["metadata"]["generation"]
        before = self._conditions.get(uid) or body.get("status", {}).get("conditions", [])
        now = conditions.merged(before, changes, generation)
        self._conditions[uid] = now
        status = {**shown, "observedGeneration": generation, "conditions": [_lean(one) for one in now]}
        status = {key: None if value == "" else value for key, value in status.items()}  # null: take it away
        try:
            await self._cluster.patch("Run", body["metadata"]["name"], {"status": status}, subresource="status")
        except NotFound:
            return

    async def tell(self, body: Object, event: controller_v1.RunEvent) -> None:
        """Posts a run's event, once however often it is told."""
        if event.kind in _SILENT:
            return
        reason = "".join(part.title() for part in event.kind.split("_"))
        kind = "Warning" if event.kind in _WARNINGS else "Normal"
        where = f"iteration {event.iteration}: " if event.iteration else ""
        when = event.time.ToDatetime(tzinfo=UTC)
        await self._post(body, f"{event.sequence:x}", kind, reason, where + (event.message or event.kind), when)

    async def warn(self, body: Object, reason: str, message: str) -> None:
        """Posts a warning of the operator, once for each version of the spec."""
        await self._post(
            body, f"{reason.lower()}.{body['metadata']['generation']}", "Warning", reason, message, datetime.now(UTC)
        )

    async def rewrite(self, body: Object, spec: Object) -> None:
        """Makes an object's spec say what was asked for over gRPC (a merge patch)."""
        try:
            await self._cluster.patch("Run", body["metadata"]["name"], {"spec": spec})
        except NotFound:
            return

    def forget(self, body: Object) -> None:
        """The object is gone."""
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
            return  # posted before, or the namespace is going away


def _lean(shown: Object) -> Object:
    """Without what is empty: an empty text says nothing, and some API servers refuse it."""
    return {key: value for key, value in shown.items() if value != ""}
