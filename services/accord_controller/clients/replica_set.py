"""The rollout services of one run, driven as one: found, leased, given weights, drawn from, and put right when lost.

What holds for every replica: it draws only under the run's lease and with the version that was asked for, and what it
does not deliver is asked of another under the same request_id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from accord import Replicas
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.clients.autoscaler import Scale
from accord_controller.clients.rollout_services import find, rollout_set
from accord_controller.launchers.launcher import Launcher, OnRestart

log = logging.getLogger(__name__)

# Where none serves for so long the call ends, and the stage that is entered again starts what is down.
PATIENCE_SECONDS = 3.0
REST_SECONDS = 1.0
MEND_AGAIN_SECONDS = 5.0
# How often what is owed is looked at, and how long nothing is tried where a change of their number failed.
SCALE_SECONDS = 1.0
SCALE_AGAIN_SECONDS = 30.0
# What those that leave may take to finish what they draw; then others are asked for the rest.
DRAIN_SECONDS = 600.0

Tell = Callable[[str, str], Awaitable[None]]


class ReplicaSet:
    """One run's replicas. `connect` before the first use and after every trouble."""

    def __init__(self, launcher: Launcher, run_id: str, lease_seconds: float) -> None:
        self._launcher = launcher
        self._run_id = run_id
        self._lease_seconds = lease_seconds
        self._services = controller_v1.RolloutServices(replicas=1)
        self._replicas: Replicas | None = None
        self._tell: Tell | None = None
        self._lost: dict[str, AccordError] = {}
        self._failure = asyncio.Event()
        # Held while weights change or replicas come in: nobody comes in with weights that were replaced meanwhile.
        self._changing = asyncio.Lock()
        # Whether the run holds them, or is about to.
        self._held = False
        self._leaving: set[asyncio.Task[None]] = set()
        # What was put in force last.
        self.weights: types_v1.WeightsRef | None = None
        # How many there are whatever is owed.
        self._least = 1
        self._scaling: asyncio.Task[None] | None = None

    async def connect(
        self,
        services: Callable[[], controller_v1.RolloutServices],
        tell: Tell | None = None,
        scale: Scale | None = None,
    ) -> None:
        """Makes sure that the run's services are up, and takes up with them where they are now. `tell` is told (kind,
        sentence) of what happens to them. With `scale` their number follows what is owed from now on."""
        self._tell = tell
        async with self._changing:
            self._take(services())
            addresses = await self._find()
            if self._replicas is None:
                self._replicas = Replicas(
                    addresses, rest_seconds=REST_SECONDS, patience_seconds=PATIENCE_SECONDS, on_lost=self._note
                )
            for address in addresses:
                self._replicas.add(address)
            await self._leave_out(addresses)
        if len(addresses) < self._services.replicas and not self._services.addresses:
            await self._say("retry", f"{len(addresses)} of {self._services.replicas} replicas serve")
        if scale is not None and self._scaling is None:
            self._scaling = asyncio.create_task(self._keep_sized(scale), name=f"scale {self._run_id}")

    async def status(self) -> rollout_v1.GetStatusResponse:
        """What the first that answers says of itself."""
        return next(iter((await self._members().status()).values()))

    async def statuses(self) -> dict[str, rollout_v1.GetStatusResponse]:
        """What each that answers says of itself, by address."""
        return await self._members().status()

    def generate(self, prompts: Any, **options: Any) -> AsyncIterator[rollout_v1.GenerateResponse]:
        """As `accord.Replicas.generate`."""
        return self._members().generate(prompts, **options)

    async def update_weights(self, weights: types_v1.WeightsRef) -> None:
        """Weights in force on every replica: prepared while the old ones serve, then activated. One that fails draws
        nothing until it has them; an error where all fail."""
        async with self._changing:
            await self._members().update_weights(weights)
            self.weights = weights
            for address, failed in self._members().failed_sources.items():
                reasons = "; ".join(f"{one.uri}: {one.failure.reason}" for one in failed)
                await self._say(
                    "weights_fallback",
                    f"the rollout service at {address} took version {weights.version} from another source ({reasons})",
                )

    async def acquire(self) -> None:
        """Takes or renews the lease of every replica. FailedPrecondition, LEASE_HELD."""
        self._held = True
        await self._members().acquire_lease(self._holder, ttl_seconds=self._lease_seconds)

    async def release(self) -> None:
        """Gives the leases back; those that cannot be given back end by themselves."""
        self._held = False
        if self._replicas is not None:
            await self._replicas.release_lease()

    @property
    def addresses(self) -> list[str]:
        """Where those are that draw."""
        return self._replicas.addresses if self._replicas is not None else []

    async def status_if_any(self) -> rollout_v1.GetStatusResponse | None:
        """What draws now; None where nothing was connected yet or nothing answers."""
        try:
            return await self.status()
        except AccordError:
            return None

    async def shift(
        self,
        services: controller_v1.RolloutServices,
        candidates: Replicas,
        weights: types_v1.WeightsRef,
        commit: Callable[[], Awaitable[None]],
    ) -> None:
        """Whatever is asked for from now on the newcomers draw; the others finish what they had begun, and leave.

        The newcomers are leased by this run. They get the weights in force, `weights` where there are none yet, while
        nothing can change them; then `commit` makes it durable. On an error all is as before.
        """
        async with self._changing:
            for error in (await candidates.update_weights(self.weights or weights)).values():
                raise error
            await commit()
            self._take(services)
            if self._replicas is not None:
                old = self._replicas.addresses
                for address, token in candidates.lease_tokens.items():
                    self._replicas.add(address, lease_token=token if self._held else "")
                for address in old:
                    task = asyncio.create_task(self._replicas.remove(address, timeout=DRAIN_SECONDS))
                    self._leaving.add(task)
                    task.add_done_callback(self._leaving.discard)
                await asyncio.sleep(0)  # until each of them takes no new work
        if not self._held:
            await candidates.release_lease()

    async def drained(self) -> None:
        """Until those that leave have finished."""
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def keep_whole(self) -> None:
        """Until cancelled: a replica that was lost comes back with the weights in force, while the others draw. With
        one only there is nothing that goes on meanwhile: the stage is entered again."""
        while True:
            await self._failure.wait()
            self._failure.clear()
            if self.weights is None or self._size() < 2:
                continue
            try:
                await self._mend(self.weights)
            except AccordError as error:
                log.warning("runs/%s: not all rollout services are back: %s", self._run_id, error)
                await asyncio.sleep(MEND_AGAIN_SECONDS)
                self._failure.set()

    async def close(self) -> None:
        """Closes the connections."""
        if self._scaling is not None:
            self._scaling.cancel()
            await asyncio.gather(self._scaling, return_exceptions=True)
            self._scaling = None
        for task in self._leaving:
            task.cancel()
        await self.drained()
        if self._replicas is not None:
            await self._replicas.close()
            self._replicas = None

    async def _mend(self, weights: types_v1.WeightsRef) -> None:
        lost, self._lost = self._lost, {}
        for address, error in lost.items():
            await self._say("retry", f"the rollout service at {address} was lost ({error.message}); others draw for it")
        services = self._services
        found = await self._find()
        async with self._changing:
            if services is not self._services:  # others draw by now, and those found have left
                return
            replicas, weights = self._members(), self.weights or weights
            here = await replicas.status()
            for address in found:
                said = here.get(address)
                if said is not None and (said.version, said.digest) == (weights.version, weights.digest):
                    continue
                await replicas.join(address, weights, holder=self._holder, ttl_seconds=self._lease_seconds)
                await self._say("retry", f"the rollout service at {address} draws with version {weights.version}")
            await self._leave_out(found)
        if len(found) < self._size():
            raise FailedPrecondition(f"{len(found)} of {self._size()} replicas serve", reason="REPLICA_DOWN")

    async def _keep_sized(self, scale: Scale) -> None:
        """Until cancelled: as many replicas as what is owed needs. First of all those go that are left of a controller
        that was killed."""
        settled = False
        while True:
            await asyncio.sleep(SCALE_SECONDS)
            owed = sum(self._members().outstanding_tokens.values())
            wanted, now = scale.wanted(time.monotonic(), owed, self._least), self._services.replicas
            if (wanted == now and settled) or self._services.addresses:
                continue
            try:
                if wanted > now and self._held and self.weights is not None:
                    await self._say("scaled", f"{wanted} rollout replicas instead of {now}: {owed} tokens are owed")
                    await self._grow(wanted, self.weights)
                elif wanted <= now:
                    await self._shrink(wanted, max(now, scale.most))
                    settled = True
            except AccordError as error:
                log.warning("runs/%s: %d rollout replicas cannot be had: %s", self._run_id, wanted, error)
                await asyncio.sleep(SCALE_AGAIN_SECONDS)

    async def _grow(self, size: int, weights: types_v1.WeightsRef) -> None:
        services, before = self._services, self._services.replicas
        services.replicas = size
        try:
            await self._mend(weights)
        except AccordError:
            # As many as came up are kept; what is missing is tried again later.
            services.replicas = max(before, len(self._members().addresses))
            raise

    async def _shrink(self, size: int, most: int) -> None:
        """Of `most` that there may be the last take nothing new, finish what they draw, and go; not while another run
        draws with them."""
        if any(said.lease.holder not in ("", self._holder) for said in (await self.statuses()).values()):
            return
        services, before = self._services, self._services.replicas
        ended = replace(rollout_set(services, self._run_id), replicas=most)
        services.replicas = size
        found = await self._find()
        async with self._changing:
            if services is not self._services:
                return
            gone = set(self._members().addresses) - set(found)
            if size < before:
                await self._say("scaled", f"{size} rollout replicas instead of {before}: so many are not needed")
            await asyncio.gather(*(self._members().remove(address, timeout=DRAIN_SECONDS) for address in gone))
        await self._launcher.end_rollouts(ended, keep=size)

    async def _find(self) -> list[str]:
        """Addresses of those that are up, started where they were not."""
        return await find(self._launcher, self._services, self._run_id, self._on_restart())

    async def _leave_out(self, found: list[str]) -> None:
        """What is not among those found is not there any more, and no samples are waited for."""
        for address in set(self._members().addresses) - set(found):
            await self._members().remove(address, timeout=0)

    def _take(self, services: controller_v1.RolloutServices) -> None:
        """These are the run's services now. Their number may change here, and not in what is recorded: where they are
        those of before, there are as many of them as there were."""
        before, self._services = self._services, controller_v1.RolloutServices()
        self._services.CopyFrom(services)
        self._least = max(1, services.replicas)
        if self._scaling is not None and services.swap == before.swap:
            self._services.replicas = max(self._least, before.replicas)

    def _size(self) -> int:
        return len(self._services.addresses) or max(1, self._services.replicas)

    @property
    def _holder(self) -> str:
        return f"runs/{self._run_id}"

    def _members(self) -> Replicas:
        if self._replicas is None:
            raise FailedPrecondition("the rollout services were not connected yet", reason="NOT_CONNECTED")
        return self._replicas

    def _note(self, address: str, error: AccordError) -> None:
        self._lost[address] = error
        self._failure.set()

    def _on_restart(self) -> OnRestart | None:
        if self._tell is None:
            return None

        async def restarted(_service: str, message: str) -> None:
            await self._say("service_restarted", message)

        return restarted

    async def _say(self, kind: str, message: str) -> None:
        if self._tell is not None:
            await self._tell(kind, message)
