"""Scales the number of rollout replicas with the load: the tokens that were requested but not yet generated."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

from accord.controller import v1 as controller_v1
from accord.errors import AccordError
from accord.types import v1 as types_v1
from accord_controller.clients.repair import restore
from accord_controller.clients.replica_set import DRAIN_SECONDS, ReplicaSet
from accord_controller.clients.rollout_services import rollout_set

log = logging.getLogger(__name__)

# How often the load is read, and how long scaling pauses after a failure.
LOOK_SECONDS = 1.0
AGAIN_SECONDS = 30.0


@dataclass
class Scale:
    """The number of replicas that a load needs. It rises at once; it falls after fewer would have sufficed for
    `idle_seconds`."""

    most: int
    # The load of one replica, tokens.
    tokens_per_replica: int
    idle_seconds: float
    # (time, replicas needed), for the last `idle_seconds`.
    _needed: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    @classmethod
    def of(cls, spec: controller_v1.RunSpec) -> Scale | None:
        """The scale of a resolved spec; None if the number of replicas is fixed."""
        scale = spec.rollout.autoscale
        if scale.max_replicas <= spec.rollout.replicas:
            return None
        return cls(scale.max_replicas, scale.tokens_per_replica, scale.idle_seconds)

    def wanted(self, now: float, load: int, least: int) -> int:
        """The wanted number of replicas, `least` or more. `now`: monotonic seconds; `load`: tokens requested but not
        yet generated."""
        needed = max(least, min(self.most, math.ceil(load / self.tokens_per_replica)))
        self._needed.append((now, needed))
        while self._needed[0][0] < now - self.idle_seconds:
            self._needed.popleft()
        return max(count for _, count in self._needed)


class Autoscaler:
    """Resizes one run's replica set in the background."""

    def __init__(self, replica_set: ReplicaSet) -> None:
        self._replica_set = replica_set
        self._task: asyncio.Task[None] | None = None

    def start(self, scale: Scale | None) -> None:
        """Starts scaling; does nothing without a scale or if scaling has already started."""
        if scale is not None and self._task is None:
            self._replica_set.scaled = True
            self._task = asyncio.create_task(self._keep_sized(scale), name=f"scale {self._replica_set.run_id}")

    async def close(self) -> None:
        """Stops scaling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            self._replica_set.scaled = False

    async def _keep_sized(self, scale: Scale) -> None:
        """Keeps as many replicas as the load needs, until cancelled. The first pass also stops replicas that a killed
        controller left running."""
        replicas, settled = self._replica_set, False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            load = sum(replicas.members.outstanding_tokens.values())
            wanted, now = scale.wanted(time.monotonic(), load, replicas.least), replicas.services.replicas
            if (wanted == now and settled) or replicas.services.addresses:
                continue
            try:
                if wanted > now and replicas.leased and replicas.weights is not None:
                    await replicas.emit("scaled", f"{wanted} rollout replicas instead of {now}: {load} tokens queued")
                    await self._grow(wanted, replicas.weights)
                elif wanted <= now:
                    await self._shrink(wanted, max(now, scale.most))
                    settled = True
            except AccordError as error:
                log.warning("%s: %d rollout replicas are not available: %s", replicas.holder, wanted, error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _grow(self, size: int, weights: types_v1.WeightsRef) -> None:
        services, before = self._replica_set.services, self._replica_set.services.replicas
        services.replicas = size
        try:
            await restore(self._replica_set, weights)
        except AccordError:
            # Replicas that came up stay. The missing ones are tried again later.
            services.replicas = max(before, len(self._replica_set.members.addresses))
            raise

    async def _shrink(self, size: int, most: int) -> None:
        """Stops the replicas from `size` + 1 to `most`: they take no new work, finish their samples, and end. Does
        nothing while another run uses one of them."""
        replicas = self._replica_set
        holders = {status.lease.holder for status in (await replicas.statuses()).values()}
        if holders - {"", replicas.holder}:
            return
        services, before = replicas.services, replicas.services.replicas
        ended = replace(rollout_set(services, replicas.run_id), replicas=most)
        services.replicas = size
        found = await replicas.find()
        async with replicas.changing:
            if services is not replicas.services:
                return
            gone = set(replicas.members.addresses) - set(found)
            if size < before:
                await replicas.emit("scaled", f"{size} rollout replicas instead of {before}: the load is lower")
            await asyncio.gather(*(replicas.members.remove(address, timeout=DRAIN_SECONDS) for address in gone))
        await replicas.launcher.end_rollouts(ended, keep=size)
