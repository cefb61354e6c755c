"""Scores for samples. If a score keeps failing, its sample is dropped and counted; the score never becomes 0."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accord.errors import Unavailable
from accord.preference import v1 as preference_v1
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_controller.stages.context import StageContext

ITEMS_PER_REQUEST = 64
TRIES = 3


@dataclass(frozen=True)
class Scored:
    """A sample and its score."""

    sample: types_v1.Sample
    score: reward_v1.Score


async def score_samples(
    context: StageContext,
    samples: Sequence[types_v1.Sample],
    prompts: Mapping[str, preference_v1.Prompt],
    scorers: Sequence[reward_v1.ScorerSpec],
) -> list[Scored]:
    """The samples that could be scored, in order. The scorers see the prompt as it was imported, without the run's
    system message. Unavailable, NO_SCORES, if none could be scored."""
    items = [
        reward_v1.ScoreItem(
            item_id=str(position),
            prompt=prompts[sample.prompt_id].conversation,
            response=sample.text,
            truncated=sample.finish_reason == types_v1.FINISH_REASON_LENGTH,
        )
        for position, sample in enumerate(samples)
    ]
    scores = await _score(context, items, scorers)
    if not scores:
        raise Unavailable("All scores failed. See the preceding retry events", reason="NO_SCORES")
    return [Scored(sample, scores[position]) for position, sample in enumerate(samples) if position in scores]


async def _score(
    context: StageContext, items: Sequence[reward_v1.ScoreItem], scorers: Sequence[reward_v1.ScorerSpec]
) -> dict[int, reward_v1.Score]:
    """Scores by position."""
    scores: dict[int, reward_v1.Score] = {}
    waiting = list(items)
    for attempt in range(TRIES):
        failures: list[tuple[reward_v1.ScoreItem, types_v1.Failure]] = []
        for start in range(0, len(waiting), ITEMS_PER_REQUEST):
            chunk = waiting[start : start + ITEMS_PER_REQUEST]
            results = await context.client.reward.score(chunk, scorers=scorers, isolated=context.spec.deterministic)
            for item, result in zip(chunk, results, strict=True):
                if result.WhichOneof("result") == "score":
                    scores[int(item.item_id)] = result.score
                else:
                    failures.append((item, result.failure))
        if not failures:
            break
        waiting = [item for item, failure in failures if failure.retryable]
        again = bool(waiting) and attempt + 1 < TRIES
        first = failures[0][1]
        await context.recorder.emit(
            "retry",
            f"{len(failures)} of {len(items)} scores failed ({first.reason}: {first.message}); "
            + (f"requesting {len(waiting)} again" if again else "their samples are dropped"),
            {"failed_scores": len(failures)},
        )
        if not again:
            break
    return scores


def mean_score(scored: Sequence[Scored]) -> float:
    """The mean of the mixed score."""
    return statistics.fmean(each.score.value for each in scored)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation, or 1 if the values do not differ, because it is used as a divisor."""
    spread = statistics.pstdev(values)
    return spread if spread > 1e-6 else 1.0
