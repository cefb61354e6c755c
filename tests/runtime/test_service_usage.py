"""What a service says that it uses is what the kernel counted: its own time and its children's, of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import accord
from accord.errors import FailedPrecondition
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.observability import usage
from accord_runtime.serving.server import serving

pytestmark = pytest.mark.process

BURN = "import time\nwhile time.process_time() < {seconds}: pass"
# A process that burns itself, has a child that ended and one that lives, and then says what it has used.
FAMILY = f"""
import subprocess, sys, time
from accord_runtime.observability import usage
subprocess.run([sys.executable, "-c", {BURN.format(seconds=0.5)!r}], check=True)
living = subprocess.Popen([sys.executable, "-c", {BURN.format(seconds=0.5)!r} + "\\nprint(flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
living.stdout.readline()
own = time.process_time()
print(own, usage.with_children().cpu_seconds)
living.communicate(b"\\n")
"""


def test_a_process_counts_its_own_time_and_that_of_children_that_ended_and_that_live() -> None:
    said = subprocess.run([sys.executable, "-c", FAMILY], capture_output=True, text=True, timeout=60, check=True).stdout
    own, counted = map(float, said.split())
    assert counted - own == pytest.approx(1.0, abs=0.3)


def test_under_torchrun_the_ranks_beside_it_are_counted_too() -> None:
    rank = f"import os\nif os.environ['N'] == '1':\n    {BURN.format(seconds=0.5).replace(chr(10), chr(10) + '    ')}\n"
    rank += "else:\n    input()\n"
    rank += "    from accord_runtime.observability import usage\n    print(usage.with_children().cpu_seconds)"
    starter = f"""
import os, subprocess, sys
start = lambda n, **io: subprocess.Popen([sys.executable, "-c", {rank!r}], env={{**os.environ, "N": n}}, **io)
serving, other = start("0", stdin=subprocess.PIPE, stdout=subprocess.PIPE), start("1")
other.wait()
print(serving.communicate(b"\\n")[0].decode())
"""
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "test"}
    done = subprocess.run(
        [sys.executable, "-c", starter], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert float(done.stdout) > 0.5


async def test_any_client_can_ask_a_service_what_it_has_used(tmp_path: Path) -> None:
    settings = PreferenceSettings(state_dir=tmp_path)
    async with (
        serving(await build(settings), settings) as address,
        accord.Client(preference=address) as client,
    ):
        first = await client.usage.of("preference")
        assert first.instance == usage.with_children().instance
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        second = await client.usage.of("preference")
        assert second.instance == first.instance
        assert second.cpu_seconds - first.cpu_seconds == pytest.approx(0.3, abs=0.2)
        assert list(second.gpus) == []
        with pytest.raises(FailedPrecondition, match="no address of the trainer"):
            await client.usage.of("trainer")
