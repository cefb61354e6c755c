"""Converts messages of accord.reward.v1 to this service's types and back; refuses invalid ones."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict

from accord.conversations import ROLES
from accord.errors import FieldViolation, InvalidArgument
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1
from accord_reward.handler import MixturePart
from accord_reward.mixture import Mixed, Part
from accord_reward.scorer import Item, ItemFailure
from accord_reward.scorer_pool import ScorerDescription, ScorerRequest


def mixture(specs: Iterable[reward_v1.ScorerSpec]) -> list[MixturePart]:
    """The parts of a mixture. InvalidArgument names the first number that is out of range."""
    return [_part(f"scorers[{index}]", spec) for index, spec in enumerate(specs)]


def items(messages: Iterable[reward_v1.ScoreItem]) -> list[Item]:
    """The items. InvalidArgument names every turn whose role is unknown."""
    wrong = []
    found = []
    for index, message in enumerate(messages):
        for turn, chat in enumerate(message.prompt.messages):
            if chat.role not in ROLES:
                field = f"items[{index}].prompt.messages[{turn}].role"
                wrong.append(FieldViolation(field, f"unknown role {chat.role!r}; available: {', '.join(ROLES)}"))
        found.append(Item(message.prompt, message.response, message.truncated))
    if wrong:
        raise InvalidArgument(
            f"{wrong[0].field}: {wrong[0].description}", reason="BAD_CONVERSATION", violations=wrong[:20]
        )
    return found


def result(item_id: str, outcome: Mixed | ItemFailure) -> reward_v1.ScoreResult:
    """The message for one item."""
    if isinstance(outcome, ItemFailure):
        failure = types_v1.Failure(reason=outcome.reason, message=outcome.message, retryable=outcome.retryable)
        return reward_v1.ScoreResult(item_id=item_id, failure=failure)
    parts = [reward_v1.ScorePart(name=part.name, raw=part.raw, weighted=part.weighted) for part in outcome.parts]
    return reward_v1.ScoreResult(item_id=item_id, score=reward_v1.Score(value=outcome.value, parts=parts))


def info(described: ScorerDescription) -> reward_v1.ScorerInfo:
    """The message for one available scorer."""
    message = reward_v1.ScorerInfo(name=described.name, description=described.description)
    message.options_schema.update(dict(described.options_schema))
    return message


def _part(field: str, spec: reward_v1.ScorerSpec) -> MixturePart:
    part = Part(
        spec.name,
        weight=spec.weight if spec.HasField("weight") else 1.0,
        shift=spec.shift if spec.HasField("shift") else 0.0,
        scale=spec.scale if spec.HasField("scale") else 1.0,
    )
    return MixturePart(ScorerRequest(field, spec.name, MessageToDict(spec.options), spec.model_digest), part)
