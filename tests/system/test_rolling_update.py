"""A rolling update: each service in turn gets SIGTERM and another takes its address, while a run goes on to its end."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.loop import QUIET, finish, tiny_run, wait_for, write_prompts

import accord
from accord.controller import v1 as controller_v1
from accord_controller.launchers.health import wait_healthy

POLICY = controller_v1.STAGE_POLICY
STEPS = 6
DRIVEN = ("rollout", "reward", "preference", "trainer")

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]


class Deployed:
    """Services as a cluster runs them: each a process at an address that stays, replaced and not looked after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in (*DRIVEN, "controller")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """A process of the service."""
        flags = ["--port", self.addresses[name].rpartition(":")[2], "--state-dir", str(self._folder / name)]
        if name == "controller":
            flags += ["--launcher", "none"]
            flags += [word for each in DRIVEN for word in (f"--{each}-address", self.addresses[each])]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"accord_{name}", *flags], stdout=log, stderr=log, env={**os.environ, **QUIET}
            )

    async def healthy(self, *names: str) -> None:
        """Returns when they take calls."""
        await asyncio.gather(*(wait_healthy(name, self.addresses[name], 420) for name in names))

    async def replace(self, name: str) -> None:
        """SIGTERM, as the kubelet sends it; when the old one has ended by itself, a new one at the same address."""
        process = self._processes[name]
        process.terminate()
        assert await asyncio.to_thread(process.wait, 90) == 0, self.log(name)
        self.start(name)

    def log(self, name: str) -> str:
        """What its processes wrote."""
        return (self._folder / f"{name}.log").read_text()

    def end(self) -> None:
        """SIGKILL to all, for the end of a test."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    made = Deployed(tmp_path)
    try:
        yield made
    finally:
        made.end()


async def test_each_service_is_replaced_while_a_run_goes_on_and_no_step_is_lost_or_doubled(
    deployed: Deployed, tmp_path: Path, tiny_folder: Path
) -> None:
    for name in deployed.addresses:
        deployed.start(name)
    await deployed.healthy(*deployed.addresses)
    changes = {"iterations": 1, "policy__steps": STEPS, "evaluate__min_gain": -100.0}
    run = tiny_run("rolled", tiny_folder, write_prompts(tmp_path / "prompts.jsonl"), **changes)
    async with accord.Client(controller=deployed.addresses["controller"]) as client:
        await client.runs.create(run)
        for step, name in enumerate(("rollout", "reward", "trainer", "preference"), start=1):
            await wait_for(client, "rolled", at_step(step), 420)
            await deployed.replace(name)
        await wait_for(client, "rolled", at_step(5), 420)
        await deployed.replace("controller")
        await deployed.healthy("controller")
    async with accord.Client(controller=deployed.addresses["controller"]) as client:
        paused = await client.runs.get("rolled")
        assert paused.status.state == controller_v1.RUN_STATE_PAUSED, paused.status.message
        await client.runs.resume("rolled")
        ended = await finish(client, "rolled", 420)
        assert ended.status.state == controller_v1.RUN_STATE_SUCCEEDED, ended.status.message
        events = [event async for event in client.runs.events("rolled")]
    assert [event.step for event in events if is_step(event)] == list(range(1, STEPS + 1))
    assert [result.iteration for result in ended.status.iterations] == [0, 1]
    for name in deployed.addresses:
        assert "Traceback" not in deployed.log(name), name


def is_step(event: controller_v1.RunEvent) -> bool:
    return event.kind == "step" and event.stage == POLICY


def at_step(step: int) -> Callable[[controller_v1.RunEvent], bool]:
    """Whether an event is of this policy step."""
    return lambda event: is_step(event) and event.step == step
