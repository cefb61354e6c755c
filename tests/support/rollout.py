"""A rollout service on a tiny model, and requests to it, in one line each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from accord.channel import open_channel
from accord.digest import weights_digest
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.service import RolloutService, build
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.server import serving


def rollout_settings(state_dir: Path, **changes: Any) -> RolloutSettings:
    """Settings of a test: float32, one thread, nothing from the environment's flags."""
    return RolloutSettings(**{"state_dir": state_dir, "dtype": "float32", "threads": 1, "device": "cpu", **changes})


@asynccontextmanager
async def rollout_service(
    state_dir: Path, **changes: Any
) -> AsyncIterator[tuple[rollout_v1.RolloutServiceStub, RolloutService]]:
    """A served rollout service: its stub and the service itself."""
    settings = rollout_settings(state_dir, **changes)
    service = await build(settings)
    async with serving(service, settings) as address, open_channel(address) as channel:
        yield rollout_v1.RolloutServiceStub(channel), service


def weights_ref(folder: Path, version: int = 0, **changes: str) -> types_v1.WeightsRef:
    """The reference to a model folder on this disk."""
    return types_v1.WeightsRef(
        **{"uri": folder.as_uri(), "version": version, "digest": weights_digest(folder), **changes}
    )


def user(text: str) -> types_v1.Conversation:
    """One user turn."""
    return types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=text)])


def generate_request(texts: Sequence[str], request_id: str = "request", **changes: Any) -> rollout_v1.GenerateRequest:
    """A request for 8 tokens at temperature 1 for each text; `changes` are fields of the request."""
    fields = {"sampling": types_v1.SamplingParams(max_new_tokens=8), **changes}
    prompts = [rollout_v1.Prompt(prompt_id=f"p{i}", conversation=user(text)) for i, text in enumerate(texts)]
    return rollout_v1.GenerateRequest(**{"request_id": request_id, "prompts": prompts, **fields})


async def generate(
    stub: rollout_v1.RolloutServiceStub, request: rollout_v1.GenerateRequest
) -> dict[int, rollout_v1.GenerateResponse]:
    """All responses of a request by index, each of which comes once."""
    found: dict[int, rollout_v1.GenerateResponse] = {}
    async for response in stub.Generate(request, timeout=60):
        result = response.sample if response.HasField("sample") else response.failure
        assert result.index not in found
        found[result.index] = response
    return found


async def samples(
    stub: rollout_v1.RolloutServiceStub, request: rollout_v1.GenerateRequest
) -> dict[int, types_v1.Sample]:
    """The same, where every response must be a sample."""
    responses = await generate(stub, request)
    assert all(response.HasField("sample") for response in responses.values()), responses
    return {index: response.sample for index, response in responses.items()}


async def pending(stub: rollout_v1.RolloutServiceStub) -> int:
    """Samples waiting and in work."""
    return (await stub.GetStatus(rollout_v1.GetStatusRequest())).pending_samples


async def until_pending(stub: rollout_v1.RolloutServiceStub, samples: int) -> None:
    """Waits, at most 5 seconds, until so many samples are waiting and in work."""
    async with asyncio.timeout(5):
        while await pending(stub) != samples:  # noqa: ASYNC110  the service is another program: asking is all one can
            await asyncio.sleep(0.01)
