"""The vLLM engine beyond the seam: its own processes, its resident weights, its options, a served service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tests.support.engines import OPTIONS, make_engine
from tests.support.rollout import generate_request, rollout_settings, samples
from tests.support.tiny import make_tiny_model

from accord.channel import open_channel
from accord.conformance.reference import reference_named
from accord.conformance.suite import conformance
from accord.conformance.verdict import Verdict
from accord.digest import weights_digest
from accord.errors import FailedPrecondition, InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord_rollout.engine import Completion, Engine, Failed, Job, ResidentWeights, Sampling, Weights

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm has an environment for it")

from accord_rollout.engines.vllm.engine import VllmEngine
from accord_rollout.engines.vllm.weight_transfer import FolderSource

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", head_dim=32)


async def activate(engine: Engine, folder: Path, version: int = 0) -> ResidentWeights:
    await (await engine.prepare(folder, Weights(version, weights_digest(folder))))()
    return await engine.resident_weights()


def vllm_processes(of: int) -> list[psutil.Process]:
    """vLLM's own, below the process `of`."""
    found = psutil.Process(of).children(recursive=True)
    return [each for each in found if each.status() != psutil.STATUS_ZOMBIE and "VLLM" in " ".join(each.cmdline())]


async def test_more_prompts_than_fit_into_one_pass_are_each_sampled_by_their_seed(folder: Path, tmp_path: Path) -> None:
    """vLLM itself ends on the CPU where it cuts a seeded prompt into parts."""
    small = {**OPTIONS["vllm"], "engine_args": {"max_num_batched_tokens": 256, "max_num_seqs": 64}}
    async with make_engine("vllm", tmp_path, **small) as engine:
        await activate(engine, folder)
        jobs = [Job(index, tuple(range(3, 100)), seed=index) for index in range(9)]
        found = [one async for one in engine.generate(jobs, Sampling(max_new_tokens=4))]
        assert sorted(one.index for one in found if isinstance(one, Completion)) == list(range(9)), found


async def test_reloaded_weights_are_bit_for_bit_a_fresh_loads_and_a_dead_engine_starts_anew(
    tmp_path: Path, folder: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=7, head_dim=32)
    job = Job(0, (5, 6, 7), 1)
    async with make_engine("vllm", tmp_path) as engine:
        first = await activate(engine, folder)
        reloaded = await activate(engine, other, 1)
        assert first.checksum
        assert first.checksum != reloaded.checksum
        stream = engine.generate([job], Sampling(max_new_tokens=240))
        pending = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        for process in vllm_processes(os.getpid()):
            process.kill()
        lost = await asyncio.wait_for(pending, 60)
        assert isinstance(lost, Failed), "the sample ended before its engine did"
        assert (lost.reason, lost.retryable) == ("ENGINE_DIED", True)
        with pytest.raises(FailedPrecondition, match="no weights"):
            await anext(engine.generate([job], Sampling(max_new_tokens=1)))
        fresh = await activate(engine, other, 1)
        assert fresh.checksum == reloaded.checksum, "what a reload leaves in memory is not what a fresh load puts there"
        assert fresh.probe_logprobs == pytest.approx(reloaded.probe_logprobs, abs=1e-5)
        assert isinstance(await anext(engine.generate([job], Sampling(max_new_tokens=1))), Completion)


async def test_a_service_on_vllm_keeps_the_contract_and_killed_leaves_no_process_behind(
    tmp_path: Path, folder: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=7, head_dim=32)
    flags = ("--engine", "vllm", "--model", str(folder), "--state-dir", str(tmp_path), "--dtype", "float32")
    options = ("--threads", "1", "--engine-options", json.dumps(OPTIONS["vllm"]))
    log = (tmp_path / "log").open("wb")
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "accord_rollout", *flags, *options, stdout=asyncio.subprocess.PIPE, stderr=log
    )
    assert service.stdout is not None
    try:
        line = b""
        while not line.startswith(b"accord_rollout serving at "):
            line = await asyncio.wait_for(service.stdout.readline(), 240)
            assert line, (tmp_path / "log").read_text()[-3000:]
        async with open_channel(line.decode().split()[-1]) as channel:
            stub = rollout_v1.RolloutServiceStub(channel)
            requests = [generate_request(["hello", "there"], f"r{i}", n=4, version=0) for i in range(4)]
            found = await asyncio.gather(*(samples(stub, request) for request in requests))
            assert [len(each) for each in found] == [8] * 4
            status = await stub.GetStatus(rollout_v1.GetStatusRequest())
            assert status.updates_in_flight
            assert status.resident_weights.checksum
        reference = reference_named("transformers")
        async for outcome in conformance(
            line.decode().split()[-1], model=folder, other=other, reference=reference, tolerance=1e-3
        ):
            assert outcome.verdict is not Verdict.unmet, f"{outcome.check.name}: {outcome.detail}"
        ours = vllm_processes(service.pid)
        assert ours
        service.send_signal(signal.SIGKILL)
        await service.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, ours, 30)
        assert alive == []
    finally:
        log.close()
        if service.returncode is None:
            service.kill()
            await service.wait()


def test_weights_are_streamed_as_they_are_stored(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    source = FolderSource(torch.device("cpu"), folder)
    sent = dict(source)
    assert list(sent) == sorted(stored)
    assert all(torch.equal(sent[name], stored[name]) for name in stored)
    described = [(meta.name, meta.dtype, meta.shape) for meta in source.metadata()]
    assert described == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()]


@pytest.mark.parametrize(
    ("options", "error", "reason", "words"),
    [
        ({"weight_transfer": "carrier pigeon"}, InvalidArgument, "BAD_ENGINE_OPTIONS", "weight_transfer"),
        ({"speed": "high"}, InvalidArgument, "BAD_ENGINE_OPTIONS", "engine_options.speed"),
        ({"engine_args": {"dtype": "float16"}}, InvalidArgument, "BAD_ENGINE_OPTIONS", "the service decides"),
        ({"weight_transfer": "nccl"}, FailedPrecondition, "NO_DEVICE", "no GPU"),
        ({"weight_transfer": "ipc"}, FailedPrecondition, "NO_DEVICE", "no GPU"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(
    tmp_path: Path, options: dict[str, object], error: type[Exception], reason: str, words: str
) -> None:
    with pytest.raises(error, match=words) as refused:
        VllmEngine(rollout_settings(tmp_path, engine="vllm", engine_options=options))
    assert refused.value.reason == reason  # type: ignore[attr-defined]


async def test_weights_that_do_not_fit_their_config_are_refused_while_the_old_serve(
    tmp_path: Path, folder: Path
) -> None:
    """Without a start of vLLM: the check comes first."""
    from safetensors.torch import load_file, save_file

    from accord_models.loading import load_config
    from accord_models.stored import stored_shapes

    short = make_tiny_model(tmp_path / "short", head_dim=32)
    state = load_file(short / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, short / "model.safetensors", metadata={"format": "pt"})
    engine = VllmEngine(rollout_settings(tmp_path, engine="vllm"))

    class Running:
        """As far as `prepare` looks before it refuses."""

        config, shapes, lost = load_config(folder), stored_shapes(folder), False

        llm = SimpleNamespace(errored=False)

    engine._running.append(Running)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"model\.norm\.weight") as refused:
        await engine.prepare(short, Weights(1, weights_digest(short)))
    assert refused.value.reason == "BAD_MODEL"
