"""A policy as a judge, asked through a rollout service that serves the policy's weights."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from accord.conversations import conversation
from accord.errors import Unavailable
from accord.resources.rollout import Rollout
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

MAX_TOKENS = 256
LEASE_SECONDS = 3600.0


class PolicyJudge:
    """Asks a policy. `generate`: `client.rollout.generate`, or a function like it, of engines that serve the policy."""

    def __init__(self, generate: Callable[..., AsyncIterator[rollout_v1.GenerateResponse]]) -> None:
        self._generate = generate

    async def ask(self, system: str, question: str) -> str:
        """The greedy reply. Unavailable, NO_SAMPLES, if the engine fails."""
        prompt = rollout_v1.Prompt(conversation=conversation([("system", system), ("user", question)]), seed=0)
        sampling = types_v1.SamplingParams(max_new_tokens=MAX_TOKENS, temperature=0.0)
        reply = ""
        async for response in self._generate([prompt], sampling=sampling):
            if response.HasField("failure"):
                failure = response.failure.failure
                raise Unavailable(f"the policy did not judge: {failure.message}", reason="NO_SAMPLES")
            reply = response.sample.text
        return reply


@asynccontextmanager
async def policy_judge(rollout: Rollout, weights: types_v1.WeightsRef, name: str) -> AsyncIterator[PolicyJudge]:
    """A judge with these weights. The engine is leased for the block. FailedPrecondition, LEASE_HELD, during a run."""
    lease = await rollout.acquire_lease(f"judge/{name}/{uuid.uuid4().hex[:8]}", ttl_seconds=LEASE_SECONDS)
    try:
        await rollout.update_weights(weights, lease_token=lease.token)
        yield PolicyJudge(partial(rollout.generate, lease_token=lease.token))
    finally:
        await rollout.release_lease(lease.token)
