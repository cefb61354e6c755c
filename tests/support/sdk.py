"""Real gRPC servers for the tests of the SDK: Accord's own serving glue around small servicers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import grpc.aio

from accord import RetryPolicy
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_runtime.serving.server import start
from accord_runtime.serving.settings import ServiceSettings

T = TypeVar("T")
FAST = RetryPolicy(attempts=8, first=0.05, longest=0.3)
PATIENT = RetryPolicy(attempts=100, first=0.1, longest=0.3)
SAMPLING = types_v1.SamplingParams(max_new_tokens=4)


class Servicers:
    """A service made of one servicer."""

    service_names: Sequence[str] = ()

    def __init__(self, add: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        self._add = add
        self._servicer = servicer

    def register(self, server: grpc.aio.Server) -> None:
        self._add(self._servicer, server)

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def serve(add: Callable[[Any, grpc.aio.Server], None], servicer: object, port: int = 0) -> AsyncIterator[str]:
    """Serves and gives the address; at the end calls in work are cut off, as when a process dies."""
    running = await start(Servicers(add, servicer), ServiceSettings(port=port))
    try:
        yield running.address
    finally:
        await running.stop(0)


@contextmanager
def serve_in_thread(add: Callable[[Any, grpc.aio.Server], None], servicer: object) -> Iterator[str]:
    """The same, in an event loop of another thread: for clients that block theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = serve(add, servicer)
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def sample(request: rollout_v1.GenerateRequest, index: int) -> rollout_v1.GenerateResponse:
    """What an engine answers for one index."""
    return rollout_v1.GenerateResponse(
        sample=types_v1.Sample(
            request_id=request.request_id,
            index=index,
            response_token_ids=[index + 1],
            text=f"answer {index}",
            finish_reason=types_v1.FINISH_REASON_STOP,
        )
    )


def asked(request: rollout_v1.GenerateRequest) -> list[int]:
    """The indices that a request asks for."""
    return list(request.indices) or list(range(len(request.prompts) * max(request.n, 1)))


class Engine(rollout_v1.RolloutServiceServicer):
    """An engine that answers at once, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[rollout_v1.GenerateRequest] = []
        self.cancelled = asyncio.Event()

    async def Generate(self, request, context):  # type: ignore[no-untyped-def]
        self.requests.append(rollout_v1.GenerateRequest.FromString(request.SerializeToString()))
        async for response in self.answer(request, len(self.requests)):
            yield response

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        for index in asked(request):
            yield sample(request, index)

    async def UpdateWeights(self, request, context):  # type: ignore[no-untyped-def]
        return rollout_v1.UpdateWeightsResponse(version=request.weights.version, digest=request.weights.digest)

    async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
        return rollout_v1.GetStatusResponse(engine="echo", ready=True)

    async def AcquireLease(self, request, context):  # type: ignore[no-untyped-def]
        return rollout_v1.AcquireLeaseResponse(lease=types_v1.Lease(holder=request.holder, token="secret"))

    async def ReleaseLease(self, request, context):  # type: ignore[no-untyped-def]
        return rollout_v1.ReleaseLeaseResponse()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def collect(stream: AsyncIterator[T], into: list[T]) -> list[T]:
    """Everything from a stream, put into a list as it comes, so that it is there when the stream fails."""
    async for item in stream:
        into.append(item)
    return into
