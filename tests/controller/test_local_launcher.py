"""The local launcher with real processes (the preference service: it starts without torch)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

import accord
from accord import discovery
from accord.errors import Unavailable
from accord_controller.launchers.local import launcher as local
from accord_controller.launchers.local import process
from accord_controller.launchers.local.launcher import LocalLauncher
from accord_controller.settings import ControllerSettings

pytestmark = pytest.mark.process

NAME = "preference"


def settings(state_dir: Path, **changes: Any) -> ControllerSettings:
    return ControllerSettings(**{"state_dir": state_dir, "start_seconds": 60, **changes})


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[LocalLauncher]:
    made = LocalLauncher(settings(tmp_path))
    yield made
    await made.close()


def pid(state_dir: Path) -> int:
    record = discovery.read(state_dir, NAME)
    assert record is not None
    return record.pid


async def test_a_service_is_started_once_and_has_its_own_log(launcher: LocalLauncher, tmp_path: Path) -> None:
    first, second = await asyncio.gather(launcher.ensure([NAME]), launcher.ensure([NAME]))
    assert first == second == {NAME: discovery.read(tmp_path, NAME).address}  # type: ignore[union-attr]
    async with accord.Client(preference=first[NAME]) as client:
        assert (await client.preferences.stats()).prompts == 0
    assert "serving at" in (tmp_path / "logs" / f"{NAME}.log").read_text()
    environment = psutil.Process(pid(tmp_path)).environ()
    assert (environment["OMP_WAIT_POLICY"], environment["GOMP_SPINCOUNT"]) == ("PASSIVE", "0")


async def test_a_dead_service_is_restarted_and_that_is_reported(launcher: LocalLauncher, tmp_path: Path) -> None:
    reported: list[tuple[str, str]] = []

    async def on_restart(service: str, message: str) -> None:
        reported.append((service, message))

    await launcher.ensure([NAME], on_restart)
    assert reported == []
    old = pid(tmp_path)
    psutil.Process(old).kill()
    after = await launcher.ensure([NAME], on_restart)
    assert pid(tmp_path) != old
    assert [service for service, _ in reported] == [NAME]
    assert after[NAME] in reported[0][1]


async def test_a_successor_adopts_what_a_killed_controller_started_and_stops_it_at_its_end(tmp_path: Path) -> None:
    killed, successor = LocalLauncher(settings(tmp_path)), LocalLauncher(settings(tmp_path))
    started = await killed.ensure([NAME])
    old = pid(tmp_path)
    assert await successor.ensure([NAME]) == started
    assert pid(tmp_path) == old
    await successor.close()
    assert not psutil.pid_exists(old) or psutil.Process(old).status() == psutil.STATUS_ZOMBIE
    await killed.close()


async def test_a_service_that_another_process_started_is_used_and_not_stopped(tmp_path: Path) -> None:
    log = tmp_path / "other.log"
    other = process.start_process(NAME, settings(tmp_path), log)
    try:
        while discovery.read(tmp_path, NAME) is None:
            assert other.exit_code() is None, log.read_text()
            await asyncio.sleep(0.05)
        launcher = LocalLauncher(settings(tmp_path))
        await launcher.ensure([NAME])
        await launcher.close()
        assert other.exit_code() is None
    finally:
        await other.stop(10)


async def test_a_service_that_cannot_start_says_why_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "preference.db").write_text("this is not a database, and long enough to be looked at" * 10)
    launcher = LocalLauncher(settings(tmp_path))
    with pytest.raises(Unavailable, match="exited with code 1") as caught:
        await launcher.ensure([NAME])
    assert caught.value.reason == "SERVICE_FAILED"
    assert "not an Accord database" in caught.value.message
    await launcher.close()


async def test_a_service_that_keeps_dying_is_not_restarted_forever(
    launcher: LocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_RESTARTS", 1)
    await launcher.ensure([NAME])
    psutil.Process(pid(tmp_path)).kill()
    await launcher.ensure([NAME])
    psutil.Process(pid(tmp_path)).kill()
    with pytest.raises(Unavailable, match="keeps dying") as caught:
        await launcher.ensure([NAME])
    assert caught.value.reason == "SERVICE_KEEPS_DYING"


def test_a_trainer_of_several_ranks_is_started_by_torchrun(tmp_path: Path) -> None:
    several = process.command("trainer", settings(tmp_path, trainer_ranks=3))
    assert several[:5] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    # Only the launcher restarts, or two trainers could serve one state folder.
    assert several[5:8] == ["--max-restarts=0", "-m", "accord_trainer"]
    assert several[8:] == process.command("trainer", settings(tmp_path))[3:]
    assert "torch.distributed.run" not in process.command("reward", settings(tmp_path, trainer_ranks=3))


def test_threads_are_passed_to_the_service(tmp_path: Path) -> None:
    assert process.environment(3, {})["OMP_NUM_THREADS"] == "3"
    assert process.environment(0, {"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"
    assert "--engine" in process.command("rollout", settings(tmp_path, engine="transformers"))


async def test_the_rollout_service_can_run_under_another_python(tmp_path: Path) -> None:
    own = tmp_path / "bin" / "python"
    own.parent.mkdir()
    own.symlink_to(sys.executable)
    chosen = settings(tmp_path, rollout_python=own)
    assert process.command("rollout", chosen)[0] == str(own), "a resolved link would lose the virtual environment"
    assert process.command("reward", chosen)[0] == sys.executable
    with pytest.raises(ValidationError, match="rollout_python"):
        settings(tmp_path, rollout_python=tmp_path / "nowhere")
