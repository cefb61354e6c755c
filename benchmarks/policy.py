"""Policy steps against a trained reward model: the loop in one page, with only the SDK."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training import folder_ref

import accord
from accord.errors import FailedPrecondition
from accord.reward import v1 as reward_v1
from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1

PROMPTS_A_STEP, SAMPLES_A_PROMPT = 8, 4
MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class PolicyStep:
    """One step: mean reward of its samples before it learned from them, nats per response to the base, seconds."""

    step: int
    reward: float
    kl_nats: float
    seconds: float


@dataclass(frozen=True)
class Answer:
    """A policy's answer to a held-out prompt, and its reward."""

    prompt: str
    text: str
    reward: float


class Policy:
    """A policy that learns by PPO from `scorers`, normalised by mean and deviation on the base model's samples."""

    def __init__(self, client: accord.Client, model: Path, scorers: Sequence[reward_v1.ScorerSpec], seed: int) -> None:
        self._client = client
        self._base = folder_ref(model)
        self._scorers = list(scorers)
        self._seed = seed
        self._name = f"benchmark-policy-{seed}"

    async def answers(self, prompts: Sequence[str]) -> list[Answer]:
        """One answer to each prompt from the active weights, always with the same seeds."""
        sampled = [one async for one in self._sample(prompts, 1, "answers")]
        rewards = await self._rewards(sampled)
        return [Answer(s.prompt.messages[-1].content, s.text, r) for s, r in zip(sampled, rewards, strict=True)]

    async def start(self, prompts: Sequence[str]) -> None:
        """Activates the base model, normalises the reward on its samples, creates the training."""
        await self._client.rollout.update_weights(self._base)
        raw = await self._rewards([one async for one in self._sample(prompts, 2, "reference")])
        for scorer in self._scorers:
            scorer.shift = statistics.fmean(raw) / len(self._scorers)
            scorer.scale = max(statistics.pstdev(raw), 1e-6)
        existing = {training.training_id async for training in self._client.trainer.trainings()}
        if self._name in existing:
            await self._client.trainer.delete_training(self._name)
        training = trainer_v1.Training(
            training_id=self._name, algorithm="ppo", init=self._base, seed=self._seed, checkpoint_every=1000
        )
        await self._client.trainer.create_training(training)

    async def steps(self, prompts: Sequence[str], count: int) -> AsyncIterator[PolicyStep]:
        """Samples, scores, learns and activates the new weights, `count` times."""
        for step in range(count):
            at = step * PROMPTS_A_STEP
            chosen = [prompts[(at + i) % len(prompts)] for i in range(PROMPTS_A_STEP)]
            sampled = [one async for one in self._sample(chosen, SAMPLES_A_PROMPT, f"step-{step}", 1000 * (step + 1))]
            rewards = await self._rewards(sampled)
            batch = [trainer_v1.ScoredSample(sample=s, score=r) for s, r in zip(sampled, rewards, strict=True)]
            put = await self._client.trainer.put_experience(self._name, samples=batch)
            result = await self._client.trainer.step(self._name, put.batch_id, parent_version=step, publish=True)
            await self._client.rollout.update_weights(result.weights)
            yield PolicyStep(step + 1, statistics.fmean(rewards), result.metrics["kl_k1"], result.seconds)

    async def _sample(self, prompts: Sequence[str], n: int, name: str, seed: int = 0) -> AsyncIterator[types_v1.Sample]:
        """Samples in the order of their indices; prompt i is sampled with `seed` + i."""
        asked = [rollout_v1.Prompt(conversation=accord.conversation(p), seed=seed + i) for i, p in enumerate(prompts)]
        found: dict[int, types_v1.Sample] = {}
        version = (await self._client.rollout.status()).version
        async for response in self._client.rollout.generate(
            asked, n=n, sampling=types_v1.SamplingParams(max_new_tokens=MAX_NEW_TOKENS),
            request_id=f"{self._name}-{name}-{version}",
        ):  # fmt: skip
            if response.HasField("failure"):
                raise FailedPrecondition(f"a sample failed: {response.failure.failure.message}")
            found[response.sample.index] = response.sample
        for index in sorted(found):
            yield found[index]

    async def _rewards(self, samples: Sequence[types_v1.Sample]) -> list[float]:
        items = [
            reward_v1.ScoreItem(
                item_id=str(sample.index),
                prompt=sample.prompt,
                response=sample.text,
                truncated=sample.finish_reason == types_v1.FINISH_REASON_LENGTH,
            )
            for sample in samples
        ]
        results = await self._client.reward.score(items, scorers=self._scorers)
        failed = [result.failure.message for result in results if result.HasField("failure")]
        if failed:
            raise FailedPrecondition(f"{len(failed)} of {len(results)} samples were not scored: {failed[0]}")
        return [result.score.value for result in results]
