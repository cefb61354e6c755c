"""One of several rollout services, its assignments, and the pool of all: the parts of `accord.Replicas`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

import grpc.aio

from accord.errors import AccordError, AlreadyExists, NotFound, ResourceExhausted, Unimplemented
from accord.resources.rollout import Rollout
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

# Refusals because of prepared versions that will never be activated: one with the same number, or too many of them.
_STALE_PREPARED = ("VERSION_PREPARED", "TOO_MANY_PREPARED")
# Called with the address and the error of a replica that failed.
OnLost = Callable[[str, AccordError], None]


@dataclass
class Assignment:
    """The samples requested from one replica. `left`: the outstanding indices, each `tokens` at most; `heard`: when it
    was started or delivered last, seconds of the monotonic clock."""

    replica: Replica
    left: set[int]
    tokens: int
    error: AccordError | None = None
    heard: float = field(default_factory=time.monotonic)
    # Whether the rest was also requested from another replica.
    hedged: bool = False
    task: asyncio.Task[None] | None = None

    def add(self, indices: Iterable[int]) -> None:
        """Adds indices."""
        before = len(self.left)
        self.left.update(indices)
        self.replica.outstanding_tokens += (len(self.left) - before) * self.tokens

    def done(self, index: int) -> None:
        """Removes an index, whichever replica delivered it."""
        if index in self.left:
            self.left.discard(index)
            self.replica.outstanding_tokens -= self.tokens


@dataclass(eq=False)
class Replica:
    """A rollout service, its load, and the lease held on it."""

    address: str
    channel: grpc.aio.Channel
    rollout: Rollout
    lease_token: str = ""
    outstanding_tokens: int = 0
    resting_until: float = 0.0
    # A leaving replica gets no new requests; the rest of a removed one is reassigned.
    leaving: bool = False
    removed: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    # Versions that an engine without PrepareWeights fetches and activates in one call.
    one_phase: dict[int, types_v1.WeightsRef] = field(default_factory=dict)
    # The sources of the last weights that failed before one worked.
    failed_sources: list[rollout_v1.FailedSource] = field(default_factory=list)

    def available(self) -> bool:
        """Whether it can take a request now."""
        return not self.leaving and self.resting_until <= time.monotonic()

    async def prepare(self, weights: types_v1.WeightsRef, timeout: float) -> None:
        """Fetches and verifies weights unless they are active. Under a lease, discards stale prepared versions."""
        self.failed_sources = []
        if await self._serves(weights):
            return
        try:
            await self._prepare(weights, timeout)
        except Unimplemented:
            self.one_phase[weights.version] = weights
        except (AlreadyExists, ResourceExhausted) as error:
            if error.reason not in _STALE_PREPARED or not self.lease_token:
                raise
            for one in (await self.rollout.status()).prepared:
                await self.rollout.discard_weights(one.version, lease_token=self.lease_token)
            await self._prepare(weights, timeout)

    async def activate(self, weights: types_v1.WeightsRef, timeout: float) -> None:
        """Activates prepared weights; an engine with one phase only fetches and activates them now."""
        if self.one_phase.pop(weights.version, None) is not None:
            updated = await self.rollout.update_weights(weights, lease_token=self.lease_token, timeout=timeout)
            self.failed_sources = list(updated.failed_sources)
        elif not await self._serves(weights):
            await self.rollout.activate_weights(weights.version, lease_token=self.lease_token, timeout=timeout)

    async def acquire(self, holder: str, ttl_seconds: float) -> None:
        """Takes or renews the lease. An engine without leases needs none."""
        with suppress(Unimplemented):
            lease = await self.rollout.acquire_lease(holder, ttl_seconds=ttl_seconds, token=self.lease_token)
            self.lease_token = lease.token

    async def release(self) -> None:
        """Releases the lease; if that fails, the lease expires on its own."""
        token, self.lease_token = self.lease_token, ""
        if token:
            with suppress(AccordError):
                await self.rollout.release_lease(token, timeout=2)

    async def _serves(self, weights: types_v1.WeightsRef) -> bool:
        status = await self.rollout.status()
        return status.ready and (status.version, status.digest) == (weights.version, weights.digest)

    async def _prepare(self, weights: types_v1.WeightsRef, timeout: float) -> None:
        prepared = await self.rollout.prepare_weights(weights, lease_token=self.lease_token, timeout=timeout)
        self.failed_sources = list(prepared.failed_sources)


@dataclass
class Pool:
    """The replicas that share the requests, and the timeouts for them; see `accord.Replicas`."""

    rest_seconds: float
    patience_seconds: float | None
    hedge_seconds: float | None
    on_lost: OnLost | None
    members: list[Replica] = field(default_factory=list)
    hedged_samples: int = 0

    def lost(self, replica: Replica, error: AccordError) -> AccordError:
        """Lets the replica rest, and calls `on_lost`."""
        replica.resting_until = time.monotonic() + self.rest_seconds
        if self.on_lost is not None and not replica.leaving:
            self.on_lost(replica.address, error)
        return error


def choose(available: Sequence[Replica], session: str = "") -> Replica:
    """The replica with the fewest outstanding tokens. For a session always the same one while it is available: by
    highest random weight (Thaler and Ravishankar 1998), so that replicas that join or leave move only their
    sessions."""
    if session:
        return max(available, key=lambda one: sha256(f"{session}\0{one.address}".encode()).digest())
    return min(available, key=lambda one: one.outstanding_tokens)


def find(replicas: list[Replica], address: str) -> Replica:
    """The replica at `address`. NotFound if there is none."""
    for replica in replicas:
        if replica.address == address:
            return replica
    raise NotFound(f"There is no rollout replica at {address}", reason="NO_SUCH_REPLICA", metadata={"address": address})
