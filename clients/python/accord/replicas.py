"""Several rollout services as one: least outstanding tokens, and what a lost replica owes is asked of another.

    async with accord.Replicas(["10.0.0.1:7001", "10.0.0.2:7001"]) as rollout:
        await rollout.update_weights(weights)
        async for response in rollout.generate(prompts, sampling=sampling, n=4, version=7): ...

A sample is keyed by (request_id, index) and drawn by its seed, wherever it is drawn: each index is yielded once,
whatever happens on the way. With `version` a replica that has other weights (one that was restarted, say) gets no part
in it. Replicas join (`add`) and leave (`remove`) while samples are being drawn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from accord import _calls
from accord._replica import Replica, Share, find
from accord.areas.rollout import Rollout
from accord.channel import TLS, open_channel
from accord.errors import (
    AccordError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

# What another replica, or the same one later, may answer otherwise.
_ELSEWHERE = ("NO_WEIGHTS", "VERSION_MISMATCH", "LEASE_HELD", "OVERLOADED")
_QUICKLY = _calls.RetryPolicy(attempts=2, first=0.1, longest=0.2)
Prompts = Sequence[rollout_v1.Prompt | types_v1.Conversation | str]
# Told the address and the error when a replica did not do its part.
OnLost = Callable[[str, AccordError], None]


@dataclass
class _Call:
    """One `generate`: what every share of it asks with. `troubled_since`: when the last replica was lost since the last
    sample came, seconds of the monotonic clock."""

    prompts: Prompts
    options: dict[str, object]
    n: int
    tokens: int
    end: float
    troubled_since: float | None = None
    arrived: asyncio.Queue[rollout_v1.GenerateResponse | Share | BaseException] = field(default_factory=asyncio.Queue)


class Replicas:
    """Rollout services at `addresses`. One that fails gets nothing new for `rest_seconds`.

    `patience_seconds`: a call ends when none has served for so long; None: it waits until its timeout. `on_lost` is
    told when a replica did not do its part. Sessions are by prompt: the n samples of a prompt are drawn by one replica,
    which then reads the prompt once.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        tls: TLS | None = None,
        rest_seconds: float = 2.0,
        patience_seconds: float | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        if not addresses:
            raise InvalidArgument.at("addresses", "name at least one rollout service")
        self._tls = tls
        self._rest_seconds = rest_seconds
        self._patience_seconds = patience_seconds
        self._on_lost = on_lost
        self._replicas: list[Replica] = []
        for address in addresses:
            self.add(address)

    @property
    def addresses(self) -> list[str]:
        """Where the replicas are that take work."""
        return [replica.address for replica in self._replicas if not replica.leaving]

    @property
    def lease_tokens(self) -> dict[str, str]:
        """The tokens of the leases that are held, by address; empty where there is none."""
        return {replica.address: replica.lease_token for replica in self._replicas if not replica.leaving}

    @property
    def outstanding_tokens(self) -> dict[str, int]:
        """Tokens asked for and not yet answered, by address."""
        return {replica.address: replica.outstanding_tokens for replica in self._replicas}

    def add(self, address: str, *, lease_token: str = "") -> None:
        """A further replica; it takes work from now on. Give it the weights first where requests name no version."""
        if address not in self.addresses:
            self._replicas.append(self._open(address, lease_token))

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
        known = next((one for one in self._replicas if one.address == address and not one.leaving), None)
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
            self._replicas.append(replica)

    async def remove(self, address: str, *, timeout: float = _calls.GENERATE) -> None:
        """Takes a replica out: nothing new for it, and what it is drawing comes to its end within `timeout` seconds; of
        what is not done then the other replicas are asked. Its lease is given back. NotFound."""
        replica = find(self._replicas, address)
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
        self._replicas = [one for one in self._replicas if one is not replica]
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
        tokenizer_fingerprint: str = "",
        timeout: float = _calls.GENERATE,
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        """As `client.rollout.generate`: one response for each index, in the order in which they are finished.

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
        call = _Call(prompts, options, max(n, 1), max(1, sampling.max_new_tokens), time.monotonic() + timeout)
        missing = set(indices) or set(range(len(prompts) * call.n))
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._hand_out(call, missing, tasks, None)
            while missing:
                event = await self._next(call)
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, Share):
                    owed = event.left & missing
                    if owed:
                        await self._hand_out(call, owed, tasks, event.error)
                    continue
                call.troubled_since = None
                index = _index(event)
                if index in missing:
                    missing.discard(index)
                    yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
        able = [replica for replica in self._replicas if not replica.leaving]
        for replica in sorted(able, key=lambda one: one.address):
            try:
                await replica.acquire(holder, ttl_seconds)
            except FailedPrecondition:
                raise
            except AccordError as error:
                failed[replica.address] = self._lost(replica, error)
        if failed and len(failed) == len(able):
            raise next(iter(failed.values()))
        return failed

    async def release_lease(self) -> None:
        """Gives every lease back."""
        await asyncio.gather(*(replica.release() for replica in self._replicas))

    async def close(self) -> None:
        """Closes the connections; calls in flight are cancelled."""
        for replica in self._replicas:
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
        members = [replica for replica in self._replicas if not replica.leaving]
        able = [replica for replica in members if replica.address not in failed]
        results = await asyncio.gather(*(do(replica) for replica in able), return_exceptions=True)
        for replica, result in zip(able, results, strict=True):
            if isinstance(result, AccordError):
                failed[replica.address] = self._lost(replica, result)
            elif isinstance(result, BaseException):
                raise result
        if failed and all(replica.address in failed for replica in members):
            raise next(iter(failed.values()))
        return failed

    async def _hand_out(
        self, call: _Call, indices: set[int], tasks: set[asyncio.Task[None]], error: AccordError | None
    ) -> None:
        """Gives each prompt's indices to the replica that owes the fewest tokens; waits where all rest."""
        if error is not None and call.troubled_since is None:
            call.troubled_since = time.monotonic()
        while not (able := [one for one in self._replicas if one.takes_work()]):
            resting = [one.resting_until for one in self._replicas if not one.leaving]
            due = min(resting, default=time.monotonic() + self._rest_seconds)
            if due >= self._most(call):
                raise error or Unavailable("no replica serves", reason="NO_REPLICA")
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        shares: dict[str, Share] = {}
        for prompt in sorted({index // call.n for index in indices}):
            replica = min(able, key=lambda one: one.outstanding_tokens)
            mine = {index for index in indices if index // call.n == prompt}
            shares.setdefault(replica.address, Share(replica, set(), call.tokens)).left |= mine
            replica.outstanding_tokens += len(mine) * call.tokens
        for share in shares.values():
            task = asyncio.create_task(self._draw(call, share))
            for kept in (tasks, share.replica.work):
                kept.add(task)
                task.add_done_callback(kept.discard)

    def _most(self, call: _Call) -> float:
        """When a call that nobody serves ends."""
        if self._patience_seconds is None:
            return call.end
        if call.troubled_since is None:
            call.troubled_since = time.monotonic()
        return min(call.end, call.troubled_since + self._patience_seconds)

    async def _draw(self, call: _Call, share: Share) -> None:
        """Asks a replica for its share; at the end tells what it still owes, or the error that ends the call."""
        replica, asked = share.replica, sorted(share.left)
        everything = len(asked) == len(call.prompts) * call.n
        try:
            stream = replica.rollout.generate(
                call.prompts,
                indices=() if everything else asked,
                lease_token=replica.lease_token,
                timeout=max(0.001, call.end - time.monotonic()),
                **call.options,  # type: ignore[arg-type]
            )
            async with aclosing(stream) as responses:  # type: ignore[type-var]
                async for response in responses:
                    share.left.discard(_index(response))
                    replica.outstanding_tokens -= share.tokens
                    call.arrived.put_nowait(response)
        except (Unavailable, FailedPrecondition, ResourceExhausted) as error:
            if not isinstance(error, Unavailable) and error.reason not in _ELSEWHERE:
                call.arrived.put_nowait(error)
                return
            share.error = self._lost(replica, error)
            call.arrived.put_nowait(share)
        except AccordError as error:
            call.arrived.put_nowait(error)
        except asyncio.CancelledError:
            if not replica.gone:
                raise
            share.error = Unavailable(f"the replica at {replica.address} was taken out", reason="REPLICA_REMOVED")
            call.arrived.put_nowait(share)
        finally:
            replica.outstanding_tokens -= len(share.left) * share.tokens

    def _lost(self, replica: Replica, error: AccordError) -> AccordError:
        """The replica rests, and whoever wants to know is told."""
        replica.resting_until = time.monotonic() + self._rest_seconds
        if self._on_lost is not None and not replica.leaving:
            self._on_lost(replica.address, error)
        return error

    async def _next(self, call: _Call) -> rollout_v1.GenerateResponse | Share | BaseException:
        try:
            return await asyncio.wait_for(call.arrived.get(), max(0.001, call.end - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceeded("the samples were not all there when the deadline passed") from None


def _index(response: rollout_v1.GenerateResponse) -> int:
    return response.sample.index if response.HasField("sample") else response.failure.index
