"""Runs comparisons: two policies answer the same held-out prompts, and tasks ask people which answer is better."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import accord
from accord.controller import v1 as controller_v1
from accord.errors import AccordError, FailedPrecondition, InvalidArgument
from accord.preference import v1 as preference_v1
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_console.comparisons.comparisons import Comparison, Comparisons

log = logging.getLogger(__name__)

# Renewed before each batch; long enough for one batch and for fetching weights.
LEASE_SECONDS = 600.0
PROMPTS_PER_REQUEST = 16
MOST_PROMPTS = 1000
Services = Callable[..., Awaitable[accord.Client]]


class ComparisonRunner:
    """Starts comparisons and runs them in the background, one after another: the engine serves one policy at a time."""

    def __init__(self, services: Services, comparisons: Comparisons) -> None:
        self._services = services
        self._comparisons = comparisons
        self._tasks: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    async def start(
        self, first: str, second: str, *, prompts: int, redundancy: int, max_new_tokens: int, temperature: float
    ) -> Comparison:
        """Starts a comparison of two models of the registry. InvalidArgument names a wrong field."""
        for field, value, least, most in (
            ("prompts", prompts, 1, MOST_PROMPTS), ("redundancy", redundancy, 1, 100),
            ("max_new_tokens", max_new_tokens, 1, 8192), ("temperature", temperature, 0, 10),
        ):  # fmt: skip
            if not least <= value <= most:
                raise InvalidArgument.at(field, f"is {value:g}; must be from {least} to {most}")
        client = await self._services("controller", "preference", "rollout")
        models = [await client.models.get(name) for name in (first, second)]
        if models[0].weights.digest == models[1].weights.digest:
            raise InvalidArgument.at("second", "has the same weights as the first; choose two different policies")
        made = Comparison(
            comparison_id=secrets.token_hex(6),
            first=first,
            second=second,
            first_digest=models[0].weights.digest,
            second_digest=models[1].weights.digest,
            prompts=prompts,
            redundancy=redundancy,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            created=time.time(),
        )
        self._comparisons.store(made)
        task = asyncio.create_task(self._run(client, made, models))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return made

    async def close(self) -> None:
        """Cancels running comparisons, which are marked as failed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._comparisons.interrupt()

    async def _run(self, client: accord.Client, made: Comparison, models: Sequence[controller_v1.Model]) -> None:
        try:
            async with self._one:
                opened = await run_comparison(client, made, models)
        except AccordError as error:
            log.warning("comparison %s failed: %s", made.comparison_id, error.message)
            opened = replace(made, state="failed", message=f"{error.message} [{error.reason}]")
        except Exception as error:
            log.exception("comparison %s failed", made.comparison_id)
            opened = replace(made, state="failed", message=f"{type(error).__name__}: {error}")
        self._comparisons.store(opened)


async def run_comparison(client: accord.Client, made: Comparison, models: Sequence[controller_v1.Model]) -> Comparison:
    """Generates answers of both policies and creates the tasks. FailedPrecondition, LEASE_HELD, while a run uses the
    engine."""
    prompts = await held_out(client, made.prompts, made.comparison_id)
    answers: list[dict[str, types_v1.Sample]] = []
    lease = await client.rollout.acquire_lease(f"compare/{made.comparison_id}", ttl_seconds=LEASE_SECONDS)
    try:
        for model in models:
            await client.rollout.update_weights(model.weights, lease_token=lease.token)
            answers.append(await _answers(client, made, prompts, lease.token))
    finally:
        await client.rollout.release_lease(lease.token)
    both = [prompt for prompt in prompts if all(prompt.prompt_id in found for found in answers)]
    if not both:
        raise FailedPrecondition("No prompt was answered by both policies", reason="NO_SAMPLES")
    differing = [p for p in both if answers[0][p.prompt_id].text != answers[1][p.prompt_id].text]
    completions = [
        preference_v1.Completion(
            prompt_id=prompt.prompt_id,
            text=found[prompt.prompt_id].text,
            finish_reason=found[prompt.prompt_id].finish_reason,
            origin=_origin(model, found[prompt.prompt_id]),
        )
        for prompt in differing
        for model, found in zip(models, answers, strict=True)
    ]
    if differing:
        stored = await client.preferences.create_completions(
            completions, request_id=f"console-compare-{made.comparison_id}-completions"
        )
        tasks = [
            preference_v1.Task(
                kind=preference_v1.TASK_KIND_COMPARISON,
                prompt_id=prompt.prompt_id,
                completion_ids=[stored[2 * place].completion_id, stored[2 * place + 1].completion_id],
                redundancy=made.redundancy,
                queue=made.queue,
            )
            for place, prompt in enumerate(differing)
        ]
        await client.preferences.create_tasks(tasks, request_id=f"console-compare-{made.comparison_id}-tasks")
    return replace(made, state="open", tasks=len(differing), same=len(both) - len(differing))


async def held_out(client: accord.Client, count: int, salt: str) -> list[preference_v1.Prompt]:
    """Up to `count` held-out prompts, chosen by hash. FailedPrecondition if there are none."""
    found = [prompt async for prompt in client.preferences.prompts(split=preference_v1.SPLIT_HELDOUT)]
    if not found:
        raise FailedPrecondition(
            "There are no held-out prompts. Import prompts; a share of them is held out", reason="NO_PROMPTS"
        )
    return sorted(found, key=lambda prompt: _hash(salt, prompt.prompt_id))[:count]


async def _answers(
    client: accord.Client, made: Comparison, prompts: Sequence[preference_v1.Prompt], token: str
) -> dict[str, types_v1.Sample]:
    """One answer of the active weights to each prompt, by prompt id; failed ones are missing."""
    found: dict[str, types_v1.Sample] = {}
    sampling = types_v1.SamplingParams(max_new_tokens=made.max_new_tokens, temperature=made.temperature)
    for start in range(0, len(prompts), PROMPTS_PER_REQUEST):
        await client.rollout.acquire_lease(f"compare/{made.comparison_id}", ttl_seconds=LEASE_SECONDS, token=token)
        batch = [
            rollout_v1.Prompt(
                prompt_id=prompt.prompt_id,
                conversation=prompt.conversation,
                seed=_hash(made.comparison_id, prompt.prompt_id) >> 1,
            )
            for prompt in prompts[start : start + PROMPTS_PER_REQUEST]
        ]
        async for response in client.rollout.generate(batch, sampling=sampling, lease_token=token):
            if response.HasField("sample"):
                found[response.sample.prompt_id] = response.sample
    return found


def _origin(model: controller_v1.Model, sample: types_v1.Sample) -> preference_v1.CompletionOrigin:
    return preference_v1.CompletionOrigin(
        run_id=model.run_id,
        iteration=model.iteration,
        weights_version=sample.segments[0].version,
        weights_digest=sample.segments[0].digest,
        seed=sample.seed,
        engine=sample.engine,
    )


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8])
