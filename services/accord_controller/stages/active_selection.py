"""Active selection: of more prompts than are asked about, those whose answers tell the reward models most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.keys import key
from accord_controller.spec.defaults import RANDOM
from accord_controller.stages.acquisition import value_of
from accord_controller.stages.context import StageContext
from accord_controller.stages.scoring import score_samples


def selects(context: StageContext, iteration: int) -> bool:
    """Whether this iteration selects: the first has no reward model to ask."""
    return context.spec.feedback.selection != RANDOM and iteration > 1


async def select_samples(
    context: StageContext, iteration: int, samples: Sequence[types_v1.Sample], wanted: int
) -> list[types_v1.Sample]:
    """The samples of all held-out prompts, and of the `wanted` training prompts whose answers are worth most asking.

    Held-out prompts are not selected, so that the reward model's accuracy stays that on any prompt. What was chosen is
    recorded: a resumed run asks the same.
    """
    name = key(iteration, "collect", "selected")
    recorded = await context.ledger.read(name, preference_v1.Prompt)
    if recorded is None:
        recorded = await _select(context, iteration, samples, wanted)
        await context.recorder.record_all(name, preference_v1.Prompt, recorded)
    kept = {prompt.prompt_id for prompt in recorded}
    return [sample for sample in samples if sample.prompt_id in kept]


async def _select(
    context: StageContext, iteration: int, samples: Sequence[types_v1.Sample], wanted: int
) -> list[preference_v1.Prompt]:
    prompts = await context.prompts()
    train = {name for name, prompt in prompts.items() if prompt.split == preference_v1.SPLIT_TRAIN}
    heldout = list(dict.fromkeys(sample.prompt_id for sample in samples if sample.prompt_id not in train))
    asked = [sample for sample in samples if sample.prompt_id in train]
    weights = context.reward_model(iteration - 1)
    await context.client.reward.load_model(weights)
    members = int(context.spec.reward_model.options.fields["ensemble"].number_value)
    scorers = [reward_v1.ScorerSpec(name="model", model_digest=weights.digest) for _ in range(members)]
    for number, scorer in enumerate(scorers):
        scorer.options.update({"member": number})
    scores: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for each in await score_samples(context, asked, prompts, scorers):
        # Equal answers are one: there is nothing to choose between them.
        scores[each.sample.prompt_id][each.sample.text] = [part.raw for part in each.score.parts]
    selection = context.spec.feedback.selection
    values = {
        prompt_id: value_of(selection, list(found.values())) for prompt_id, found in scores.items() if len(found) > 1
    }
    chosen = sorted(values, key=lambda prompt_id: (-values[prompt_id], prompt_id))[:wanted]
    mean_all = sum(values.values()) / max(1, len(values))
    mean_chosen = sum(values[prompt_id] for prompt_id in chosen) / max(1, len(chosen))
    await context.recorder.emit(
        "selected",
        f"{len(chosen)} of {len(values)} prompts by {selection}: {mean_chosen:.4f} on average, {mean_all:.4f} over all",
        {"selected_value": mean_chosen, "pool_value": mean_all},
    )
    return [prompts[prompt_id] for prompt_id in (*heldout, *chosen)]
