"""The engine `openai` on a real `vllm serve`, which people run for themselves. Part of `make test-vllm`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.support.rollout import generate, generate_request, rollout_settings, weights_ref
from tests.support.tiny import make_tiny_model

from accord.channel import open_channel
from accord.conformance.reference import reference_named
from accord.conformance.suite import conformance
from accord.conformance.verdict import Verdict
from accord.rollout import v1 as rollout_v1
from accord_rollout.service import build
from accord_runtime.serving.server import serving

PYTHON = Path(".venv-vllm/bin/python")

pytestmark = [
    pytest.mark.process,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is not installed here: make install-vllm"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its head is not tied: of one that is, vLLM 0.32 reloads nothing on a CPU (docs/engines.md)."""
    return make_tiny_model(tmp_path_factory.mktemp("served") / "model", head_dim=32, tied=False)


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `vllm serve` answers, started as docs/engines.md says."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", "--host=127.0.0.1",
        f"--port={url.rpartition(':')[2]}", "--logprobs-mode=processed_logprobs", "--dtype=float32", "--enforce-eager",
        "--no-enable-chunked-prefill", f"--kv-cache-memory-bytes={2**28}", "--max-num-seqs=64",
    ]  # fmt: skip
    environment = {"VLLM_SERVER_DEV_MODE": "1", "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment |= {"OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("log") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-3000:]
            if healthy(url):
                break
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its engine is a separate process
        process.wait()


def healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


async def test_a_vllm_server_behind_the_engine_openai_keeps_the_contract(
    url: str, folder: Path, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=7, head_dim=32, tied=False)
    settings = rollout_settings(tmp_path / "state", engine="openai", engine_options={"url": url})
    async with serving(await build(settings), settings) as address:
        found = {
            outcome.check.name: outcome
            async for outcome in conformance(
                address, model=folder, other=other, reference=reference_named("transformers"), tolerance=1e-3
            )
        }
        assert {name: one.detail for name, one in found.items() if one.verdict is Verdict.unmet} == {}
        for name in ("logprobs-of-the-model", "an-update-takes-effect", "seeds-decide", "greedy-is-greedy"):
            assert found[name].verdict is Verdict.met, found[name].detail
        # One more version, which then generates the samples.
        async with open_channel(address) as channel:
            stub = rollout_v1.RolloutServiceStub(channel)
            ref = weights_ref(other, version=77)
            answer = await stub.UpdateWeights(
                rollout_v1.UpdateWeightsRequest(request_id="more", weights=ref), timeout=120
            )
            assert answer.resident_weights.checksum
            samples = await generate(stub, generate_request(["hello"], n=3, version=77))
            assert {one.sample.segments[0].digest for one in samples.values()} == {ref.digest}
