"""Channels to Accord's services: message limits, keepalive, TLS, and errors as `accord.errors`.

async with open_channel("127.0.0.1:7001") as channel:
    stub = rollout_v1.RolloutServiceStub(channel)
    await stub.GetStatus(rollout_v1.GetStatusRequest(), timeout=10)   # raises accord.errors.Unavailable, ...
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from accord._status import from_rpc_error
from accord.errors import FailedPrecondition

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# Pings are just over 5 minutes apart: a gRPC server with default settings closes connections that ping more often, and
# rollout engines may be third-party. The death of a process on a running machine is noticed at once without pings.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Weights are sent in large messages: frames of gRPC's default 16 KiB would take 1.5 times the CPU time.
    ("grpc.http2.max_frame_size", 16_777_215),
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Reconnect to a restarted service within a second or two, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Each client has its own connections: closing or breaking one does not affect others.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class TLS:
    """How to reach a service over TLS. Files are PEM.

    root_certificates: trusted authorities; None: the system's. certificate, key: our identity, if the service asks for
    it. server_name: the name in the service's certificate, if it differs from the host in the address.
    """

    root_certificates: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @classmethod
    def from_environment(cls) -> Self | None:
        """The default for all connections, from the environment: ACCORD_TLS_ROOT_CERTIFICATES, ACCORD_TLS_CERTIFICATE
        with ACCORD_TLS_KEY, ACCORD_TLS_SERVER_NAME. None (no TLS) if none of them is set."""
        found = {name: os.environ.get(f"ACCORD_TLS_{name.upper()}", "") for name in cls.__dataclass_fields__}
        if not any(found.values()):
            return None
        if bool(found["certificate"]) != bool(found["key"]):
            raise FailedPrecondition(
                "Set both ACCORD_TLS_CERTIFICATE and ACCORD_TLS_KEY, or neither", reason="TLS_ENVIRONMENT"
            )
        files = {name: Path(value) for name, value in found.items() if value and name != "server_name"}
        return cls(**files, server_name=found["server_name"])

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials, read from the files. OSError names a file that cannot be read."""
        return grpc.ssl_channel_credentials(
            self.root_certificates.read_bytes() if self.root_certificates else None,
            self.key.read_bytes() if self.key else None,
            self.certificate.read_bytes() if self.certificate else None,
        )


def open_channel(address: str, *, tls: TLS | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`, which connects at the first call. Needs a running event loop.

    Every failed call raises an `accord.errors` class, unary or streaming. Deadlines are the caller's (`timeout=`).
    `tls`: None means `TLS.from_environment`.
    """
    tls = tls or TLS.from_environment()
    options: list[tuple[str, Any]] = list(OPTIONS)
    if tls is None:
        return _Channel(grpc.aio.insecure_channel(address, options), address)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return _Channel(grpc.aio.secure_channel(address, tls.credentials(), options), address)


class _Channel(grpc.aio.Channel):
    """A channel whose calls raise Accord's errors.

    A wrapper instead of interceptors: interceptors of grpc.aio see a stream's call before it fails, not the failure.
    """

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._channel = channel
        self._address = address

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap(method, self._channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap(method, self._channel.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap(method, self._channel.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap(method, self._channel.stream_stream(method, *args, **kwargs))

    def _wrap(self, method: str, callable_: Any) -> Any:
        where = f"{self._address}{method}"

        def call(*args: Any, **kwargs: Any) -> _Call:
            try:
                return _Call(callable_(*args, **kwargs), where)
            except grpc.aio.UsageError as error:
                raise FailedPrecondition(f"{where}: {error}", reason="CLIENT_CLOSED") from error

        return call

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


class _Call:
    """A call in flight of any of the four kinds: awaited for one response, iterated for a stream."""

    def __init__(self, call: Any, where: str) -> None:
        self._call = call
        self._where = where

    def __await__(self) -> Any:
        return self._translated(self._call).__await__()

    async def __aiter__(self) -> Any:
        try:
            async for message in self._call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self._where) from error
        finally:
            self._call.cancel()  # the reader may have stopped early; no effect on a call that has ended

    async def aclose(self) -> None:
        self._call.cancel()

    async def read(self) -> Any:
        return await self._translated(self._call.read())

    async def write(self, request: Any) -> None:
        await self._translated(self._call.write(request))

    async def done_writing(self) -> None:
        await self._translated(self._call.done_writing())

    async def _translated(self, awaitable: Any) -> Any:
        try:
            return await awaitable
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self._where) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
