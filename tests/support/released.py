"""Contracts as they were released: their messages and calls, made from the recorded descriptors alone.

Nothing of today's generated code is in it: a message is one of the release, a field that came later is not known to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

FOLDER = Path(__file__).resolve().parents[1] / "contracts" / "released"
SECONDS = 60.0


class Contract:
    """One release's contract; `name` is v0.1.0."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file

    @cached_property
    def _pool(self) -> DescriptorPool:
        pool = DescriptorPool()
        for file in self._files:
            pool.Add(file)
        return pool

    @cached_property
    def methods(self) -> dict[str, MethodDescriptor]:
        """Every call by its path, `/accord.rollout.v1.RolloutService/Generate`."""
        services = [self._pool.FindServiceByName(f"{f.package}.{s.name}") for f in self._files for s in f.service]
        return {
            f"/{service.full_name}/{method.name}": method
            for service in services
            if service.full_name.startswith("accord.")
            for method in service.methods
        }

    def request(self, method: MethodDescriptor, **fields: Any) -> Message:
        """A request of the release. ValueError for a field that it does not know."""
        return GetMessageClass(method.input_type)(**fields)

    def known(self, message: Message) -> Message:
        """A message of today as a program of the release makes it: without what came later."""
        kind = GetMessageClass(self._pool.FindMessageTypeByName(message.DESCRIPTOR.full_name))
        return kind.FromString(_known(kind.DESCRIPTOR, message.SerializeToString()))


def contracts() -> list[Contract]:
    """Every release that is recorded, oldest first."""
    paths = FOLDER.glob("v*.binpb")
    return [Contract(path) for path in sorted(paths, key=lambda path: [int(n) for n in path.stem[1:].split(".")])]


class OldClient:
    """What a program that was written for a release does: its calls at `addresses` of today's services, by service name
    (`rollout`); `called` are the paths of those it has made."""

    def __init__(self, contract: Contract, addresses: dict[str, str]) -> None:
        self.contract = contract
        self._channels = {name: grpc.aio.insecure_channel(address) for name, address in addresses.items()}
        self.called: set[str] = set()

    async def call(self, service: str, method: str, *requests: dict[str, Any], **fields: Any) -> Any:
        """One answer. `method` is RolloutService/GetStatus; `requests` are those of a client stream."""
        answers = [answer async for answer in self.stream(service, method, *requests, **fields)]
        assert len(answers) == 1, f"{method} answered {len(answers)} times"
        return answers[0]

    async def stream(self, service: str, method: str, *requests: dict[str, Any], **fields: Any) -> AsyncIterator[Any]:
        """The answers of a call as they come."""
        descriptor = next(found for path, found in self.contract.methods.items() if path.endswith(f".v1.{method}"))
        path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        self.called.add(path)
        answer = GetMessageClass(descriptor.output_type)
        messages = [self.contract.request(descriptor, **one) for one in requests or (fields,)]
        # On the wire a call with one request or one answer is a stream of one.
        invoke = self._channels[service].stream_stream(
            path, request_serializer=type(messages[0]).SerializeToString, response_deserializer=answer.FromString
        )
        async for message in invoke(iter(messages), timeout=SECONDS):
            yield message

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels.values():
            await channel.close()


@asynccontextmanager
async def older(contract: Contract, address: str) -> AsyncIterator[str]:
    """A service of a release, at the address that it gives: today's at `address`, seen through the release's contract.

    A field that came later is lost in requests and in answers, a call that came later is UNIMPLEMENTED, as by a server
    that was built from it.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Narrow(contract, channel),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0.2)


class _Narrow(grpc.GenericRpcHandler):
    def __init__(self, contract: Contract, channel: grpc.aio.Channel) -> None:
        self._contract = contract
        self._channel = channel

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The calls of the release, and those of gRPC's own health service."""
        method = self._contract.methods.get(details.method)
        if method is None and not details.method.startswith("/grpc.health.v1."):
            return None

        async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def narrowed() -> AsyncIterator[bytes]:
                async for request in requests:
                    yield _known(method and method.input_type, request)

            call = self._channel.stream_stream(details.method)(narrowed(), timeout=context.time_remaining())
            try:
                async for answer in call:
                    yield _known(method and method.output_type, answer)
            except grpc.aio.AioRpcError as error:
                trailers = tuple(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "", trailers)
            finally:
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(handle)


def _known(kind: Any, data: bytes) -> bytes:
    """The message without what its type of the release does not know; as it is where `kind` is None."""
    if kind is None:
        return data
    message = GetMessageClass(kind).FromString(data)
    message.DiscardUnknownFields()  # type: ignore[no-untyped-call]
    return message.SerializeToString()
