"""The rollout replicas of one run, driven as one: connected, leased, given weights, and replaced during generation.

Every replica generates only under the run's lease and only with the requested version. Samples that a replica does not
deliver are requested from another one under the same request_id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from accord import Replicas
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, FailedPrecondition
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_controller.clients.rollout_services import find
from accord_controller.launchers.launcher import Launcher, OnRestart

# A call ends when no replica has served for this long. The stage is then entered again, which restarts what is down.
PATIENCE_SECONDS = 3.0
# A failed replica gets no new samples for this long.
REST_SECONDS = 1.0
# How long a leaving replica may take to finish its samples. After that, the others are asked for the rest.
DRAIN_SECONDS = 600.0

# Receives (kind, message): an event of the run about its replicas.
Emit = Callable[[str, str], Awaitable[None]]


class ReplicaSet:
    """One run's replicas. Call `connect` before the first use and after every failure.

    Repair and autoscaling change the membership from outside, while they hold `changing`.
    """

    def __init__(self, launcher: Launcher, run_id: str, lease_seconds: float) -> None:
        self.launcher = launcher
        self.run_id = run_id
        self.lease_seconds = lease_seconds
        # The services in use, with the current number of replicas. Replaced as a whole by a swap.
        self.services = controller_v1.RolloutServices(replicas=1)
        # The weights that were activated last.
        self.weights: types_v1.WeightsRef | None = None
        # Held while weights change or replicas join, so that no replica joins with outdated weights.
        self.changing = asyncio.Lock()
        # Replicas that failed and have not been repaired yet, by address; `loss` is set when one is added.
        self.lost: dict[str, AccordError] = {}
        self.loss = asyncio.Event()
        # Whether the run holds the leases or is acquiring them.
        self.leased = False
        # The number of replicas regardless of load, and whether an autoscaler may add to it.
        self.least = 1
        self.scaled = False
        self._replicas: Replicas | None = None
        self._emit: Emit | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def connect(self, services: Callable[[], controller_v1.RolloutServices], emit: Emit | None = None) -> None:
        """Makes sure that the run's services are up and connects to their current addresses. `emit` receives (kind,
        message) for each event."""
        self._emit = emit
        async with self.changing:
            self._use(services())
            addresses = await self.find()
            if self._replicas is None:
                self._replicas = Replicas(
                    addresses, rest_seconds=REST_SECONDS, patience_seconds=PATIENCE_SECONDS, on_lost=self._note_loss
                )
            for address in addresses:
                self._replicas.add(address)
            await self.keep_only(addresses)
        if len(addresses) < self.services.replicas and not self.services.addresses:
            await self.emit("retry", f"{len(addresses)} of {self.services.replicas} replicas serve")

    async def close(self) -> None:
        """Closes the connections."""
        for task in self._leaving:
            task.cancel()
        await self.drained()
        if self._replicas is not None:
            await self._replicas.close()
            self._replicas = None

    @property
    def members(self) -> Replicas:
        """The connected replicas. FailedPrecondition, NOT_CONNECTED."""
        if self._replicas is None:
            raise FailedPrecondition("the rollout services are not connected yet", reason="NOT_CONNECTED")
        return self._replicas

    @property
    def addresses(self) -> list[str]:
        """The addresses of the replicas that take new work."""
        return self._replicas.addresses if self._replicas is not None else []

    @property
    def size(self) -> int:
        """The current target number of replicas."""
        return len(self.services.addresses) or max(1, self.services.replicas)

    @property
    def holder(self) -> str:
        """The holder of the leases: this run."""
        return f"runs/{self.run_id}"

    async def status(self) -> rollout_v1.GetStatusResponse:
        """The status of the first replica that answers."""
        return next(iter((await self.members.status()).values()))

    async def statuses(self) -> dict[str, rollout_v1.GetStatusResponse]:
        """The status of each replica that answers, by address."""
        return await self.members.status()

    async def status_if_any(self) -> rollout_v1.GetStatusResponse | None:
        """The status of the first replica that answers; None if none is connected or none answers."""
        try:
            return await self.status()
        except AccordError:
            return None

    def generate(
        self,
        prompts: Sequence[rollout_v1.Prompt | types_v1.Conversation | str],
        *,
        sampling: types_v1.SamplingParams,
        n: int = 1,
        request_id: str | None = None,
        version: int | None = None,
        min_version: int | None = None,
        indices: Sequence[int] = (),
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        """`n` samples for each prompt, or only those at `indices`, from exactly `version` of the weights or from
        `min_version` and later; see `accord.Replicas.generate`."""
        return self.members.generate(
            prompts,
            sampling=sampling,
            n=n,
            request_id=request_id,
            version=version,
            min_version=min_version,
            indices=indices,
        )

    async def update_weights(self, weights: types_v1.WeightsRef) -> None:
        """Activates weights on every replica. They are prepared while the previous weights serve. A replica that fails
        generates nothing until it has them. Raises an error if all replicas fail."""
        async with self.changing:
            await self.members.update_weights(weights)
            self.weights = weights
            for address, failed in self.members.failed_sources.items():
                reasons = "; ".join(f"{one.uri}: {one.failure.reason}" for one in failed)
                await self.emit(
                    "weights_fallback",
                    f"the rollout service at {address} fetched version {weights.version} from another source "
                    f"({reasons})",
                )

    async def acquire(self) -> None:
        """Acquires or renews the lease of every replica. FailedPrecondition, LEASE_HELD."""
        self.leased = True
        await self.members.acquire_lease(self.holder, ttl_seconds=self.lease_seconds)

    async def release(self) -> None:
        """Releases the leases. A lease that cannot be released expires."""
        self.leased = False
        if self._replicas is not None:
            await self._replicas.release_lease()

    async def shift(
        self,
        services: controller_v1.RolloutServices,
        candidates: Replicas,
        weights: types_v1.WeightsRef,
        commit: Callable[[], Awaitable[None]],
    ) -> None:
        """Shifts all new requests to the candidates. The other replicas finish their samples and leave.

        The run holds the candidates' leases. They get the active weights, or `weights` if none are active yet, while a
        lock prevents a change of weights. `commit` then makes the shift durable. After an error, the previous state is
        restored.
        """
        async with self.changing:
            for error in (await candidates.update_weights(self.weights or weights)).values():
                raise error
            await commit()
            self._use(services)
            if self._replicas is not None:
                previous = self._replicas.addresses
                for address, token in candidates.lease_tokens.items():
                    self._replicas.add(address, lease_token=token if self.leased else "")
                for address in previous:
                    task = asyncio.create_task(self._replicas.remove(address, timeout=DRAIN_SECONDS))
                    self._leaving.add(task)
                    task.add_done_callback(self._leaving.discard)
                await asyncio.sleep(0)  # until none of them takes new work
        if not self.leased:
            await candidates.release_lease()

    async def drained(self) -> None:
        """Waits until the leaving replicas have finished."""
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def find(self) -> list[str]:
        """The addresses of the healthy replicas. Starts those that are down."""

        async def restarted(_service: str, message: str) -> None:
            await self.emit("service_restarted", message)

        on_restart: OnRestart | None = restarted if self._emit is not None else None
        return await find(self.launcher, self.services, self.run_id, on_restart)

    async def keep_only(self, found: list[str]) -> None:
        """Removes the replicas that are not among those found, without waiting for their samples."""
        for address in set(self.members.addresses) - set(found):
            await self.members.remove(address, timeout=0)

    async def emit(self, kind: str, message: str) -> None:
        """Appends an event to the run if it accepts events."""
        if self._emit is not None:
            await self._emit(kind, message)

    def _use(self, services: controller_v1.RolloutServices) -> None:
        """Switches to these services. Autoscaling changes the number of replicas here, not in the recorded services;
        the number is kept while the services stay the same."""
        before, self.services = self.services, controller_v1.RolloutServices()
        self.services.CopyFrom(services)
        self.least = max(1, services.replicas)
        if self.scaled and services.swap == before.swap:
            self.services.replicas = max(self.least, before.replicas)

    def _note_loss(self, address: str, error: AccordError) -> None:
        self.lost[address] = error
        self.loss.set()
