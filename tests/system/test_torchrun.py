"""A real torchrun, driven by the SDK: two ranks train, one is killed, torchrun starts them again, one rank goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.support.trainer import pairs, trainer, training

import accord
from accord import discovery
from accord.digest import weights_digest
from accord.errors import Unavailable
from accord_models.delta import apply_delta
from accord_runtime.artifacts.transports.file import local_path

pytestmark = pytest.mark.system

STEP_SECONDS = 60.0


def start(state_dir: Path, ranks: int, **told: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCORD_TRAINER_PARALLEL": "fsdp", **told}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    options = ["--max-restarts", "3", "--monitor-interval", "0.2", "-m", "accord_trainer", "--state-dir"]
    with (state_dir / "log").open("wb") as log:
        return subprocess.Popen([*command, *options, str(state_dir)], env=environment, stdout=log, stderr=log)


async def address(process: subprocess.Popen[bytes], state_dir: Path, other_than: int = 0) -> discovery.ServiceRecord:
    """Where rank 0 serves, once it does; `other_than` is the pid of one that is dying."""
    for _ in range(900):
        found = discovery.read(state_dir, "trainer")
        if found is not None and found.pid != other_than:
            return found
        assert process.poll() is None, (state_dir / "log").read_text()[-4000:]
        await asyncio.sleep(0.1)
    raise AssertionError((state_dir / "log").read_text()[-4000:])


def worker(process: subprocess.Popen[bytes], driver: int) -> psutil.Process:
    """The rank that does not serve."""
    ranks = [child for child in psutil.Process(process.pid).children() if "accord_trainer" in child.cmdline()]
    (found,) = (rank for rank in ranks if rank.pid != driver)
    return found


async def test_a_killed_rank_fails_the_step_and_the_trainer_comes_back(tiny_folder: Path, tmp_path: Path) -> None:
    long = {"max_tokens": 64, "micro_batch_tokens": 64}
    what = training(tiny_folder, algorithm="reward_model", checkpoint_every=1, options=long)
    process = start(tmp_path, ranks=2)
    try:
        served = await address(process, tmp_path)
        # One try a call: what is seen is what the trainer says, and not what the SDK makes of it.
        async with accord.Client(trainer=served.address, retry=accord.RetryPolicy(attempts=1)) as client:
            await client.trainer.create_training(what)
            small = await client.trainer.put_experience("t", preferences=pairs(6))
            large = await client.trainer.put_experience("t", preferences=pairs(4000))
            first = await client.trainer.step("t", small.batch_id, parent_version=0, request_id="a", publish=True)
            assert first.checkpointed
            assert weights_digest(local_path(first.weights.uri)) == first.digest
            step = asyncio.create_task(
                client.trainer.step("t", large.batch_id, parent_version=1, request_id="b", timeout=STEP_SECONDS)
            )
            await asyncio.sleep(1.0)
            assert not step.done()
            began = time.monotonic()
            worker(process, served.pid).kill()
            with pytest.raises(Unavailable) as lost:
                await step
            assert lost.value.reason == "RANK_LOST"
            assert "repeat the steps" in lost.value.message
            assert time.monotonic() - began < STEP_SECONDS / 2
        again = await address(process, tmp_path, other_than=served.pid)
        async with accord.Client(trainer=again.address) as client:
            found = await client.trainer.training("t")
            assert (found.version, found.digest) == (1, first.digest)
            assert (
                await client.trainer.step("t", small.batch_id, parent_version=0, request_id="a", publish=True) == first
            )
            second = await client.trainer.step("t", small.batch_id, parent_version=1, request_id="c")
            # An error that all ranks share leaves them in step.
            with pytest.raises(accord.errors.FailedPrecondition):
                await client.trainer.step("t", small.batch_id, parent_version=7)
            figures = await client.trainer.evaluate("t", small.batch_id)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 40) is not None
        assert discovery.read(tmp_path, "trainer") is None
    finally:
        process.kill()
        process.wait()
    async with trainer(tmp_path) as client:  # one rank, on what two left
        found = await client.trainer.training("t")
        assert (found.version, found.digest) == (2, second.digest)
        alone = await client.trainer.evaluate("t", small.batch_id)
    assert alone == pytest.approx(figures, abs=1e-5)


async def test_two_ranks_publish_what_a_step_changed(tiny_folder: Path, tmp_path: Path) -> None:
    what = training(tiny_folder, algorithm="reward_model", options={"trainable_layers": 1})
    process = start(tmp_path, 2, ACCORD_TRAINER_SCHEME="grpc", ACCORD_TRAINER_DELTA_BELOW="0.9")
    try:
        served = await address(process, tmp_path)
        async with accord.Client(trainer=served.address) as client:
            await client.trainer.create_training(what)
            batch = await client.trainer.put_experience("t", preferences=pairs(4))
            await client.trainer.step("t", batch.batch_id, parent_version=0, publish=True)
            second = await client.trainer.step("t", batch.batch_id, parent_version=1, publish=True)
        assert 0 < second.metrics["delta_changed"] < 0.5
        base, whole = sorted(path for path in (tmp_path / "artifacts").iterdir() if path.suffix != ".delta")
        assert (weights_digest(base), weights_digest(whole)) == (second.weights.delta.base_digest, second.digest)
        apply_delta(base, whole.with_name(f"{whole.name}.delta"), tmp_path / "applied")
        assert weights_digest(tmp_path / "applied") == second.digest
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)
