"""The launcher for Kubernetes: each run has its own services, as Deployments and StatefulSets owned by the Run.

All runs share the preference service, at the address in the settings. All other services are made from templates
(templates.py). Kubernetes restarts pods that die. The launcher checks that they accept calls, reports what keeps them
from starting, and waits until the cause is repaired: a run does not fail because an image is missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord_controller.cluster import Cluster, Object
from accord_controller.launchers import health
from accord_controller.launchers.kubernetes import placement, pod_diagnosis, templates
from accord_controller.launchers.kubernetes.templates import Workload
from accord_controller.launchers.launcher import OnRestart, OnWaiting, RolloutSet, check_services
from accord_controller.settings import ControllerSettings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
PROBLEM_SECONDS = 5.0
MOST_RESTARTS = 5
WORKLOADS = ("Deployment", "StatefulSet")


class KubernetesLauncher:
    """Gives each run its launcher; handles only the services that all runs share."""

    starts_services = True
    shares_plugins = False  # pods run other images

    def __init__(self, settings: ControllerSettings, cluster: Cluster | None = None) -> None:
        self._settings = settings
        self._cluster = cluster or Cluster(settings.namespace)

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> RunLauncher:
        """The launcher of the run's services."""
        return RunLauncher(run_id, self._settings, self._cluster, on_waiting)

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """The shared services. FailedPrecondition, NO_ADDRESS, for a service that belongs to a single run."""
        names = check_services(services)
        addresses = {name: self._settings.address(name) for name in names}
        for name, address in addresses.items():
            if not address:
                raise _not_shared(name)
            await health.wait_healthy(name, address, self._settings.start_seconds)
        return addresses

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """The shared rollout services. FailedPrecondition, NO_ADDRESS, if each run has its own."""
        if wanted.name or not self._settings.rollout_addresses:
            raise _not_shared("rollout")
        return await health.healthy_addresses(self._settings.rollout_addresses, self._settings.start_seconds)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Nothing to do: the launcher of a run ends its services."""

    async def release(self) -> None:
        """Nothing to stop: shared services stay."""

    async def close(self) -> None:
        """Leaves services running; the next controller adopts them."""
        await self._cluster.close()


@dataclass
class SetProgress:
    """Whether a replica of the set is up. If so, the launcher does not wait for replicas that cannot start."""

    any_up: bool = False


class RunLauncher:
    """One run's services."""

    starts_services = True
    shares_plugins = False

    def __init__(self, run_id: str, settings: ControllerSettings, cluster: Cluster, on_waiting: OnWaiting) -> None:
        self._run_id = run_id
        self._waiting = on_waiting
        self._settings = settings
        self._cluster = cluster
        # workload name -> pod that was ready -> its number of restarts at that time.
        self._seen: dict[str, dict[str, int]] = {}

    def for_run(self, run_id: str, on_waiting: OnWaiting) -> RunLauncher:
        """The launcher of another run."""
        return RunLauncher(run_id, self._settings, self._cluster, on_waiting)

    async def ensure(self, services: Iterable[str], on_restart: OnRestart | None = None) -> dict[str, str]:
        """Starts all services at once. While pods cannot start, waits and reports the cause. If a service runs but does
        not serve: Unavailable, SERVICE_DOWN or SERVICE_KEEPS_DYING, with the last lines of its log."""
        names = check_services(services)
        addresses = await asyncio.gather(*(self._ensure(name, on_restart) for name in names))
        return dict(zip(names, addresses, strict=True))

    async def ensure_rollouts(self, wanted: RolloutSet, on_restart: OnRestart | None = None) -> list[str]:
        """Starts all replicas at once; returns the addresses of those that come up. InvalidArgument, UNKNOWN_ENGINE."""
        if not wanted.name and self._settings.rollout_addresses:
            return await health.healthy_addresses(self._settings.rollout_addresses, self._settings.start_seconds)
        engine = wanted.engine or self._settings.engine
        progress = SetProgress()
        replicas = [
            Workload(self._run_id, "rollout", engine, templates.set_of(wanted.name), number, wanted.options)
            for number in range(1, wanted.replicas + 1)
        ]
        return await health.addresses_up(self._bring_up(workload, on_restart, progress) for workload in replicas)

    async def end_rollouts(self, ended: RolloutSet, *, keep: int = 0) -> None:
        """Deletes the workloads of a set with their pods."""
        await self._delete({templates.RUN: self._run_id, templates.SET: templates.set_of(ended.name)}, keep=keep)

    async def release(self) -> None:
        """Deletes the run's services. Its data is on volumes and is kept."""
        await self._delete({templates.RUN: self._run_id})

    async def close(self) -> None:
        """Nothing to close: the cluster client is shared."""

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
        return await self._bring_up(Workload(self._run_id, name), on_restart, SetProgress())

    async def _bring_up(self, workload: Workload, on_restart: OnRestart | None, progress: SetProgress) -> str:
        """Waits until a workload accepts calls; returns its address."""
        port = await self._wait_ready(workload, progress)
        address = f"{workload.name}.{self._cluster.namespace}.svc:{port}"
        await health.wait_healthy(workload.service, address, self._settings.start_seconds)
        progress.any_up = True
        await self._report_restarts(workload, on_restart)
        return address

    async def _apply(self, workload: Workload) -> tuple[Object, int]:
        """The workload's object and its port. Creates or updates the object to match its template and the Run; if it
        already matches, its pods are not disturbed."""
        template = await self._template(workload)
        run = await self._cluster.get("Run", self._run_id)
        owner, placed = templates.owner_of(run), placement.of_run(run)
        await self._cluster.apply(templates.service_of(template, workload, owner=owner))
        kueue = bool(placed.queue) and await self._cluster.serves(placement.KUEUE)
        body = placement.placed(
            templates.workload_of(template, workload, owner=owner), placed, workload.service, kueue=kueue
        )
        if placement.ranks_of(placed, workload.service) > 1:
            await self._cluster.apply(placement.rendezvous_service(body, workload.labels, owner=owner))
        return await self._cluster.apply(body), templates.port_of(template)

    async def _template(self, workload: Workload) -> Object:
        """The template of a workload. FailedPrecondition, NO_TEMPLATE; InvalidArgument, UNKNOWN_ENGINE."""
        labels = {templates.TEMPLATE: workload.service}
        found = [one for kind in WORKLOADS for one in await self._cluster.list(kind, labels)]
        if not found:
            raise FailedPrecondition(
                f"namespace {self._cluster.namespace} has no template of the {workload.service} service: a Deployment "
                f"or StatefulSet with the label {templates.TEMPLATE}={workload.service}. Deploy k8s/base with "
                "components/operator",
                reason="NO_TEMPLATE",
            )
        if not workload.engine:
            return found[0]
        known = templates.engines(found)
        if workload.engine not in known:
            raise InvalidArgument.at(
                "run.spec.rollout.engine",
                f"engine {workload.engine!r} is not deployed in this cluster; available: {', '.join(sorted(known))}. "
                "To add an engine, deploy k8s/components/engine-*",
                reason="UNKNOWN_ENGINE",
            )
        return known[workload.engine]

    async def _wait_ready(self, workload: Workload, progress: SetProgress) -> int:
        """Waits until one of the workload's pods is ready; returns the workload's port."""
        body, port = await self._apply(workload)
        started, reported = time.monotonic(), ""
        patience = self._settings.start_seconds
        later_set = workload.set not in ("", templates.FIRST)
        if later_set:  # the run continues in the meantime
            patience = max(patience, self._settings.swap_seconds)
        while True:
            pods = await self._cluster.list("Pod", workload.labels)
            if any(pod_diagnosis.is_ready(pod) for pod in pods):
                return port
            problem = pod_diagnosis.find_problem(pods, await self._events(body, pods))
            if problem is not None and problem.reason == pod_diagnosis.CRASHING:
                await self._give_up_on_crashes(workload.name, pods)
            late = time.monotonic() - started > patience
            if problem is not None and (progress.any_up or (late and later_set)):
                raise Unavailable(problem.message, reason=problem.reason, metadata={"service": workload.name})
            if problem is None and late:
                raise Unavailable(
                    f"{workload.name} was not ready within {patience:g} s. Its log ends with:\n{await self._log(pods)}",
                    reason="SERVICE_DOWN",
                    metadata={"service": workload.name},
                )
            message = "" if problem is None else f"waiting: {problem.message} [{problem.reason}]"
            await self._waiting(message if message != reported else "")
            reported = message or reported
            await asyncio.sleep(POLL_SECONDS if problem is None else PROBLEM_SECONDS)
            if problem is not None:  # the template may have been repaired
                body, port = await self._apply(workload)

    async def _events(self, body: Object, pods: list[Object]) -> list[Object]:
        """The cluster's warnings about a workload and its pods, oldest first."""
        names = {body["metadata"]["name"], *(pod["metadata"]["name"] for pod in pods)}
        if body["kind"] == "Deployment":
            replica_sets = await self._cluster.list("ReplicaSet", body["spec"]["selector"]["matchLabels"])
            names |= {replica_set["metadata"]["name"] for replica_set in replica_sets}
        events = await self._cluster.list("Event", {}, fields="type=Warning")
        own = [event for event in events if event["involvedObject"].get("name") in names]
        return sorted(own, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    async def _give_up_on_crashes(self, name: str, pods: list[Object]) -> None:
        if max(map(pod_diagnosis.restarts, pods), default=0) >= MOST_RESTARTS:
            raise Unavailable(
                f"{name} keeps dying: it was restarted {MOST_RESTARTS} times. Its log ends with:\n"
                f"{await self._log(pods)}",
                reason="SERVICE_KEEPS_DYING",
                metadata={"service": name},
            )

    async def _log(self, pods: list[Object]) -> str:
        """The last lines of the newest pod's log, preferably of its previous container."""
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True):
            for previous in (True, False):
                text = await self._cluster.log(pod["metadata"]["name"], previous=previous)
                if text.strip():
                    return text
        return "(empty)"

    async def _report_restarts(self, workload: Workload, on_restart: OnRestart | None) -> None:
        """Reports a service that runs in a new pod or was restarted in its pod: it has lost its in-memory state."""
        ready = [pod for pod in await self._cluster.list("Pod", workload.labels) if pod_diagnosis.is_ready(pod)]
        now = {pod["metadata"]["name"]: pod_diagnosis.restarts(pod) for pod in ready}
        before, self._seen[workload.name] = self._seen.get(workload.name), now
        if before is None or on_restart is None:
            return
        for pod, count in now.items():
            if pod not in before:
                await on_restart(workload.service, f"pod {pod} replaced a {workload.service} service that was lost")
            elif count > before[pod]:
                await on_restart(
                    workload.service, f"the {workload.service} service in pod {pod} died and was restarted"
                )


def _not_shared(name: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"each run has its own {name} service. Its address is <run>-{name} while the run is active", reason="NO_ADDRESS"
    )
