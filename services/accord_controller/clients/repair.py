"""Repair of a replica set: lost replicas are restarted and rejoin while the others serve."""

from __future__ import annotations

import asyncio
import logging

from accord.errors import AccordError, FailedPrecondition
from accord.types import v1 as types_v1
from accord_controller.clients.replica_set import ReplicaSet

log = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0


async def keep_repaired(replica_set: ReplicaSet) -> None:
    """Restores lost replicas until cancelled. A single replica is not repaired here: no other could serve in the
    meantime, so the stage fails and is entered again."""
    while True:
        await replica_set.loss.wait()
        replica_set.loss.clear()
        if replica_set.weights is None or replica_set.size < 2:
            continue
        try:
            await restore(replica_set, replica_set.weights)
        except AccordError as error:
            log.warning("%s: some rollout services are still down: %s", replica_set.holder, error)
            await asyncio.sleep(AGAIN_SECONDS)
            replica_set.loss.set()


async def restore(replica_set: ReplicaSet, weights: types_v1.WeightsRef) -> None:
    """Brings the set to its full size: missing replicas are started, leased, given the active weights (`weights` if
    none are active yet), and added. FailedPrecondition, REPLICA_DOWN, if some do not come up."""
    lost, replica_set.lost = replica_set.lost, {}
    for address, error in lost.items():
        await replica_set.emit(
            "retry", f"the rollout service at {address} was lost ({error.message}); the others take over its samples"
        )
    services = replica_set.services
    found = await replica_set.find()
    async with replica_set.changing:
        if services is not replica_set.services:  # swapped in the meantime, so the replicas found have left
            return
        replicas, weights = replica_set.members, replica_set.weights or weights
        current = await replicas.status()
        for address in found:
            status = current.get(address)
            if status is not None and (status.version, status.digest) == (weights.version, weights.digest):
                continue
            await replicas.join(address, weights, holder=replica_set.holder, ttl_seconds=replica_set.lease_seconds)
            await replica_set.emit("retry", f"the rollout service at {address} serves version {weights.version}")
        await replica_set.keep_only(found)
    if len(found) < replica_set.size:
        raise FailedPrecondition(f"{len(found)} of {replica_set.size} replicas serve", reason="REPLICA_DOWN")
