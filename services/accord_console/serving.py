"""The console as a process: socket, web server, discovery file, drain."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn

from accord import discovery
from accord.errors import Unavailable
from accord_console.app import application, build
from accord_console.settings import ConsoleSettings
from accord_console.web import Console

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, which tells the console's open streams when it is about to end."""

    def __init__(self, config: uvicorn.Config, console: Console) -> None:
        super().__init__(config)
        self._console = console
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by signal."""
        self._loop.call_soon_threadsafe(self._console.draining.set)
        super().handle_exit(sig, frame)

    def drain(self) -> None:
        """Ends the server from within, as a signal does."""
        self._console.draining.set()
        self.should_exit = True


async def run(settings: ConsoleSettings) -> None:
    """Serves until SIGTERM or SIGINT. Unavailable, PORT_IN_USE, where the port is taken."""
    console = build(settings)
    sock = listen(settings)
    address = _address(settings, sock)
    server = _server(settings, console)
    discovery.write(settings.state_dir, "console", address, token=console.sessions.operator_token)
    scheme = "https" if settings.tls_cert else "http"
    print(f"accord_console serving at {address}", flush=True)
    print(f"operate: {scheme}://{address}/operator?token={console.sessions.operator_token}", flush=True)
    try:
        await server.serve(sockets=[sock])
    finally:
        discovery.remove(settings.state_dir, "console")


@asynccontextmanager
async def serving(settings: ConsoleSettings) -> AsyncIterator[tuple[str, Console]]:
    """Serves for the length of a `with` block and gives the URL and the console: what tests use."""
    console = build(settings)
    sock = listen(settings)
    server = _server(settings, console)
    task = asyncio.create_task(server._serve([sock]))  # without uvicorn's signal handlers, which are the process's
    try:
        yield f"http://{_address(settings, sock)}", console
    finally:
        server.drain()
        await task


def listen(settings: ConsoleSettings) -> socket.socket:
    """A socket that listens where the settings say."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        sock.close()
        raise Unavailable(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Give another --port, or 0 for a free one",
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
        # Proxies are believed where the console is told how it is reached through one.
        proxy_headers=bool(settings.public_url),
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return Server(config, console)
