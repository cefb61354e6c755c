"""The console as a process: socket, web server, discovery file, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from accord import discovery
from accord.errors import Unavailable
from accord_console.app import application, build
from accord_console.settings import ConsoleSettings
from accord_console.web import Console

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process with the signal even after a complete drain."""

    def __init__(self, config: uvicorn.Config, console: Console) -> None:
        super().__init__(config)
        self._console = console

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs no handlers."""
        yield

    def drain(self) -> None:
        """Refuses new requests, ends the streams and lets other requests finish."""
        self._console.draining.set()
        self.should_exit = True


async def run(settings: ConsoleSettings) -> None:
    """Serves until SIGTERM or SIGINT. Unavailable, PORT_IN_USE, if the port is taken."""
    console = build(settings)
    sock = listen(settings)
    address = _address(settings, sock)
    server = _server(settings, console)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.drain)
    certificate = str(settings.tls_cert.absolute()) if settings.tls_cert else ""
    discovery.write(
        settings.state_dir, "console", address, token=console.sessions.operator_token, certificate=certificate
    )
    scheme = "https" if certificate else "http"
    print(f"accord_console serving at {address}", flush=True)
    print(f"operate: {scheme}://{address}/operator?token={console.sessions.operator_token}", flush=True)
    try:
        await server.serve(sockets=[sock])
    finally:
        discovery.remove(settings.state_dir, "console")


@asynccontextmanager
async def serving(settings: ConsoleSettings) -> AsyncIterator[tuple[str, Console]]:
    """Serves within a `with` block and yields the URL and the console, for tests."""
    console = build(settings)
    sock = listen(settings)
    server = _server(settings, console)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://{_address(settings, sock)}", console
    finally:
        server.drain()
        await task


def listen(settings: ConsoleSettings) -> socket.socket:
    """A socket that listens on the configured host and port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        sock.close()
        raise Unavailable(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another port "
            "(--port or ACCORD_CONSOLE_PORT), or 0 for a free one",
            reason="PORT_IN_USE",
        ) from error
    return sock


def _address(settings: ConsoleSettings, sock: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{sock.getsockname()[1]}"


def _server(settings: ConsoleSettings, console: Console) -> Server:
    config = uvicorn.Config(
        application(console),
        log_config=None,
        access_log=False,
        server_header=False,
        # Proxy headers are trusted only if a public URL says that the console is behind a proxy.
        proxy_headers=bool(settings.public_url),
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return Server(config, console)
