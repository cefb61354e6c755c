"""Connects commands to the controller, and starts one for the duration of a command if none is running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from accord import discovery
from accord.cli.local import controller_process
from accord.cli.local.controller_process import Controller
from accord.client import Client


class Session:
    """A command's connections: `client` reaches the controller, `services(...)` the other services. With `keep` a
    controller that this command started stays up."""

    def __init__(self, state_dir: Path, controller: Controller, client: Client, stack: AsyncExitStack) -> None:
        self.state_dir = state_dir
        self.controller = controller
        self.client = client
        self._stack = stack
        self.keep = False

    @property
    def started(self) -> bool:
        """Whether this command started the controller and therefore stops it."""
        return self.controller.process is not None

    async def services(self, *names: str) -> Client:
        """A client of the named services (`preference`, `rollout`, ...). The controller starts those that are down."""
        addresses = await self.client.runs.ensure_services(names)
        wanted = {name: addresses[name] for name in names}
        return await self._stack.enter_async_context(client_of({**wanted, "controller": self.controller.address}))


@asynccontextmanager
async def open_session(state_dir: Path) -> AsyncIterator[Session]:
    """Connects to the running controller of `state_dir`, or starts one and stops it at the end."""
    controller = controller_process.find(state_dir) or await controller_process.start(state_dir)
    async with AsyncExitStack() as stack:
        session: Session | None = None

        async def stop() -> None:
            if session is None or not session.keep:
                await controller.stop()

        stack.push_async_callback(stop)
        client = await stack.enter_async_context(Client(controller=controller.address))
        session = Session(state_dir, controller, client, stack)
        yield session


@asynccontextmanager
async def service_client(state_dir: Path, name: str) -> AsyncIterator[Client]:
    """A client of one service: the running one, or one that a controller starts."""
    found = discovery.read(state_dir, name)
    if found is not None:
        async with client_of({name: found.address}) as client:
            yield client
        return
    async with open_session(state_dir) as session:
        yield await session.services(name)


def client_of(addresses: Mapping[str, str]) -> Client:
    """A client of the services at these addresses, by service name."""
    return Client(
        rollout=addresses.get("rollout"),
        reward=addresses.get("reward"),
        preference=addresses.get("preference"),
        trainer=addresses.get("trainer"),
        controller=addresses.get("controller"),
    )
