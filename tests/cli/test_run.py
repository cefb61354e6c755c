"""The loop from the command line: a real controller process, real services, a tiny model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from tests.support.command import Ran, accord_command
from tests.support.loop_services import controller_here, loop_services, write_run
from tests.support.terminal import terminal

from accord import discovery
from accord.digest import weights_digest

pytestmark = pytest.mark.process

STEPS = 30
ITERATION_KEYS = {"iteration", "heldout_score", "kl_nats", "rm_accuracy", "promoted", "seconds"}


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """A working directory with a run file; its state is in `state`."""
    (tmp_path / "state").mkdir()
    write_run(tmp_path, tiny_folder)
    return tmp_path


async def command(folder: Path, *arguments: str) -> Ran:
    return await accord_command(folder / "state", *arguments, cwd=folder)


def nothing_runs(folder: Path) -> bool:
    return all(discovery.read(folder / "state", name) is None for name in ("controller", "console"))


async def test_a_run_from_its_file_to_a_report_a_sample_and_an_exported_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loop_services(folder / "state", monkeypatch):
        ran = await command(folder, "run", "run.yaml", "--set", "policy.steps=2")
        assert ran.code == 0, ran.err
        assert "policy 2/2" in ran.err
        assert "reward" in ran.err
        assert "SIMULATED ANNOTATORS" in ran.out
        assert "SIMULATED ANNOTATORS" in (folder / "tiny.report.html").read_text()
        assert nothing_runs(folder)

        report = json.loads((await command(folder, "report", "tiny", "--format", "json")).out)
        assert [each["iteration"] for each in report["iterations"]] == [0, 1, 2]
        assert all(each.keys() >= ITERATION_KEYS for each in report["iterations"])
        assert sum(step["stage"] == "policy" for step in report["steps"]) == 4
        assert nothing_runs(folder)

        async with controller_here(folder / "state"):
            await lists_samples_and_exports(folder)


async def lists_samples_and_exports(folder: Path) -> None:
    """What can be asked after the run `tiny`."""
    [row] = json.loads((await command(folder, "runs", "list", "--format", "json")).out)
    assert (row["run_id"], row["state"], row["iterations"]) == ("tiny", "succeeded", 2)
    models = json.loads((await command(folder, "models", "list", "--format", "json")).out)
    current = next(model for model in models if model["current"])
    exported = await command(folder, "models", "export", current["name"], "out/model")
    assert exported.code == 0, exported.err
    assert weights_digest(folder / "out/model") == current["digest"]

    ask = ("sample", current["name"], "Hello?", "-n", "2", "--seed", "5", "--max-new-tokens", "6", "-f", "json")
    first, second = [await command(folder, *ask) for _ in range(2)]
    assert first.code == 0, first.err
    assert first.out == second.out
    answers = json.loads(first.out)
    assert [answer["digest"] for answer in answers] == [current["digest"]] * 2

    freed = json.loads((await command(folder, "gc", "--dry-run", "--format", "json")).out)
    assert freed["freed_bytes"] > 0
    assert current["uri"] not in str(freed["freed"])
    again = await command(folder, "run", "run.yaml", "--set", "policy.steps=3")
    assert (again.code, "tiny" in again.err) == (1, True)
    unknown = await command(folder, "report", "nobody")
    assert (unknown.code, len(unknown.err.strip().splitlines())) == (1, 1)


async def test_ctrl_c_pauses_a_killed_controller_is_told_and_resume_goes_on_to_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loop_services(folder / "state", monkeypatch):
        # Enough steps that a stage is never over before the key or the signal arrives.
        steps = ("--set", f"policy.steps={STEPS}")
        async with terminal(folder / "state", "run", "run.yaml", *steps, cwd=folder) as screen:
            await screen.expect(rf"iteration 1/2 · policy \d+/{STEPS}", 90)
            screen.interrupt()
            await screen.expect("tiny is paused. Go on with: accord run --resume tiny", 60)
            assert await screen.process.wait() == 130
        assert nothing_runs(folder)

        async with terminal(folder / "state", "run", "--resume", cwd=folder) as screen:
            await screen.expect(rf"policy \d+/{STEPS}", 90)
            controller = discovery.read(folder / "state", "controller")
            assert controller is not None
            os.kill(controller.pid, signal.SIGKILL)
            await screen.expect("the controller .* is gone.*accord run --resume tiny", 60)
            assert await screen.process.wait() == 1

        ended = await command(folder, "run", "--resume", "tiny")
        assert ended.code == 0, ended.err
        async with controller_here(folder / "state"):
            report = json.loads((await command(folder, "report", "tiny", "--format", "json")).out)
            nothing = await command(folder, "run", "--resume")
        assert [each["iteration"] for each in report["iterations"]] == [0, 1, 2]
        done = [(step["iteration"], step["step"]) for step in report["steps"] if step["stage"] == "policy"]
        assert done == [(iteration, step) for iteration in (1, 2) for step in range(1, STEPS + 1)]
        assert (nothing.code, "[NOTHING_TO_RESUME]" in nothing.err) == (1, True)


async def invite_when_up(folder: Path) -> str:
    """An invite link, as soon as the console that `accord up` starts is there."""
    async with asyncio.timeout(60):
        while discovery.read(folder / "state", "console") is None:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.1)
    return (await command(folder, "console", "invite", "alice")).out.strip()


async def test_up_keeps_the_services_for_detached_runs_and_stops_on_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCORD_CONSOLE_PORT", "0")
    async with loop_services(folder / "state", monkeypatch), terminal(folder / "state", "up", cwd=folder) as screen:
        await screen.expect("Up. Start a run", 60)
        invited = await invite_when_up(folder)
        assert invited.startswith("http://127.0.0.1:"), invited
        pid = discovery.read(folder / "state", "controller")
        detached = await command(folder, "run", "run.yaml", "--detach", "--set", "policy.steps=400")
        assert detached.code == 0, detached.err
        async with terminal(folder / "state", "runs", "watch", "tiny", cwd=folder) as watching:
            await watching.expect(r"policy \d+/400", 90)
            watching.interrupt()
            await watching.expect("stopped watching; tiny goes on")
            assert await watching.process.wait() == 130
        cancelled = await command(folder, "runs", "cancel", "tiny", "--format", "json")
        assert json.loads(cancelled.out)["state"] == "cancelled"
        watched = await command(folder, "runs", "watch", "tiny", "--format", "json")
        assert json.loads(watched.out.splitlines()[-1])["kind"] == "cancelled"
        assert discovery.read(folder / "state", "controller") == pid  # commands used this one and left it alone
        screen.interrupt()
        await screen.expect("Stopped.", 60)
        assert await screen.process.wait() == 0
        assert nothing_runs(folder)


async def test_lists_work_when_nothing_runs_and_leave_nothing_running(tmp_path: Path) -> None:
    listed = await accord_command(tmp_path, "runs", "list", "--format", "json")
    assert (listed.code, json.loads(listed.out)) == (0, []), listed.err
    models = await accord_command(tmp_path, "models", "list", "--format", "json")
    assert (models.code, json.loads(models.out)) == (0, []), models.err
    assert discovery.read(tmp_path, "controller") is None
