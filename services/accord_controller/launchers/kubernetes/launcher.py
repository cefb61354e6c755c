"""The cluster's launcher: each run has services of its own, as Deployments and StatefulSets with the Run as owner.

The preference service is shared by all runs and has its address from the settings. Everything else a run gets is made
from templates (copies.py). Kubernetes restarts what dies; this looks whether it takes calls, says what keeps it from
starting, and waits until somebody has mended that: a missing image is no reason to give a run up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord_controller.launchers import health
from accord_controller.launchers.kubernetes import placement, pod_diagnosis, templates
from accord_controller.launchers.kubernetes.cluster import Cluster, Object
from accord_controller.launchers.kubernetes.templates import Workload
from accord_controller.launchers.launcher import OnRestart, OnWaiting, RolloutSet, check_services
from accord_controller.launchers.static import healthy_ones
from accord_controller.settings import ControllerSettings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
TROUBLE_SECONDS = 5.0
MOST_RESTARTS = 5
WORKLOADS = ("Deployment", "StatefulSet")


class KubernetesLauncher:
    """Gives each run a launcher of its own; by itself it knows only the services that all runs share."""

    def __init__(self, settings: ControllerSettings, cluster: Cluster | None = None) -> None:
        self._settings = settings
        self._cluster = cluster or Cluster(settings.namespace)

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> RunLauncher:
        """The launcher of one run's own services."""
        return RunLauncher(run_id, self._settings, self._cluster, on_waiting)

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """The shared services. FailedPrecondition, NO_ADDRESS, for one that each run has of its own."""
        names = check_services(services)
        found = {name: self._settings.address(name) for name in names}
        for name, address in found.items():
            if not address:
                raise _of_each_run(name)
            await health.wait_healthy(name, address, self._settings.start_seconds)
        return found

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """The shared ones. FailedPrecondition, NO_ADDRESS, where each run has its own."""
        if wanted.name or not self._settings.rollout_addresses:
            raise _of_each_run("rollout")
        return await healthy_ones(self._settings.rollout_addresses, self._settings.start_seconds)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Nothing runs for all runs together."""

    async def release(self) -> None:
        """Nothing is held for all runs together."""

    async def close(self) -> None:
        """Leaves what runs as it is: the next controller adopts it."""
        await self._cluster.close()


@dataclass
class Others:
    """Whether another of a set is `up`: then nobody waits for one that something keeps from starting."""

    up: bool = False


class RunLauncher:
    """One run's services."""

    def __init__(self, run_id: str, settings: ControllerSettings, cluster: Cluster, on_waiting: OnWaiting) -> None:
        self._run_id = run_id
        self._waiting = on_waiting
        self._settings = settings
        self._cluster = cluster
        # By copy: the pods that were seen ready, and how often each was restarted then.
        self._seen: dict[str, dict[str, int]] = {}

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> RunLauncher:
        """That of another run."""
        return RunLauncher(run_id, self._settings, self._cluster, on_waiting)

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """Healthy addresses, all services at once. Waits, telling why, while pods cannot be made; Unavailable,
        SERVICE_DOWN or SERVICE_KEEPS_DYING with the last lines of the log, for one that runs and does not serve."""
        names = check_services(services)
        found = await asyncio.gather(*(self._ensure(name, on_restart) for name in names))
        return dict(zip(names, found, strict=True))

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """Healthy addresses, all at once; where some do not come up, the others'. InvalidArgument, UNKNOWN_ENGINE."""
        if not wanted.name and self._settings.rollout_addresses:
            return await healthy_ones(self._settings.rollout_addresses, self._settings.start_seconds)
        engine = wanted.engine or self._settings.engine
        others = Others()
        replicas = [
            Workload(self._run_id, "rollout", engine, templates.set_of(wanted.name), number, wanted.options)
            for number in range(1, wanted.replicas + 1)
        ]
        return await health.those_up(self._bring_up(one, on_restart, others) for one in replicas)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Deletes the pods of a set, and what makes them."""
        await self._delete({templates.RUN: self._run_id, templates.SET: templates.set_of(ended.name)}, keep=keep)

    async def release(self) -> None:
        """Deletes the run's services; its data is on volumes and stays."""
        await self._delete({templates.RUN: self._run_id})

    async def close(self) -> None:
        """Nothing of its own to close."""

    async def _delete(self, labels: dict[str, str], *, keep: int = 0) -> None:
        for kind in (*WORKLOADS, "Service"):
            for found in await self._cluster.list(kind, labels):
                if int(found["metadata"]["labels"].get(templates.NUMBER, "0")) > keep or not keep:
                    await self._cluster.delete(kind, found["metadata"]["name"])

    async def _ensure(self, name: str, on_restart: OnRestart | None) -> str:
        if name == "rollout":
            return (await self.ensure_rollouts(RolloutSet(), on_restart))[0]
        given = self._settings.address(name)
        if given:
            await health.wait_healthy(name, given, self._settings.start_seconds)
            return given
        return await self._bring_up(Workload(self._run_id, name), on_restart, Others())

    async def _bring_up(self, copy: Workload, on_restart: OnRestart | None, others: Others) -> str:
        """Address of a copy that takes calls."""
        port = await self._wait_ready(copy, others)
        address = f"{copy.name}.{self._cluster.namespace}.svc:{port}"
        await health.wait_healthy(copy.service, address, self._settings.start_seconds)
        others.up = True
        await self._tell_restarts(copy, on_restart)
        return address

    async def _apply(self, copy: Workload) -> tuple[Object, int]:
        """The workload and its port: creates what is not there, changes what is otherwise than its template and the Run
        say; what is as it should be goes on undisturbed."""
        template = await self._template(copy)
        run = await self._cluster.get("Run", self._run_id)
        owner, wanted = templates.owner_of(run), placement.of_run(run)
        await self._cluster.apply(templates.address_of(template, copy, owner=owner))
        kueue = bool(wanted.queue) and await self._cluster.serves(placement.KUEUE)
        made = placement.placed(templates.workload(template, copy, owner=owner), wanted, copy.service, kueue=kueue)
        if placement.ranks_of(wanted, copy.service) > 1:
            await self._cluster.apply(placement.meeting_point(made, copy.labels, owner=owner))
        workload = await self._cluster.apply(made)
        return workload, templates.port_of(template)

    async def _template(self, copy: Workload) -> Object:
        """What a copy is made from. FailedPrecondition, NO_TEMPLATE; InvalidArgument, UNKNOWN_ENGINE."""
        labels = {templates.TEMPLATE: copy.service}
        found = [one for kind in WORKLOADS for one in await self._cluster.list(kind, labels)]
        if not found:
            raise FailedPrecondition(
                f"there is no template of the {copy.service} service in namespace {self._cluster.namespace}: a "
                f"Deployment or StatefulSet with the label {templates.TEMPLATE}={copy.service}; deploy k8s/base with "
                "components/operator",
                reason="NO_TEMPLATE",
            )
        if not copy.engine:
            return found[0]
        known = templates.engines(found)
        if copy.engine not in known:
            raise InvalidArgument.at(
                "run.spec.rollout.engine",
                f"no engine {copy.engine!r} is deployed here; there is: {', '.join(sorted(known))}. Others are "
                "components/engine-* of k8s/",
                reason="UNKNOWN_ENGINE",
            )
        return known[copy.engine]

    async def _wait_ready(self, copy: Workload, others: Others) -> int:
        """The port that a pod of it takes calls at, as soon as one does."""
        workload, port = await self._apply(copy)
        started, told = time.monotonic(), ""
        patience = self._settings.start_seconds
        if copy.set not in ("", templates.FIRST):  # a run goes on meanwhile
            patience = max(patience, self._settings.swap_seconds)
        while True:
            found = await self._cluster.list("Pod", copy.labels)
            if any(pod_diagnosis.is_ready(pod) for pod in found):
                return port
            trouble = pod_diagnosis.find_trouble(found, await self._events(workload, found))
            if trouble is not None and trouble.reason == pod_diagnosis.CRASHING:
                await self._give_up_on_crashes(copy.name, found)
            late = time.monotonic() - started > patience
            if trouble is not None and (others.up or (late and copy.set not in ("", templates.FIRST))):
                raise Unavailable(trouble.message, reason=trouble.reason, metadata={"service": copy.name})
            if trouble is None and late:
                raise Unavailable(
                    f"{copy.name} was not ready within {patience:g} s; its log ends with:\n{await self._log(found)}",
                    reason="SERVICE_DOWN",
                    metadata={"service": copy.name},
                )
            message = "" if trouble is None else f"waiting: {trouble.message} [{trouble.reason}]"
            await self._waiting(message if message != told else "")
            told = message or told
            await asyncio.sleep(POLL_SECONDS if trouble is None else TROUBLE_SECONDS)
            if trouble is not None:  # somebody may have mended the template
                workload, port = await self._apply(copy)

    async def _events(self, workload: Object, found: list[Object]) -> list[Object]:
        """What the cluster says of the workload and its pods, oldest first."""
        names = {workload["metadata"]["name"], *(pod["metadata"]["name"] for pod in found)}
        if workload["kind"] == "Deployment":
            sets = await self._cluster.list("ReplicaSet", workload["spec"]["selector"]["matchLabels"])
            names |= {one["metadata"]["name"] for one in sets}
        events = await self._cluster.list("Event", {}, fields="type=Warning")
        mine = [event for event in events if event["involvedObject"].get("name") in names]
        return sorted(mine, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    async def _give_up_on_crashes(self, name: str, found: list[Object]) -> None:
        if max(map(pod_diagnosis.restarts, found), default=0) >= MOST_RESTARTS:
            raise Unavailable(
                f"{name} was started again {MOST_RESTARTS} times and keeps dying; its log ends with:\n"
                f"{await self._log(found)}",
                reason="SERVICE_KEEPS_DYING",
                metadata={"service": name},
            )

    async def _log(self, found: list[Object]) -> str:
        """The last lines of the newest pod's log, or of its container that ended before."""
        for pod in sorted(found, key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True):
            for previous in (True, False):
                text = await self._cluster.log(pod["metadata"]["name"], previous=previous)
                if text.strip():
                    return text
        return "(nothing)"

    async def _tell_restarts(self, copy: Workload, on_restart: OnRestart | None) -> None:
        """A service that had been up, and is now another pod or was started again in its pod, has lost its memory."""
        ready = [pod for pod in await self._cluster.list("Pod", copy.labels) if pod_diagnosis.is_ready(pod)]
        now = {pod["metadata"]["name"]: pod_diagnosis.restarts(pod) for pod in ready}
        before, self._seen[copy.name] = self._seen.get(copy.name), now
        if before is None or on_restart is None:
            return
        for pod, times in now.items():
            if pod not in before:
                await on_restart(
                    copy.service, f"pod {pod} has taken the place of a {copy.service} service that was lost"
                )
            elif times > before[pod]:
                await on_restart(
                    copy.service, f"the {copy.service} service in pod {pod} had died and was started again"
                )


def _of_each_run(name: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"each run has a {name} service of its own; ask while a run is at work, at <run>-{name}", reason="NO_ADDRESS"
    )
