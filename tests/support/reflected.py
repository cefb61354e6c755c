"""A client that knows nothing but an address, as grpcurl: services, messages and methods come from reflection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status


class Reflected:
    """What a server says of itself, and calls made from that alone."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        database = ProtoReflectionDescriptorDatabase(channel)
        self.services = sorted(database.get_services())
        self._pool = DescriptorPool(database)

    def methods(self, service: str) -> list[MethodDescriptor]:
        """The methods of a service by its full name."""
        return list(self._pool.FindServiceByName(service).methods)

    def call(self, method: MethodDescriptor, timeout: float = 20, **fields: Any) -> list[Message]:
        """The responses to one request with these fields; grpc.RpcError as the server gave it."""
        request = GetMessageClass(method.input_type)(**fields)
        shape = ("stream" if method.client_streaming else "unary") + (
            "_stream" if method.server_streaming else "_unary"
        )
        invoke = getattr(self._channel, shape)(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        response = invoke(iter([request]) if method.client_streaming else request, timeout=timeout)
        return list(response) if method.server_streaming else [response]


@contextmanager
def reflecting(address: str) -> Iterator[Reflected]:
    """A reflected client for the length of a `with` block."""
    with grpc.insecure_channel(address) as channel:
        yield Reflected(channel)


def details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    """ErrorInfo and BadRequest of a failed call; empty messages where the server sent none."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        for known in (info, bad):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    return info, bad
