"""Several rollout services as one: least outstanding tokens, and what a lost replica owes is asked of another.

    async with accord.Replicas(["10.0.0.1:7001", "10.0.0.2:7001"]) as rollout:
        async for response in rollout.generate(prompts, sampling=sampling, n=4, version=7): ...

A sample is keyed by (request_id, index) and drawn by its seed, wherever it is drawn: each index is yielded once,
whatever happens on the way. With `version` a replica that has other weights (one that was restarted, say) gets no part
in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc.aio

from accord import _calls
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


@dataclass
class _Replica:
    address: str
    channel: grpc.aio.Channel
    rollout: Rollout
    outstanding_tokens: int = 0
    resting_until: float = 0.0


@dataclass
class _Share:
    """What one replica was asked for: `left` are the indices that it still owes, each `tokens` at most."""

    replica: _Replica
    left: set[int]
    tokens: int
    error: AccordError | None = None


@dataclass
class _Call:
    """One `generate`: what every share of it asks with."""

    prompts: Prompts
    options: dict[str, object]
    tokens: int
    end: float
    arrived: asyncio.Queue[rollout_v1.GenerateResponse | _Share | BaseException] = field(default_factory=asyncio.Queue)


class Replicas:
    """Rollout services at `addresses`. One that fails gets nothing new for `rest_seconds`.

    Sessions are by prompt: the n samples of a prompt are drawn by one replica, which then reads the prompt once.
    """

    def __init__(self, addresses: Sequence[str], *, tls: TLS | None = None, rest_seconds: float = 2.0) -> None:
        if not addresses:
            raise InvalidArgument.at("addresses", "name at least one rollout service")
        self._rest_seconds = rest_seconds
        self._replicas = [self._open(address, tls) for address in addresses]

    @property
    def outstanding_tokens(self) -> dict[str, int]:
        """Tokens asked for and not yet answered, by address."""
        return {replica.address: replica.outstanding_tokens for replica in self._replicas}

    async def generate(
        self,
        prompts: Prompts,
        *,
        sampling: types_v1.SamplingParams,
        n: int = 1,
        request_id: str | None = None,
        version: int | None = None,
        min_version: int | None = None,
        tokenizer_fingerprint: str = "",
        timeout: float = _calls.GENERATE,
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        """As `client.rollout.generate`: one response for each index, in the order in which they are finished.

        Unavailable or FailedPrecondition, of the replica that refused last, when none serves until `timeout`.
        """
        options: dict[str, object] = {
            "sampling": sampling,
            "n": n,
            "request_id": _calls.new_request_id(request_id),
            "version": version,
            "min_version": min_version,
            "tokenizer_fingerprint": tokenizer_fingerprint,
        }
        call = _Call(prompts, options, max(1, sampling.max_new_tokens), time.monotonic() + timeout)
        missing = set(range(len(prompts) * max(n, 1)))
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._hand_out(call, missing, max(n, 1), tasks, None)
            while missing:
                event = await self._next(call)
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, _Share):
                    owed = event.left & missing
                    if owed:
                        await self._hand_out(call, owed, max(n, 1), tasks, event.error)
                    continue
                index = event.sample.index if event.HasField("sample") else event.failure.index
                if index in missing:
                    missing.discard(index)
                    yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def update_weights(
        self, weights: types_v1.WeightsRef, *, timeout: float = _calls.WEIGHTS
    ) -> dict[str, AccordError]:
        """Prepares the weights on all replicas, then activates them on those that could; who failed, and why.

        A replica that failed has other weights: requests that name the version pass it by. Raises where all failed.
        """
        failed: dict[str, AccordError] = {}

        async def prepare(replica: _Replica) -> None:
            await replica.rollout.prepare_weights(weights, timeout=timeout)

        async def activate(replica: _Replica) -> None:
            await replica.rollout.activate_weights(weights.version, timeout=timeout)

        for phase in (prepare, activate):
            able = [replica for replica in self._replicas if replica.address not in failed]
            results = await asyncio.gather(*(phase(replica) for replica in able), return_exceptions=True)
            for replica, result in zip(able, results, strict=True):
                if isinstance(result, AccordError):
                    failed[replica.address] = result
                elif isinstance(result, BaseException):
                    raise result
        if len(failed) == len(self._replicas):
            raise next(iter(failed.values()))
        return failed

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

    @staticmethod
    def _open(address: str, tls: TLS | None) -> _Replica:
        channel = open_channel(address, tls=tls)
        return _Replica(address, channel, Rollout(channel, _calls.Caller(_QUICKLY)))

    async def _hand_out(
        self, call: _Call, indices: set[int], n: int, tasks: set[asyncio.Task[None]], error: AccordError | None
    ) -> None:
        """Gives each prompt's indices to the replica that owes the fewest tokens; waits where all rest."""
        while not (able := [one for one in self._replicas if one.resting_until <= time.monotonic()]):
            due = min(one.resting_until for one in self._replicas)
            if due >= call.end:
                raise error or Unavailable("no replica serves", reason="NO_REPLICA")
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        shares: dict[str, _Share] = {}
        for prompt in sorted({index // n for index in indices}):
            replica = min(able, key=lambda one: one.outstanding_tokens)
            mine = {index for index in indices if index // n == prompt}
            shares.setdefault(replica.address, _Share(replica, set(), call.tokens)).left |= mine
            replica.outstanding_tokens += len(mine) * call.tokens
        for share in shares.values():
            task = asyncio.create_task(self._draw(call, share))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _draw(self, call: _Call, share: _Share) -> None:
        """Asks a replica for its share; at the end tells what it still owes, or the error that ends the call."""
        replica, asked = share.replica, sorted(share.left)
        try:
            stream = replica.rollout.generate(
                call.prompts,
                indices=asked,
                timeout=max(0.001, call.end - time.monotonic()),
                **call.options,  # type: ignore[arg-type]
            )
            async with aclosing(stream) as responses:  # type: ignore[type-var]
                async for response in responses:
                    index = response.sample.index if response.HasField("sample") else response.failure.index
                    share.left.discard(index)
                    replica.outstanding_tokens -= share.tokens
                    call.arrived.put_nowait(response)
        except (Unavailable, FailedPrecondition, ResourceExhausted) as error:
            if not isinstance(error, Unavailable) and error.reason not in _ELSEWHERE:
                call.arrived.put_nowait(error)
                return
            replica.resting_until = time.monotonic() + self._rest_seconds
            share.error = error
            call.arrived.put_nowait(share)
        except AccordError as error:
            call.arrived.put_nowait(error)
        finally:
            replica.outstanding_tokens -= len(share.left) * share.tokens

    async def _next(self, call: _Call) -> rollout_v1.GenerateResponse | _Share | BaseException:
        try:
            return await asyncio.wait_for(call.arrived.get(), max(0.001, call.end - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceeded("the samples were not all there when the deadline passed") from None
