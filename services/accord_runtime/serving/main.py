"""The lifecycle of a service process: flags, log, server, discovery file, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from accord import discovery
from accord.errors import AccordError
from accord_runtime.serving.server import Service, start
from accord_runtime.serving.settings import ServiceSettings

log = logging.getLogger("accord")
S = TypeVar("S", bound=ServiceSettings)


def run_service(name: str, settings_type: type[S], build: Callable[[S], Awaitable[Service]]) -> None:
    """The main function of `python -m accord_<name>`: serves until SIGTERM or SIGINT.

    Exits with one line: with code 2 for an invalid setting, and with 1 if the service cannot start (port in use, model
    missing).
    """
    settings = begin(name, settings_type)
    try:
        asyncio.run(_serve(name, settings, build))
    except AccordError as error:
        sys.exit(f"accord_{name}: {error.message} [{error.reason}]")
    except KeyboardInterrupt:
        sys.exit(130)


def begin(name: str, settings_type: type[S]) -> S:
    """The first steps of any service process: settings, log, threads. Exits with code 2 for an invalid setting."""
    settings = _settings(name, settings_type)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    # Threads that spin while they wait make everything ten times slower if several services share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    return settings


def _settings(name: str, settings_type: type[S]) -> S:
    try:
        return CliApp.run(settings_type)
    except (ValidationError, SettingsError) as error:
        problems = (
            "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        print(f"accord_{name}: {problems}", file=sys.stderr)
        sys.exit(2)


async def _serve(name: str, settings: S, build: Callable[[S], Awaitable[Service]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    service = await build(settings)
    server = await start(service, settings)
    discovery.write(settings.state_dir, name, server.address)
    print(f"accord_{name} serving at {server.address}", flush=True)
    try:
        await stop.wait()
        log.info("draining for at most %s s", settings.drain_seconds)
    finally:
        discovery.remove(settings.state_dir, name)
        await server.stop(settings.drain_seconds)
