"""Executes a call once for each request_id; a repeat attaches to the first call or gets its result.

The key is the method and the request_id, and the content is compared: the same request_id with different content is
AlreadyExists, REQUEST_ID_REUSED. The lease token is not part of the content, because a restarted controller repeats its
calls under a new lease. There are two back ends. After a restart of the service, the result of a repeat depends on the
back end:

| service    | calls                                        | after a restart, by                                      |
|------------|----------------------------------------------|----------------------------------------------------------|
| preference | every call with a request_id                 | the same response: table `requests` (OnceInTransaction)  |
| controller | CreateRun                                    | the same run: row of `runs`, by name and spec            |
| controller | SwapEngine                                   | the same swap: the run's status holds its request_id     |
| controller | PromoteModel, RollBackModel                  | the same model: row of `model_changes`                   |
| controller | CancelRun, PauseRun                          | the same state: they change nothing the second time      |
| controller | ResumeRun, UpdateRun, CollectGarbage         | nothing (OnceInMemory): they run again                   |
| trainer    | CreateTraining                               | the same training: its manifest, by name and content     |
| trainer    | Step                                         | the same result: history in the checkpoint, or, when the |
|            |                                              | step was not in one, computed again with the same result |
| trainer    | Publish, Checkpoint                          | the same version: files on disk                          |
| trainer    | DeleteTraining, FreeArtifacts                | nothing (OnceInMemory): what is gone is NotFound or      |
|            |                                              | not counted again                                        |
| rollout    | Update-, Prepare-, Activate-, DiscardWeights | nothing (OnceInMemory): the weights are gone as well     |
| rollout    | Generate                                     | the same samples for the same seeds and weights; nothing |
|            |                                              | is remembered                                            |
| reward     | LoadModel, UnloadModel                       | nothing (OnceInMemory): the models are gone as well      |
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message

from accord.errors import Aborted, AlreadyExists, InvalidArgument
from accord_runtime.serving.leases import LeaseTable

T = TypeVar("T")
M = TypeVar("M", bound=Message)
# The number of attempts at a transaction that conflicts with others.
ATTEMPTS = 8


def content_of(request: Message) -> str:
    """The digest of a request's content: its type and its fields, without the lease token."""
    if "lease_token" in request.DESCRIPTOR.fields_by_name:
        bare = type(request)()
        bare.CopyFrom(request)
        bare.ClearField("lease_token")
        request = bare
    named = request.DESCRIPTOR.full_name.encode() + b"\n" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(named).hexdigest()


class OnceInMemory:
    """Remembers the last `capacity` results. Failed calls are forgotten, so a repeat tries again.

    The work continues if its caller disconnects, because another caller may be attached to it.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._calls: OrderedDict[tuple[str, str], tuple[str, asyncio.Task[Any]]] = OrderedDict()

    async def run(self, request_id: str, request: Message, make: Callable[[], Awaitable[T]]) -> T:
        """The result of `make` for this method and request_id. AlreadyExists, REQUEST_ID_REUSED, if `request` differs
        from the first."""
        # A request type belongs to one method, so its name stands for the method.
        key, content = (request.DESCRIPTOR.full_name, request_id), content_of(request)
        known = self._calls.get(key)
        if known and known[0] != content:
            raise _reused(request_id)
        if known is None:
            task: asyncio.Task[T] = asyncio.ensure_future(_as_coroutine(make))
            self._calls[key] = (content, task)
            task.add_done_callback(lambda done: self._settle(key, done))
        else:
            task = known[1]
        return await asyncio.shield(task)

    def _settle(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._calls.pop(key, None)
        finished = [key for key, (_, known) in self._calls.items() if known.done()]
        for old in finished[: max(0, len(finished) - self._capacity)]:
            del self._calls[old]


class OnceUnderLease:
    """`OnceInMemory` for calls that need the service's lease: the holder's calls are executed once, other calls are
    refused."""

    def __init__(self, leases: LeaseTable) -> None:
        self._leases = leases
        self._once = OnceInMemory()

    async def run(self, request: Any, make: Callable[[], Awaitable[T]]) -> T:
        """Like `OnceInMemory.run`, for a message with `request_id` and `lease_token`. FailedPrecondition,
        LEASE_HELD."""
        self._leases.check(request.lease_token)
        return await self._once.run(request.request_id, request, make)


class KeptResponse(NamedTuple):
    """The response to a request_id: the digest of the request (`content_of`) and the serialised response."""

    request_id: str
    content: str
    response: bytes


class KeepsResponses(Protocol):
    """A transaction that can also keep responses."""

    async def request(self, request_id: str) -> KeptResponse | None:
        """The response that was kept for this request_id, if any."""
        ...

    async def remember(self, row: KeptResponse, now_us: int) -> None:
        """Keeps a response for repeats of its request_id."""
        ...


W = TypeVar("W", bound=KeepsResponses)
W_co = TypeVar("W_co", bound=KeepsResponses, covariant=True)


class Transactions(Protocol[W_co]):
    """The object that opens transactions."""

    def writing(self, *, steady: bool = False) -> AbstractAsyncContextManager[W_co]:
        """A transaction that is committed as a whole or not at all; Aborted, DATABASE_CONFLICT, if it may run again."""
        ...


class OnceInTransaction(Generic[W]):
    """Remembers every response permanently, in the same transaction as the request's changes to the database.

    The key of its table is the request_id alone, and the method is part of the content: a request_id that another
    method has used is refused.
    """

    def __init__(self, transactions: Transactions[W], now_us: Callable[[], int]) -> None:
        self._transactions = transactions
        self._now_us = now_us

    async def run(
        self,
        request_id: str,
        request: Message | str,
        response_type: type[M],
        change: Callable[[W], Awaitable[M]],
        *,
        keep: Callable[[M], bool] = lambda _: True,
        steady: bool = False,
    ) -> M:
        """Runs `change` in one transaction, or returns the earlier response to this request_id.

        `request`: the message, or the digest of a stream of them. If `keep` is false for a response, the call changed
        nothing, and a repeat tries again. `change` runs again if it conflicts with other transactions. Raises
        AlreadyExists, REQUEST_ID_REUSED, if the request_id was used with different content.
        """
        if not request_id:
            raise InvalidArgument.at("request_id", "must be set. Use the same request_id to repeat the call safely")
        content = request if isinstance(request, str) else content_of(request)

        async def transaction() -> M:
            async with self._transactions.writing(steady=steady) as tx:
                known = await tx.request(request_id)
                if known is not None:
                    if known.content != content:
                        raise _reused(request_id)
                    return response_type.FromString(known.response)
                response = await change(tx)
                if keep(response):
                    kept = KeptResponse(request_id, content, response.SerializeToString())
                    await tx.remember(kept, self._now_us())
                return response

        return await retrying(transaction)


async def retrying(transaction: Callable[[], Awaitable[T]]) -> T:
    """The result of `transaction`, run again while it conflicts with others. Aborted after the last attempt."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return await transaction()
        except Aborted as error:
            if error.reason != "DATABASE_CONFLICT":
                raise
        # A random pause, so that the same transactions do not conflict again.
        await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
    return await transaction()


def _reused(request_id: str) -> AlreadyExists:
    return AlreadyExists(
        f"request_id {request_id} was used for another request. Use a new one",
        reason="REQUEST_ID_REUSED",
        metadata={"request_id": request_id},
    )


async def _as_coroutine(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
