"""Killed, starved or fed with nonsense, the trainer loses nothing and changes nothing that it should not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.trainer import pairs, rollout, trainer, training

import accord
from accord import discovery
from accord.errors import AccordError, DataLoss, FailedPrecondition, ResourceExhausted
from accord_models.loading import load_causal_lm
from accord_models.tokenizer import load_tokenizer
from accord_runtime.artifacts.transports.file import local_path

pytestmark = pytest.mark.process


@pytest.mark.parametrize("undo", ["memory", "disk"])
async def test_a_step_that_fails_half_way_leaves_everything_as_it_was(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undo: str
) -> None:
    from accord_trainer.model.optimizer import Optimizer

    async with trainer(tmp_path, undo=undo) as client:
        options = {"minibatch_size": 2, "warmup_updates": 10, "kl_target": 1.0}
        await client.trainer.create_training(training(tiny_folder, options=options))
        good = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        update, calls = Optimizer.update, 0

        def breaking(self: Optimizer) -> dict[str, float]:
            nonlocal calls
            calls += 1
            if calls == 3:  # two updates were made already
                raise FailedPrecondition("broken on purpose", reason="NOT_FINITE")
            return update(self)

        monkeypatch.setattr(Optimizer, "update", breaking)
        before = await client.trainer.training("t")
        with pytest.raises(FailedPrecondition):
            await client.trainer.step("t", good.batch_id, parent_version=0, request_id="a")
        assert calls == 3
        assert await client.trainer.training("t") == before
        monkeypatch.undo()
        after_failure = await client.trainer.step("t", good.batch_id, parent_version=0, request_id="a")
        await client.trainer.create_training(training(tiny_folder, "u", options=options))
        again = await client.trainer.put_experience("u", samples=rollout(tiny_folder))
        untouched = await client.trainer.step("u", again.batch_id, parent_version=0)
        assert after_failure.digest == untouched.digest


async def test_with_rollback_on_disk_every_version_is_checkpointed_and_no_copy_is_held(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accord_trainer.algorithm import AlgorithmState

    monkeypatch.setattr(AlgorithmState, "clone", None)
    async with trainer(tmp_path, undo="disk") as client:
        await client.trainer.create_training(training(tiny_folder, checkpoint_every=1000))
        digest = ""
        for version in range(3):
            samples = rollout(tiny_folder, version=version, digest=digest)
            put = await client.trainer.put_experience("t", samples=samples)
            result = await client.trainer.step("t", put.batch_id, parent_version=version)
            digest = result.digest
            kept = sorted(path.name for path in (tmp_path / "trainer/t/checkpoints").iterdir())
            assert kept == [f"{version:08d}", f"{version + 1:08d}"]
            assert result.checkpointed


async def test_a_full_disk_stops_the_step_that_would_checkpoint(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trainer(tmp_path) as client:
        made = await client.trainer.create_training(training(tiny_folder, checkpoint_every=1))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        usage = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as full:
            full.setattr("accord.atomic.shutil.disk_usage", lambda _: usage._replace(free=1000))
            with pytest.raises(ResourceExhausted) as disk:
                await client.trainer.step("t", put.batch_id, parent_version=0)
        assert disk.value.reason == "DISK_FULL"
        now = await client.trainer.training("t")
        assert (now.version, now.digest) == (0, made.digest)
        assert (await client.trainer.step("t", put.batch_id, parent_version=0)).checkpointed


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}, {"trainable_layers": 1, "kl_target": 1.0}])
async def test_steps_after_a_restart_are_equal_bit_for_bit(
    tiny_folder: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    what = training(tiny_folder, checkpoint_every=2, options={**options, "minibatch_size": 2})

    async def steps(client: accord.Client, first: int, last: int, batch_folder: Path, batch_digest: str) -> list[str]:
        digests, folder, digest = [], batch_folder, batch_digest
        for version in range(first, last):
            samples = rollout(folder, version=version, digest=digest, seed=version)
            put = await client.trainer.put_experience("t", samples=samples)
            result = await client.trainer.step(
                "t", put.batch_id, parent_version=version, publish=True, request_id=f"s{version}"
            )
            digests.append(result.digest)
            folder, digest = local_path(result.weights.uri), result.digest
        return digests

    async with trainer(tmp_path) as client:
        await client.trainer.create_training(what)
        whole = await steps(client, 0, 4, tiny_folder, "")
        folder = local_path((await client.trainer.publish("t")).uri).parent
    # As if killed during step 4: the last checkpoint is that of version 2.
    shutil.rmtree(tmp_path / "trainer/t/checkpoints/00000004")
    async with trainer(tmp_path) as client:
        lost = await client.trainer.training("t")
        assert (lost.version, lost.checkpoint_version, lost.digest) == (2, 2, whole[1])
        restored = await client.trainer.create_training(what)
        assert restored == lost
        weights = folder / f"t-2-{whole[1][:16]}"
        assert await steps(client, 2, 4, weights, whole[1]) == whole[2:]


async def test_results_outlive_the_process(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder, checkpoint_every=1))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        first = await client.trainer.step("t", put.batch_id, parent_version=0, request_id="a")
        assert first.checkpointed
    async with trainer(tmp_path) as client:
        assert await client.trainer.step("t", put.batch_id, parent_version=0, request_id="a") == first


async def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_reported(
    tiny_folder: Path, tmp_path: Path
) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder, algorithm="reward_model", checkpoint_every=1))
        put = await client.trainer.put_experience("t", preferences=pairs(2))
        for version in range(3):
            await client.trainer.step("t", put.batch_id, parent_version=version)
        assert await client.trainer.checkpoint("t") == 3
    folder = tmp_path / "trainer/t/checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["00000002", "00000003"]
    assert {path.suffix for path in (folder / "00000003").iterdir()} == {".safetensors", ".json"}
    (folder / "00000003/optimizer.safetensors").write_bytes(b"garbage")
    async with trainer(tmp_path) as client:
        with pytest.raises(DataLoss) as damaged:
            await client.trainer.step("t", put.batch_id, parent_version=3)
        assert "00000003" in str(damaged.value)
        shutil.rmtree(folder / "00000003")
        assert (await client.trainer.training("t")).version == 2


def start_process(state_dir: Path) -> tuple[subprocess.Popen[bytes], str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accord_trainer", "--state-dir", str(state_dir), "--threads", "1"]
    process = subprocess.Popen(command, env=environment)
    for _ in range(600):
        found = discovery.read(state_dir, "trainer")
        if found is not None and found.pid == process.pid:
            return process, found.address
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise AssertionError("the trainer did not come up")


async def test_killed_during_a_step_it_comes_back_with_the_same_bits(tiny_folder: Path, tmp_path: Path) -> None:
    what = training(tiny_folder, checkpoint_every=1, options={"epochs": 300, "learning_rate": 1e-4})
    samples = rollout(tiny_folder)
    async with trainer(tmp_path / "calm") as client:
        await client.trainer.create_training(what)
        put = await client.trainer.put_experience("t", samples=samples)
        expected = await client.trainer.step("t", put.batch_id, parent_version=0)
    soon = expected.seconds / 4  # the machine's own measure: well inside the step
    process, address = start_process(tmp_path / "killed")
    try:
        async with accord.Client(trainer=address) as client:
            await client.trainer.create_training(what)
            put = await client.trainer.put_experience("t", samples=samples)
            with pytest.raises(AccordError):
                await client.trainer.step("t", put.batch_id, parent_version=0, request_id="a", timeout=soon)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, address = start_process(tmp_path / "killed")
        async with accord.Client(trainer=address) as client:
            assert (await client.trainer.training("t")).version == 0
            result = await client.trainer.step("t", put.batch_id, parent_version=0, request_id="a")
        assert result.digest == expected.digest
    finally:
        process.kill()
        process.wait()


async def test_the_published_model_is_the_one_that_was_trained(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        result = await client.trainer.step("t", put.batch_id, parent_version=0, publish=True)
        folder = local_path(result.weights.uri)
        load_tokenizer(folder)
        load_causal_lm(folder)
        samples = rollout(folder, version=1, digest=result.digest, seed=4)
        again = await client.trainer.put_experience("t", samples=samples)
        metrics = await client.trainer.evaluate("t", again.batch_id)
        assert metrics["mismatch_kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics["kl_k3"] > 0
