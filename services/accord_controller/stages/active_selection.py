"""Active selection: asks only about the prompts whose answers teach the reward models most.

The scores of an ensemble estimate how much a comparison teaches. Member m expects answer a to beat b with probability
p_m = sigmoid(r_m(a) - r_m(b)) (Bradley-Terry).

- disagreement: the standard deviation of p_m over members (query by committee).
- information: H(mean p) - mean H(p), the mutual information of the answer and the right member (BALD; Houlsby et al.,
  "Bayesian Active Learning for Classification and Preference Learning", 2011): high when members are sure and
  contradict one another, low when all of them expect a coin flip.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_controller.ledger.keys import key
from accord_controller.spec.defaults import RANDOM
from accord_controller.stages.context import StageContext
from accord_controller.stages.scoring import score_samples


def selects(context: StageContext, iteration: int) -> bool:
    """Whether this iteration selects. The first has no reward model to select with."""
    return context.spec.feedback.selection != RANDOM and iteration > 1


async def select_samples(
    context: StageContext, iteration: int, samples: Sequence[types_v1.Sample], wanted: int
) -> list[types_v1.Sample]:
    """The samples of all held-out prompts and of the `wanted` training prompts with the most valuable answers.

    Held-out prompts are not selected, so the reward model's accuracy is still measured on arbitrary prompts. The choice
    is recorded: a resumed run asks about the same prompts.
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
        # Equal answers count once, because there is nothing to choose between them.
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
        f"{len(chosen)} of {len(values)} prompts selected by {selection}: mean {mean_chosen:.4f}, all {mean_all:.4f}",
        {"selected_value": mean_chosen, "pool_value": mean_all},
    )
    return [prompts[prompt_id] for prompt_id in (*heldout, *chosen)]


def probabilities(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Each member's probability that the first answer wins, from the members' scores of both."""
    return [_sigmoid(a - b) for a, b in zip(first, second, strict=True)]


def disagreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Standard deviation over members of the probability that the first wins, 0 to 1/2."""
    return statistics.pstdev(probabilities(first, second))


def information(first: Sequence[float], second: Sequence[float]) -> float:
    """Expected information gain of the answer, nats, 0 to log 2."""
    found = probabilities(first, second)
    return max(0.0, _entropy(statistics.fmean(found)) - statistics.fmean(map(_entropy, found)))


ACQUISITIONS: Mapping[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "disagreement": disagreement,
    "information": information,
}


def value_of(selection: str, scores: Sequence[Sequence[float]]) -> float:
    """The value of asking about these answers: the mean over their pairs. `scores`: per answer, one score from each
    member."""
    measure = ACQUISITIONS[selection]
    return statistics.fmean(measure(one, other) for one, other in combinations(scores, 2))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))


def _entropy(probability: float) -> float:
    return -sum(p * math.log(p) for p in (probability, 1 - probability) if p > 0)
