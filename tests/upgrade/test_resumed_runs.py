"""A run that a release began is finished by today's code, from the same state folder, with the same weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.loop import Controller, finish, tiny_run, wait_for, write_prompts

import accord
from accord.controller import v1 as controller_v1

# The wheels themselves, as they were built from each release.
WHEELS = sorted((Path(__file__).parent / "released").glob("*.whl"))

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: re.split("-", wheel.name)[1])
async def test_a_run_begun_by_a_release_resumes_with_the_same_weights(
    wheel: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    released = tmp_path / "released"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(released)
    prompts = write_prompts(tmp_path / "prompts.jsonl")

    def run(run_id: str) -> controller_v1.Run:
        return tiny_run(run_id, tiny_folder, prompts, evaluate__min_gain=-100.0, policy__steps=4)

    environment = {"PYTHONPATH": str(released)}
    assert released in where_controllers_code_is(environment).parents
    old = Controller(tmp_path / "state", environment=environment)
    try:
        async with accord.Client(controller=await old.start()) as client:
            await client.runs.create(run("begun"))
            # Step 3 is after the checkpoint of step 2: the trainer of today loads the one and replays the other.
            await wait_for(client, "begun", at_policy_step(1, 3), 300)
    finally:
        old.end_everything()

    new = Controller(tmp_path / "state")
    try:
        async with accord.Client(controller=await new.start()) as client:
            begun = await client.runs.get("begun")
            assert begun.status.state == controller_v1.RUN_STATE_PAUSED
            assert not begun.status.iterations[1:], "the release had finished the iteration: nothing was left to resume"
            await client.runs.resume("begun")
            begun = await finish(client, "begun", 300)
            assert begun.status.state == controller_v1.RUN_STATE_SUCCEEDED, begun.status.message
            await client.runs.create(run("whole"))
            whole = await finish(client, "whole", 300)
    finally:
        new.end_everything()
    assert [result.policy.digest for result in begun.status.iterations] == [
        result.policy.digest for result in whole.status.iterations
    ]
    assert [result.heldout_score for result in begun.status.iterations] == [
        result.heldout_score for result in whole.status.iterations
    ]


def where_controllers_code_is(environment: dict[str, str]) -> Path:
    """The file that a process in this environment imports as the controller."""
    code = "import accord_controller; print(accord_controller.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def at_policy_step(iteration: int, step: int) -> Callable[[controller_v1.RunEvent], bool]:
    """Whether an event reports this step of the policy."""
    return lambda event: (
        (event.kind, event.stage, event.iteration, event.step)
        == (
            "step",
            controller_v1.STAGE_POLICY,
            iteration,
            step,
        )
    )
