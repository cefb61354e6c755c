"""`accord conformance`: our own engines pass the suite that every engine must pass, and a bad one fails it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.rollout import rollout_settings
from tests.support.sdk import Engine, serve
from tests.support.tiny import make_tiny_model

from accord.conformance.check import CHECKS, Outcome
from accord.conformance.reference import reference_named
from accord.conformance.suite import conformance
from accord.conformance.verdict import Verdict
from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.service import build
from accord_runtime.serving.server import serving

pytestmark = pytest.mark.process

# What the transformers engine on a tiny model may be too quick for.
MAY_SKIP = {"deadlines-are-respected", "overload-is-said", "cancellation-frees-the-work"}


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A rollout service of ours without weights, with room for few samples."""
    settings = rollout_settings(tmp_path / "state", max_pending_samples=64)
    async with serving(await build(settings), settings) as address:
        yield address


async def outcomes(address: str, **options: Any) -> dict[str, Outcome]:
    return {outcome.check.name: outcome async for outcome in conformance(address, **options)}


async def test_our_engine_meets_every_demand(address: str, tmp_path: Path, tiny_folder: Path) -> None:
    found = await outcomes(
        address,
        model=tiny_folder,
        other=make_tiny_model(tmp_path / "other", seed=3),
        reference=reference_named("transformers"),
        tolerance=1e-3,
    )
    assert list(found) == [check.name for check in CHECKS]
    assert {name: one.detail for name, one in found.items() if one.verdict is Verdict.unmet} == {}
    assert {name for name, one in found.items() if one.verdict is Verdict.skipped} <= MAY_SKIP


class Careless(Engine):
    """Says that it serves, generates the same token for every caller, and omits what is tedious."""

    async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]
        return rollout_v1.GetStatusResponse(engine="careless", ready=True, version=1, digest="0" * 64)

    async def answer(
        self, request: rollout_v1.GenerateRequest, call: int
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        for index in range(len(request.prompts) * max(request.n, 1)):
            sample = types_v1.Sample(request_id=request.request_id, index=index, response_token_ids=[7])
            yield rollout_v1.GenerateResponse(sample=sample)


async def test_an_engine_that_breaks_the_contract_learns_where_and_how_to_fix_it() -> None:
    async with serve(rollout_v1.add_RolloutServiceServicer_to_server, Careless()) as address:
        found = await outcomes(address, seconds=2)
    unmet = {name: one.detail for name, one in found.items() if one.verdict is Verdict.unmet}
    assert unmet["status"] == "tokenizer_fingerprint is empty"
    assert "prompt_id" in unmet["samples-are-whole"]
    assert unmet["missing-indices-can-be-asked-for"] == "index 0 was not asked for"
    assert "other seeds gave the same tokens" in unmet["seeds-decide"] or "same seed" in unmet["seeds-decide"]
    assert "was accepted" in unmet["another-version-is-refused"]
    assert found["corrupt-weights-are-refused"].verdict is Verdict.skipped
    assert all(one.check.fix for one in found.values())


async def test_a_wrong_logprob_is_detected(address: str, tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "reference.py").write_text(
        "def zero(folder, prompt, response, sampling):\n    return [0.0] * len(response)"
    )
    found = await outcomes(
        address,
        model=tiny_folder,
        reference=reference_named(f"{tmp_path}/reference.py:zero"),
        only=["logprobs-*"],
    )
    assert {one.verdict for one in found.values()} == {Verdict.unmet}
    assert "the reference has 0.0000" in found["logprobs-of-the-model"].detail


async def test_the_suite_leaves_an_engine_alone_that_another_client_leases(address: str) -> None:
    from accord.channel import open_channel

    async with open_channel(address) as channel:
        request = rollout_v1.AcquireLeaseRequest(holder="runs/demo")
        request.ttl.FromSeconds(60)
        await rollout_v1.RolloutServiceStub(channel).AcquireLease(request)
        with pytest.raises(FailedPrecondition) as refused:
            await outcomes(address)
    assert refused.value.reason == "LEASE_HELD"
    with pytest.raises(Unavailable):
        await outcomes("127.0.0.1:1")
    with pytest.raises(InvalidArgument, match="samples-are-whole"):
        await outcomes(address, only=["nothing"])


async def test_the_command_prints_a_table_or_json_and_its_exit_code_says_the_result(
    address: str, tiny_folder: Path
) -> None:
    command = [sys.executable, "-m", "accord.cli.main", "conformance", address, "--model", str(tiny_folder)]
    flags = ["--only", "status", "--only", "weights-change*"]
    table = await run(*command, *flags)
    rows = await run(*command[:-2], "--only", "status", "-f", "json")
    assert table.returncode == 0, table.stderr
    assert "status" in table.stdout
    assert "1 met, 0 unmet, 1 skipped" in table.stdout
    (row,) = json.loads(rows.stdout)
    assert (row["check"], row["verdict"], rows.returncode) == ("status", "met", 0)
    failed = await run(*command[:-2], "--only", "logprobs-of-the-model", "--reference", "nowhere.py:f")
    assert (failed.returncode, "FILE.py:FUNCTION" in failed.stderr) == (1, True)


async def run(*command: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=250, check=False)
