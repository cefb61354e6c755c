"""`python -m accord_rollout` as a process: serves, says what is wrong with a setting, ends on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.rollout import generate_request, samples

from accord.channel import open_channel
from accord.rollout import v1 as rollout_v1

pytestmark = pytest.mark.process

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCORD_ROLLOUT_DTYPE": "float32"}


async def run(*flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "accord_rollout",
        *flags,
        env=ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_service_serves_its_model_and_ends_on_sigterm(tiny_folder: Path, tmp_path: Path) -> None:
    process = await run("--model", str(tiny_folder), "--state-dir", str(tmp_path))
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 100)).decode()
        assert line.startswith("accord_rollout serving at ")
        assert (tmp_path / "rollout.json").is_file()
        async with open_channel(line.split()[-1]) as channel:
            assert await samples(rollout_v1.RolloutServiceStub(channel), generate_request(["hello"], version=0))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
        assert not (tmp_path / "rollout.json").exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--model", "/nowhere/at/all"), 1, "/nowhere/at/all"),
        (("--engine", "abacus"), 1, "available: openai, sglang, transformers, vllm"),
        (("--threads", "-3"), 2, "threads"),
        (("--dtype", "int3"), 2, "dtype"),
    ],
)
async def test_a_bad_setting_ends_it_with_one_clear_line(
    tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    process = await run(*flags, "--state-dir", str(tmp_path))
    _, errors = await asyncio.wait_for(process.communicate(), 100)
    lines = errors.decode().strip().splitlines()
    assert process.returncode == code, errors.decode()
    assert words in lines[-1]
    assert len(lines) == 1, errors.decode()
