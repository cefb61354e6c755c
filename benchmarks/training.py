"""A reward model trained on a preference snapshot and put into service: plain SDK calls, one step at a time."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from human_data import Pair

import accord
from accord.digest import weights_digest
from accord.errors import Internal
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1

ITEMS_A_CALL = 64


@dataclass(frozen=True)
class Recipe:
    """How the reward model is trained. `model`: the folder it starts from, an encoder or a causal language model."""

    model: Path
    epochs: int
    batch_size: int
    max_tokens: int
    learning_rate: float
    warmup_updates: int
    options: dict[str, float]
    seed: int = 0

    def steps(self, examples: int) -> int:
        """Optimizer updates in all."""
        return self.epochs * math.ceil(examples / self.batch_size)

    def all_options(self, examples: int) -> dict[str, float]:
        """What the `reward_model` algorithm is told: rates rise over the first part and fall to 0 at the end."""
        steps = self.steps(examples)
        return {
            "learning_rate": self.learning_rate,
            "max_tokens": self.max_tokens,
            "warmup_updates": self.warmup_updates,
            "decay_updates": steps,
            **self.options,
        }


def example(record: preference_v1.Record) -> trainer_v1.PreferenceExample:
    """A comparison of the preference service as the trainer takes it."""
    texts = {completion.completion_id: completion.text for completion in record.completions}
    comparison = record.feedback.comparison
    return trainer_v1.PreferenceExample(
        prompt=record.prompt.conversation,
        responses=[texts[comparison.chosen_id], texts[comparison.rejected_id]],
        ranks=trainer_v1.Ranks(values=[0, 0 if comparison.tie else 1]),
        source=record.prompt.source or record.feedback.source,
    )


def folder_ref(folder: Path) -> types_v1.WeightsRef:
    """A model folder of this machine as a reference."""
    return types_v1.WeightsRef(uri=folder.resolve().as_uri(), digest=weights_digest(folder))


async def train(
    client: accord.Client,
    examples: Sequence[trainer_v1.PreferenceExample],
    recipe: Recipe,
    report: Callable[[int, trainer_v1.StepResult], None],
) -> types_v1.WeightsRef:
    """Trains by the recipe and publishes. Interrupted and started again it goes on from the trainer's last checkpoint:
    the training is named by its content."""
    training = trainer_v1.Training(
        algorithm="reward_model", init=folder_ref(recipe.model), seed=recipe.seed, checkpoint_every=20
    )
    training.options.update(recipe.all_options(len(examples)))
    content = [json.dumps(recipe.all_options(len(examples)), sort_keys=True), training.init.digest, str(recipe.seed)]
    content += [one.SerializeToString(deterministic=True).hex() for one in examples]
    training.training_id = "benchmark-rm-" + hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    opened = await client.trainer.create_training(training)
    for version, batch in enumerate(batches(examples, recipe)):
        if version < opened.version:
            continue
        put = await client.trainer.put_experience(opened.training_id, preferences=batch)
        result = await client.trainer.step(
            opened.training_id,
            put.batch_id,
            parent_version=version,
            request_id=f"{opened.training_id}-{version}",
        )
        report(version + 1, result)
    return await client.trainer.publish(opened.training_id)


def batches(
    examples: Sequence[trainer_v1.PreferenceExample], recipe: Recipe
) -> list[list[trainer_v1.PreferenceExample]]:
    """The batches of all epochs, each epoch shuffled by the seed."""
    found = []
    for epoch in range(recipe.epochs):
        order = list(examples)
        random.Random(f"{recipe.seed}/{epoch}").shuffle(order)
        found += [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]
    return found


def scorer(digest: str, max_tokens: int) -> reward_v1.ScorerSpec:
    """The loaded reward model as a scorer that reads as much as it was trained on."""
    spec = reward_v1.ScorerSpec(name="model", model_digest=digest)
    spec.options.update({"max_length": max_tokens})
    return spec


async def differences(
    client: accord.Client, pairs: Sequence[Pair], scorers: Sequence[reward_v1.ScorerSpec]
) -> list[float]:
    """Score of `chosen` less that of `rejected`, as the reward service gives them."""
    items = [
        reward_v1.ScoreItem(item_id=f"{number}/{name}", prompt=pair.prompt, response=text)
        for number, pair in enumerate(pairs)
        for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    ]
    scores = [score async for score in _scores(client, items, scorers)]
    return [chosen - rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]


async def _scores(
    client: accord.Client, items: Sequence[reward_v1.ScoreItem], scorers: Sequence[reward_v1.ScorerSpec]
) -> AsyncIterator[float]:
    for start in range(0, len(items), ITEMS_A_CALL):
        for result in await client.reward.score(items[start : start + ITEMS_A_CALL], scorers=scorers):
            if result.HasField("failure"):
                raise Internal(f"item {result.item_id} was not scored: {result.failure.message}")
            yield result.score.value
