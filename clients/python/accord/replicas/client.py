"""Several rollout services as one: least outstanding tokens, and what a lost replica owes is asked of another.

    async with accord.Replicas(["10.0.0.1:7001", "10.0.0.2:7001"]) as rollout:
        await rollout.update_weights(weights)
        async for response in rollout.generate(prompts, sampling=sampling, n=4, version=7): ...

A sample is keyed by (request_id, index) and drawn by its seed, wherever it is drawn: each index is yielded once,
whatever happens on the way. With `version` a replica that has other weights (one that was restarted, say) gets no part
in it. Replicas join (`add`) and leave (`remove`) while samples are being drawn. With `hedge_seconds` what a slow or
silent replica owes is asked of another too, and the first answer counts.
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
    """Rollout services at `addresses`. One that fails gets nothing new for `rest_seconds`.

    `patience_seconds`: a call ends when none has served for so long; None: it waits until its timeout. `on_lost` is
    told when a replica did not do its part. `hedge_seconds`: what a replica has not brought after so long without a
    sign is asked of one that owes less, as well; None: never. The n samples of a prompt are drawn by one replica, which
    then reads the prompt once.
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
            raise InvalidArgument.at("addresses", "name at least one rollout service")
        if hedge_seconds is not None and not hedge_seconds > 0:
            raise InvalidArgument.at("hedge_seconds", f"must be above 0, not {hedge_seconds}")
        self._tls = tls
        self._pool = Pool(rest_seconds, patience_seconds, hedge_seconds, on_lost)
        for address in addresses:
            self.add(address)

    @property
    def addresses(self) -> list[str]:
        """Where the replicas are that take work."""
        return [replica.address for replica in self._pool.members if not replica.leaving]

    @property
    def lease_tokens(self) -> dict[str, str]:
        """The tokens of the leases that are held, by address; empty where there is none."""
        return {replica.address: replica.lease_token for replica in self._pool.members if not replica.leaving}

    @property
    def outstanding_tokens(self) -> dict[str, int]:
        """Tokens asked for and not yet answered, by address."""
        return {replica.address: replica.outstanding_tokens for replica in self._pool.members}

    @property
    def hedged_samples(self) -> int:
        """Samples that a second replica was asked for, so far."""
        return self._pool.hedged_samples

    @property
    def failed_sources(self) -> dict[str, list[rollout_v1.FailedSource]]:
        """Of the weights given last, by address: the sources that did not serve before one did, and why."""
        return {one.address: one.failed_sources for one in self._pool.members if one.failed_sources}

    def add(self, address: str, *, lease_token: str = "") -> None:
        """A further replica; it takes work from now on. Give it the weights first where requests name no version."""
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
        """Lets a replica take part, new or again: leased, where `holder` is given, and with `weights` in force before
        it gets any work. Raises, and leaves it out, where that fails."""
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
        """Takes a replica out: nothing new for it, and what it is drawing comes to its end within `timeout` seconds; of
        what is not done then the other replicas are asked. Its lease is given back. NotFound."""
        replica = find(self._pool.members, address)
        replica.leaving = True
        try:
            async with asyncio.timeout(timeout):
                while replica.work:
                    await asyncio.wait(replica.work)
        except TimeoutError:
            replica.gone = True
            for task in replica.work:
                task.cancel()
            await asyncio.gather(*replica.work, return_exceptions=True)
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
        """As `client.rollout.generate`: one response for each index, in the order in which they are finished.

        `sessions`, a name for each prompt or empty: prompts of one session go to the same replica as long as it serves,
        in this call and in others, so that an engine that caches prefixes reads a conversation once.
        Unavailable or FailedPrecondition, of the replica that refused last, when none serves until `timeout`, or for
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
            raise InvalidArgument.at("sessions", f"are {len(sessions)} for {len(prompts)} prompts")
        end = time.monotonic() + timeout
        drawing = Dispatch(
            self._pool,
            prompts,
            options,
            n=max(n, 1),
            tokens=max(1, sampling.max_new_tokens),
            end=end,
            sessions=sessions,
        )
        async with aclosing(drawing.responses(set(indices) or set(range(len(prompts) * max(n, 1))))) as responses:
            async for response in responses:
                yield response

    async def status(self, *, timeout: float = _calls.QUICK) -> dict[str, rollout_v1.GetStatusResponse]:
        """What each replica says of itself, by address, without those that do not answer. Raises where none does."""
        found: dict[str, rollout_v1.GetStatusResponse] = {}

        async def ask(replica: Replica) -> None:
            found[replica.address] = await replica.rollout.status(timeout=timeout)

        await self._everywhere(ask, {})
        return found

    async def update_weights(
        self, weights: types_v1.WeightsRef, *, timeout: float = _calls.WEIGHTS
    ) -> dict[str, AccordError]:
        """Prepares the weights on all replicas, then activates them on those that could; who failed, and why.

        A replica that failed has other weights: requests that name the version pass it by. Raises where all failed.
        """
        failed = await self.prepare_weights(weights, timeout=timeout)
        return await self.activate_weights(weights, failed, timeout=timeout)

    async def prepare_weights(
        self, weights: types_v1.WeightsRef, *, timeout: float = _calls.WEIGHTS
    ) -> dict[str, AccordError]:
        """Fetches and verifies on every replica, while the weights in force serve; who failed. Raises where all did.

        An engine that has one phase only does nothing yet, one that has these weights in force neither.
        """
        return await self._everywhere(lambda replica: replica.prepare(weights, timeout), {})

    async def activate_weights(
        self,
        weights: types_v1.WeightsRef,
        without: dict[str, AccordError] | None = None,
        *,
        timeout: float = _calls.WEIGHTS,
    ) -> dict[str, AccordError]:
        """Puts prepared weights in force, except on those `without` them; who failed. Raises where all did."""
        return await self._everywhere(lambda replica: replica.activate(weights, timeout), without or {})

    async def acquire_lease(self, holder: str, *, ttl_seconds: float) -> dict[str, AccordError]:
        """Takes or renews the exclusive use of all replicas; who does not answer. FailedPrecondition, LEASE_HELD, names
        the holder of one that somebody else has: those taken before stay taken. Raises where none answers.

        One after the other, by address: of two that want the same replicas one gets all.
        """
        failed: dict[str, AccordError] = {}
        able = [replica for replica in self._pool.members if not replica.leaving]
        for replica in sorted(able, key=lambda one: one.address):
            try:
                await replica.acquire(holder, ttl_seconds)
            except FailedPrecondition:
                raise
            except AccordError as error:
                failed[replica.address] = self._pool.lost(replica, error)
        if failed and len(failed) == len(able):
            raise next(iter(failed.values()))
        return failed

    async def release_lease(self) -> None:
        """Gives every lease back."""
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
        """`do` for all replicas at once, save those that failed before; who has failed by now."""
        failed = dict(without)
        members = [replica for replica in self._pool.members if not replica.leaving]
        able = [replica for replica in members if replica.address not in failed]
        results = await asyncio.gather(*(do(replica) for replica in able), return_exceptions=True)
        for replica, result in zip(able, results, strict=True):
            if isinstance(result, AccordError):
                failed[replica.address] = self._pool.lost(replica, result)
            elif isinstance(result, BaseException):
                raise result
        if failed and all(replica.address in failed for replica in members):
            raise next(iter(failed.values()))
        return failed
