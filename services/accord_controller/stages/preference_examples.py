"""Converts stored feedback into the examples that a reward model learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accord.preference import v1 as preference_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_controller.stages.seeds import shuffled

SIMULATED = "simulated"


def to_examples(records: Iterable[preference_v1.Record]) -> list[trainer_v1.PreferenceExample]:
    """One example for each judgement, ordered by content alone: annotators, times and ids do not affect training."""
    examples = [to_example(record) for record in records]
    return sorted(examples, key=content)


def to_judged(records: Iterable[preference_v1.Record]) -> list[trainer_v1.PreferenceExample]:
    """The examples for evaluation; each also names its annotator."""
    examples = []
    for record in records:
        examples.append(to_example(record))
        examples[-1].annotator = record.feedback.annotator.annotator_id
    return sorted(examples, key=content)


def to_example(record: preference_v1.Record) -> trainer_v1.PreferenceExample:
    """A comparison becomes a pair (tied or not), a ranking becomes K ranked answers, and a rating becomes one answer
    rated from 0 to 1. Responses that were cut off are marked as truncated."""
    feedback = record.feedback
    answers = {completion.completion_id: completion for completion in record.completions}
    example = trainer_v1.PreferenceExample(prompt=record.prompt.conversation, source=source_of(record))
    if record.HasField("weight"):
        example.weight = record.weight
    match feedback.WhichOneof("judgement"):
        case "comparison":
            comparison = feedback.comparison
            responses = [answers[comparison.chosen_id], answers[comparison.rejected_id]]
            example.ranks.values.extend([0, 0] if comparison.tie else [0, 1])
            if comparison.HasField("margin") and not comparison.tie:
                example.margin = comparison.margin
        case "ranking":
            responses = [answers[name] for rank in feedback.ranking.ranks for name in rank.completion_ids]
            example.ranks.values.extend(
                number for number, rank in enumerate(feedback.ranking.ranks) for _ in rank.completion_ids
            )
        case _:
            rating = feedback.rating
            low = rating.min if rating.HasField("min") else 0.0
            high = rating.max if rating.HasField("max") else 1.0
            responses = [answers[rating.completion_id]]
            example.ratings.values.append((rating.value - low) / (high - low))
    example.responses.extend(response.text for response in responses)
    cut_off = [response.finish_reason == types_v1.FINISH_REASON_LENGTH for response in responses]
    if any(cut_off):
        example.truncated.extend(cut_off)
    return example


def source_of(record: preference_v1.Record) -> str:
    """The group under which accuracy is reported: the feedback's source, `simulated`, or the prompt's source."""
    if record.feedback.source:
        return record.feedback.source
    if record.feedback.annotator.kind == preference_v1.ANNOTATOR_KIND_SIMULATED:
        return SIMULATED
    return record.prompt.source


def batches(
    examples: Sequence[trainer_v1.PreferenceExample], *, epochs: int, size: int, seed: int
) -> list[list[trainer_v1.PreferenceExample]]:
    """All batches of the training, in order: each epoch goes through all examples once, reshuffled."""
    result = []
    for epoch in range(epochs):
        # Equal examples are distinguished by position, so that a repeated judgement counts twice.
        order = shuffled(enumerate(examples), lambda item: f"{item[0]}", seed, "reward_model", epoch)
        ordered = [example for _, example in order]
        result += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return result


def content(example: trainer_v1.PreferenceExample) -> bytes:
    """An example's bytes."""
    return example.SerializeToString(deterministic=True)
