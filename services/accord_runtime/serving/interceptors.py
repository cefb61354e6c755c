"""The edge around every call: applies the deadline, checks fields, and converts errors to statuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from accord.errors import Cancelled, Unavailable
from accord_runtime.observability.metrics import Call, Metrics
from accord_runtime.serving import validation
from accord_runtime.serving.status import as_accord_error, to_status

log = logging.getLogger(__name__)

# The edge handles any message and any handler, so these types are open.
Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every method with deadline, validation and translation of errors. Refuses new calls while draining."""

    def __init__(self, max_call_seconds: float, metrics: Metrics) -> None:
        self._max_call_seconds = max_call_seconds
        self._metrics = metrics
        self.draining = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/accord."):
            return handler
        method = handler_call_details.method
        wrapped = self._streaming(method, handler) if handler.response_streaming else self._unary(method, handler)
        name = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        make = getattr(grpc, f"{name}_rpc_method_handler")
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _unary(self, method: str, handler: Handler) -> Callable[[Any, Context], Awaitable[Any]]:
        behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def call(request: Any, context: Context) -> Any:
            with self._metrics.call(method) as measured:
                try:
                    self._refuse_when_draining()
                    async with asyncio.timeout(self._seconds(context)):
                        return await behaviour(_checked(request), context)
                except asyncio.CancelledError:
                    raise  # the caller disconnected: gRPC ends the call, and the handler was cancelled
                except Exception as error:  # noqa: BLE001  every error becomes a status here
                    await _abort(method, context, error, measured)

        return call

    def _streaming(self, method: str, handler: Handler) -> Callable[[Any, Context], AsyncIterator[Any]]:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._metrics.call(method) as measured:
                try:
                    self._refuse_when_draining()
                    deadline = asyncio.get_running_loop().time() + self._seconds(context)
                    responses = behaviour(_checked(request), context)
                    try:
                        while True:
                            async with asyncio.timeout_at(deadline):
                                response = await anext(responses)
                            yield response
                    except StopAsyncIteration:
                        return
                    finally:
                        await responses.aclose()
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001  every error becomes a status here
                    await _abort(method, context, error, measured)

        return call

    def _refuse_when_draining(self) -> None:
        if self.draining:
            raise Unavailable("the service is shutting down. Repeat the call shortly", reason="DRAINING")

    def _seconds(self, context: Context) -> float:
        remaining = context.time_remaining()
        return self._max_call_seconds if remaining is None else min(remaining, self._max_call_seconds)


def _checked(request: Any) -> Any:
    """A request or a stream of requests, each checked as it arrives."""
    if isinstance(request, Message):
        validation.check(request)
        return request
    return _checked_stream(request)


async def _checked_stream(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        validation.check(request)
        yield request


async def _abort(method: str, context: Context, error: Exception, measured: Call) -> None:
    known = as_accord_error(error)
    measured.code = known.code
    if not isinstance(known, Cancelled):
        log.info("%s: %s %s: %s", method, known.code.name, known.reason, known.message)
    await context.abort_with_status(to_status(known))
