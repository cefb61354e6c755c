"""Several rollout services as one. Requests go to the replica with the fewest outstanding tokens; those of a failed
replica are reassigned.

    async with accord.Replicas(["10.0.0.1:7001", "10.0.0.2:7001"]) as rollout:
        await rollout.update_weights(weights)
        async for response in rollout.generate(prompts, sampling=sampling, n=4, version=7): ...

A sample is keyed by (request_id, index) and generated from its seed, on whichever replica. Each index is yielded
exactly once, whatever fails. With `version`, a replica that has different weights (for example after a restart) is not
used. Replicas can join (`add`) and leave (`remove`) while samples are being generated. With `hedge_seconds`, samples of
a slow or silent replica are requested from a second one too, and the first answer counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from accord import _calls
from accord.channel import TLS, open_channel
from accord.errors import AccordError, FailedPrecondition, InvalidArgument
from accord.replicas.dispatch import Dispatch, Prompts
from accord.replicas.replica import OnLost, Pool, Replica, find
from accord.resources.rollout import Rollout
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

_QUICKLY = _calls.RetryPolicy(attempts=2, first=0.1, longest=0.2)


class Replicas:
    """Rollout services at `addresses`. One that fails gets no new requests for `rest_seconds`.

    `patience_seconds`: a call fails when no replica has served for that long; None: at its timeout. `on_lost` is called
    when a replica fails. `hedge_seconds`: if a replica is silent for that long, its samples are also requested from a
    replica with less load; None: never. One replica generates the n samples of a prompt, so that it processes the
    prompt once.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        tls: TLS | None = None,
        rest_seconds: float = 2.0,
        patience_seconds: float | None = None,
        on_lost: OnLost | None = None,
        hedge_seconds: float | None = None,
    ) -> None:
        if not addresses:
            raise InvalidArgument.at("addresses", "must name at least one rollout service")
        if hedge_seconds is not None and not hedge_seconds > 0:
            raise InvalidArgument.at("hedge_seconds", f"must be above 0, not {hedge_seconds}")
        self._tls = tls
        self._pool = Pool(rest_seconds, patience_seconds, hedge_seconds, on_lost)
        for address in addresses:
            self.add(address)

    @property
    def addresses(self) -> list[str]:
        """The addresses of the replicas that take requests."""
        return [replica.address for replica in self._pool.members if not replica.leaving]

    @property
    def lease_tokens(self) -> dict[str, str]:
        """The lease tokens, by address; empty for a replica without a lease."""
        return {replica.address: replica.lease_token for replica in self._pool.members if not replica.leaving}

    @property
    def outstanding_tokens(self) -> dict[str, int]:
        """Tokens requested and not yet delivered, by address."""
        return {replica.address: replica.outstanding_tokens for replica in self._pool.members}

    @property
    def hedged_samples(self) -> int:
        """The number of samples requested from a second replica so far."""
        return self._pool.hedged_samples

    @property
    def failed_sources(self) -> dict[str, list[rollout_v1.FailedSource]]:
        """The sources of the last weights that failed before one worked, and why, by address."""
        return {one.address: one.failed_sources for one in self._pool.members if one.failed_sources}

    def add(self, address: str, *, lease_token: str = "") -> None:
        """Adds a replica, which takes requests from now on. If requests name no version, give it the weights first."""
        if address not in self.addresses:
            self._pool.members.append(self._open(address, lease_token))

    async def join(
        self,
        address: str,
        weights: types_v1.WeightsRef,
        *,
        holder: str = "",
        ttl_seconds: float = 60.0,
        timeout: float = _calls.WEIGHTS,
    ) -> None:
        """Adds a replica, or lets one serve again: takes its lease if `holder` is given, and activates `weights` before
        it gets any request. If that fails, raises and does not add it."""
        known = next((one for one in self._pool.members if one.address == address and not one.leaving), None)
        replica = known or self._open(address, "")
        try:
            if holder:
                await replica.acquire(holder, ttl_seconds)
            await replica.prepare(weights, timeout)
            await replica.activate(weights, timeout)
        except BaseException:
            if known is None:
                await replica.channel.close()
            raise
        replica.resting_until = 0.0
        if known is None:
            self._pool.members.append(replica)

    async def remove(self, address: str, *, timeout: float = _calls.GENERATE) -> None:
        """Removes a replica: it gets no new requests and has `timeout` seconds to finish its current ones; the rest is
        reassigned. Releases its lease. NotFound if there is no such replica."""
        replica = find(self._pool.members, address)
        replica.leaving = True
        try:
            async with asyncio.timeout(timeout):
                while replica.tasks:
                    await asyncio.wait(replica.tasks)
        except TimeoutError:
            replica.removed = True
            for task in replica.tasks:
                task.cancel()
            await asyncio.gather(*replica.tasks, return_exceptions=True)
        await replica.release()
        self._pool.members = [one for one in self._pool.members if one is not replica]
        await replica.channel.close()

    async def generate(
        self,
        prompts: Prompts,
        *,
        sampling: types_v1.SamplingParams,
        n: int = 1,
        request_id: str | None = None,
        version: int | None = None,
        min_version: int | None = None,
        indices: Sequence[int] = (),
        sessions: Sequence[str] = (),
        tokenizer_fingerprint: str = "",
        timeout: float = _calls.GENERATE,
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        """Like `client.rollout.generate`: one response for each index, in the order in which they finish.

        `sessions`: a name for each prompt, or empty. Prompts of one session go to the same replica while it serves, in
        this call and in others, so that an engine with a prefix cache processes a conversation once.
        Unavailable or FailedPrecondition, of the replica that refused last, if none serves until `timeout`, or for
        `patience_seconds`.
        """
        options: dict[str, object] = {
            "sampling": sampling,
            "n": n,
            "request_id": _calls.new_request_id(request_id),
            "version": version,
            "min_version": min_version,
            "tokenizer_fingerprint": tokenizer_fingerprint,
        }
        if sessions and len(sessions) != len(prompts):
            raise InvalidArgument.at("sessions", f"has {len(sessions)} names for {len(prompts)} prompts")
        end = time.monotonic() + timeout
        dispatch = Dispatch(
            self._pool,
            prompts,
            options,
            n=max(n, 1),
            tokens=max(1, sampling.max_new_tokens),
            end=end,
            sessions=sessions,
        )
        async with aclosing(dispatch.responses(set(indices) or set(range(len(prompts) * max(n, 1))))) as responses:
            async for response in responses:
                yield response

    async def status(self, *, timeout: float = _calls.QUICK) -> dict[str, rollout_v1.GetStatusResponse]:
        """The status of each replica, by address, without those that do not answer. Raises if none does."""
        found: dict[str, rollout_v1.GetStatusResponse] = {}

        async def ask(replica: Replica) -> None:
            found[replica.address] = await replica.rollout.status(timeout=timeout)

        await self._everywhere(ask, {})
        return found

    async def update_weights(
        self, weights: types_v1.WeightsRef, *, timeout: float = _calls.WEIGHTS
    ) -> dict[str, AccordError]:
        """Prepares the weights on all replicas, then activates them on those that succeeded. Returns errors by address.

        A failed replica has different weights, so requests that name the version do not use it. Raises if all failed.
        """
        failed = await self.prepare_weights(weights, timeout=timeout)
        return await self.activate_weights(weights, failed, timeout=timeout)

    async def prepare_weights(
        self, weights: types_v1.WeightsRef, *, timeout: float = _calls.WEIGHTS
    ) -> dict[str, AccordError]:
        """Fetches and verifies the weights on every replica, while the active weights serve. Returns errors by address.

        Does nothing for an engine that has one phase only, or whose active weights are these. Raises if all failed.
        """
        return await self._everywhere(lambda replica: replica.prepare(weights, timeout), {})

    async def activate_weights(
        self,
        weights: types_v1.WeightsRef,
        without: dict[str, AccordError] | None = None,
        *,
        timeout: float = _calls.WEIGHTS,
    ) -> dict[str, AccordError]:
        """Activates prepared weights, except on the replicas in `without`. Returns errors by address. Raises if all
        failed."""
        return await self._everywhere(lambda replica: replica.activate(weights, timeout), without or {})

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> dict[str, AccordError]:
        """Takes or renews the exclusive use of all replicas. Returns errors of those that do not answer, by address.

        FailedPrecondition, LEASE_HELD, names the other holder of a replica; leases taken before are kept. Raises if
        none answers. Takes the leases in the order of addresses, so that one of two competing clients gets them all.
        """
        failed: dict[str, AccordError] = {}
        members = [replica for replica in self._pool.members if not replica.leaving]
        for replica in sorted(members, key=lambda one: one.address):
            try:
                await replica.acquire(holder, ttl_seconds)
            except FailedPrecondition:
                raise
            except AccordError as error:
                failed[replica.address] = self._pool.lost(replica, error)
        if failed and len(failed) == len(members):
            raise next(iter(failed.values()))
        return failed

    async def release_lease(self) -> None:
        """Releases all leases."""
        await asyncio.gather(*(replica.release() for replica in self._pool.members))

    async def close(self) -> None:
        """Closes the connections; calls in flight are cancelled."""
        for replica in self._pool.members:
            await replica.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self, address: str, lease_token: str) -> Replica:
        channel = open_channel(address, tls=self._tls)
        return Replica(address, channel, Rollout(channel, _calls.Caller(_QUICKLY)), lease_token)

    async def _everywhere(
        self, do: Callable[[Replica], Awaitable[None]], without: dict[str, AccordError]
    ) -> dict[str, AccordError]:
        """Calls `do` for all replicas at once, except those that failed before. Returns errors by address."""
        failed = dict(without)
        members = [replica for replica in self._pool.members if not replica.leaving]
        remaining = [replica for replica in members if replica.address not in failed]
        results = await asyncio.gather(*(do(replica) for replica in remaining), return_exceptions=True)
        for replica, result in zip(remaining, results, strict=True):
            if isinstance(result, AccordError):
                failed[replica.address] = self._pool.lost(replica, result)
            elif isinstance(result, BaseException):
                raise result
        if failed and all(replica.address in failed for replica in members):
            raise next(iter(failed.values()))
        return failed
