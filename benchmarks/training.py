"""A reward model trained on a preference snapshot and loaded for scoring: plain SDK calls, one step at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
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
STEP_SECONDS = 3600.0


@dataclass(frozen=True)
class Recipe:
    """The recipe of a reward model: a head on the lower `blocks` of the language model in the folder `model`."""

    model: Path
    blocks: int
    max_tokens: int
    penalty: float

    def options(self) -> dict[str, float]:
        """Options of the `reward_probe` algorithm."""
        return {"blocks": self.blocks, "max_tokens": self.max_tokens, "penalty": self.penalty}


def example(record: preference_v1.Record) -> trainer_v1.PreferenceExample:
    """A comparison of the preference service in the trainer's form."""
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
    client: accord.Client, examples: Sequence[trainer_v1.PreferenceExample], recipe: Recipe
) -> tuple[types_v1.WeightsRef, trainer_v1.StepResult]:
    """Fits by the recipe and publishes. A repeated call fits nothing: the training is named after its content."""
    training = trainer_v1.Training(algorithm="reward_probe", init=folder_ref(recipe.model), checkpoint_every=1)
    training.options.update(recipe.options())
    content = [json.dumps(recipe.options(), sort_keys=True), training.init.digest]
    content += [one.SerializeToString(deterministic=True).hex() for one in examples]
    training.training_id = "benchmark-rm-" + hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    opened = await client.trainer.create_training(training)
    put = await client.trainer.put_experience(opened.training_id, preferences=examples)
    # A repeated step returns the recorded result.
    result = await client.trainer.step(
        opened.training_id, put.batch_id, parent_version=0, request_id=opened.training_id, timeout=STEP_SECONDS
    )
    return await client.trainer.publish(opened.training_id), result


def scorer(digest: str, max_tokens: int) -> reward_v1.ScorerSpec:
    """The loaded reward model as a scorer with the maximum length of its training."""
    spec = reward_v1.ScorerSpec(name="model", model_digest=digest)
    spec.options.update({"max_length": max_tokens})
    return spec


async def differences(
    client: accord.Client, pairs: Sequence[Pair], scorers: Sequence[reward_v1.ScorerSpec]
) -> list[float]:
    """The reward service's score of `chosen` less that of `rejected`."""
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
