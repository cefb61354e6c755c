"""`python -m accord_reward` as a process: starts without torch, serves, stops on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.reward import item, scorer, values

import accord

pytestmark = pytest.mark.process


async def test_the_process_serves_rules_without_torch_and_ends_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "import sys\ndef score(prompt, response):\n    return float('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-m", "accord_reward", "--port", "0", "--state-dir", str(tmp_path / "state")]
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().split()[-1]
        told = json.loads((tmp_path / "state" / "reward.json").read_text())
        assert (told["address"], told["pid"]) == (address, process.pid)
        async with accord.Client(reward=address) as client:
            mixture = [scorer("length"), scorer("python: ./reward.py:score", weight=100)]
            await client.reward.scorers()
            assert values(await client.reward.score([item("hi", "abc")], scorers=mixture)) == [3]
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


def test_a_bad_setting_is_one_line_and_a_code_that_is_not_zero(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accord_reward", "--dtype", "float3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2
    assert "dtype" in done.stderr
    assert "Traceback" not in done.stderr
