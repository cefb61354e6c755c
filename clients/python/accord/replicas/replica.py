"""One of several rollout services, and what it was asked for: the parts that `accord.Replicas` is made of."""

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

# Prepared versions that nobody will activate are in the way: another of this number, or too many of them.
_IN_THE_WAY = ("VERSION_PREPARED", "TOO_MANY_PREPARED")
# Told the address and the error when a replica did not do its part.
OnLost = Callable[[str, AccordError], None]


@dataclass
class Assignment:
    """What one replica was asked for: `left` are the indices that it still owes, each `tokens` at most; `heard` is when
    it was begun or brought something last, seconds of the monotonic clock."""

    replica: Replica
    left: set[int]
    tokens: int
    error: AccordError | None = None
    heard: float = field(default_factory=time.monotonic)
    # Another replica was asked for what is left of it.
    hedged: bool = False
    task: asyncio.Task[None] | None = None

    def add(self, indices: Iterable[int]) -> None:
        """It owes these too."""
        before = len(self.left)
        self.left.update(indices)
        self.replica.outstanding_tokens += (len(self.left) - before) * self.tokens

    def done(self, index: int) -> None:
        """It owes this index no more, whoever brought it."""
        if index in self.left:
            self.left.discard(index)
            self.replica.outstanding_tokens -= self.tokens


@dataclass(eq=False)
class Replica:
    """A service, its load, and the lease that is held on it."""

    address: str
    channel: grpc.aio.Channel
    rollout: Rollout
    lease_token: str = ""
    outstanding_tokens: int = 0
    resting_until: float = 0.0
    # Gets nothing new; `gone`: what it still owes is asked of others now.
    leaving: bool = False
    gone: bool = False
    work: set[asyncio.Task[None]] = field(default_factory=set)
    # Versions whose PrepareWeights the engine does not offer are put in force in one go.
    in_one_go: dict[int, types_v1.WeightsRef] = field(default_factory=dict)
    # Of the weights that it was given last: where they could not be fetched from, before they could.
    failed_sources: list[rollout_v1.FailedSource] = field(default_factory=list)

    def takes_work(self) -> bool:
        """Whether it may be asked for something now."""
        return not self.leaving and self.resting_until <= time.monotonic()

    async def prepare(self, weights: types_v1.WeightsRef, timeout: float) -> None:
        """Fetched and verified, or in force already. Under a lease, what somebody left prepared gives way."""
        self.failed_sources = []
        if await self._serves(weights):
            return
        try:
            await self._prepare(weights, timeout)
        except Unimplemented:
            self.in_one_go[weights.version] = weights
        except (AlreadyExists, ResourceExhausted) as error:
            if error.reason not in _IN_THE_WAY or not self.lease_token:
                raise
            for one in (await self.rollout.status()).prepared:
                await self.rollout.discard_weights(one.version, lease_token=self.lease_token)
            await self._prepare(weights, timeout)

    async def activate(self, weights: types_v1.WeightsRef, timeout: float) -> None:
        """In force: what was prepared, or where the engine has one phase only, all of it now."""
        if self.in_one_go.pop(weights.version, None) is not None:
            updated = await self.rollout.update_weights(weights, lease_token=self.lease_token, timeout=timeout)
            self.failed_sources = list(updated.failed_sources)
        elif not await self._serves(weights):
            await self.rollout.activate_weights(weights.version, lease_token=self.lease_token, timeout=timeout)

    async def acquire(self, holder: str, ttl_seconds: float) -> None:
        """Takes or renews the lease. An engine that gives none is everybody's."""
        with suppress(Unimplemented):
            lease = await self.rollout.acquire_lease(holder, ttl_seconds=ttl_seconds, token=self.lease_token)
            self.lease_token = lease.token

    async def release(self) -> None:
        """Gives the lease back; one that cannot be given back ends by itself."""
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
    """The replicas that share the work, and how patient one is with them; see `accord.Replicas`."""

    rest_seconds: float
    patience_seconds: float | None
    hedge_seconds: float | None
    on_lost: OnLost | None
    members: list[Replica] = field(default_factory=list)
    hedged_samples: int = 0

    def lost(self, replica: Replica, error: AccordError) -> AccordError:
        """The replica rests, and whoever wants to know is told."""
        replica.resting_until = time.monotonic() + self.rest_seconds
        if self.on_lost is not None and not replica.leaving:
            self.on_lost(replica.address, error)
        return error


def choose(able: Sequence[Replica], session: str = "") -> Replica:
    """The one that owes the fewest tokens; for a session always the same one as long as it is among them: by the
    highest random weight (Thaler and Ravishankar 1998), so that who comes and goes moves only its own sessions."""
    if session:
        return max(able, key=lambda one: sha256(f"{session}\0{one.address}".encode()).digest())
    return min(able, key=lambda one: one.outstanding_tokens)


def find(replicas: list[Replica], address: str) -> Replica:
    """The one at `address`. NotFound."""
    for replica in replicas:
        if replica.address == address:
            return replica
    raise NotFound(f"there is no replica at {address}", reason="NO_SUCH_REPLICA", metadata={"address": address})
