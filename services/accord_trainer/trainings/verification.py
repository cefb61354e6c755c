"""Verifies experience: versions, digests, tokenizer, and every number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accord.conversations import ROLES
from accord.errors import FailedPrecondition, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_trainer.algorithm import Kind


@dataclass(frozen=True)
class TrainingIdentity:
    """The properties that experience must match. `digests` is version -> digest of the published form; `init` are the
    initial weights: version 0 of this training, whatever version they had in the training that made them."""

    learns_from: Kind
    vocabulary_size: int
    tokenizer_fingerprint: str
    digests: Mapping[int, str]
    init: types_v1.WeightsRef


def verify_sample(scored: trainer_v1.ScoredSample, at: str, training: TrainingIdentity) -> None:
    """InvalidArgument naming the field under `at`; FailedPrecondition UNKNOWN_VERSION, DIGEST_MISMATCH or
    TOKENIZER_MISMATCH."""
    sample = scored.sample
    if training.learns_from != "samples":
        raise InvalidArgument.at(at, "this training learns from preferences")
    if not scored.HasField("score") or not math.isfinite(scored.score):
        raise InvalidArgument.at(f"{at}.score", "must be a finite number; leave out samples whose scoring failed")
    _verify_tokens(list(sample.prompt_token_ids), f"{at}.sample.prompt_token_ids", training.vocabulary_size)
    _verify_tokens(list(sample.response_token_ids), f"{at}.sample.response_token_ids", training.vocabulary_size)
    length = len(sample.response_token_ids)
    for field in ("logprobs", "response_mask"):
        if len(getattr(sample, field)) != length:
            raise InvalidArgument.at(
                f"{at}.sample.{field}", f"has {len(getattr(sample, field))} entries for {length} tokens"
            )
    for index, logprob in enumerate(sample.logprobs):
        if not math.isfinite(logprob) or logprob > 0:
            raise InvalidArgument.at(
                f"{at}.sample.logprobs[{index}]", f"is {logprob}; a log-probability is finite and <= 0"
            )
    if not any(sample.response_mask):
        raise InvalidArgument.at(f"{at}.sample.response_mask", "is false everywhere: the policy chose no token")
    if sample.finish_reason == types_v1.FINISH_REASON_UNSPECIFIED:
        raise InvalidArgument.at(f"{at}.sample.finish_reason", "must be set")
    if sample.tokenizer_fingerprint != training.tokenizer_fingerprint:
        raise FailedPrecondition(
            f"{at} was tokenized with a different tokenizer than this training uses",
            reason="TOKENIZER_MISMATCH",
            metadata={"expected": training.tokenizer_fingerprint, "found": sample.tokenizer_fingerprint},
        )
    _verify_segments(sample, f"{at}.sample.segments", training)


def verify_preference(example: trainer_v1.PreferenceExample, at: str, training: TrainingIdentity) -> None:
    """InvalidArgument naming the field under `at`."""
    if training.learns_from != "preferences":
        raise InvalidArgument.at(at, "this training learns from samples")
    for index, message in enumerate(example.prompt.messages):
        if message.role not in ROLES:
            raise InvalidArgument.at(
                f"{at}.prompt.messages[{index}].role", f"is {message.role!r}; must be one of {ROLES}"
            )
    if not example.prompt.messages:
        raise InvalidArgument.at(f"{at}.prompt", "has no messages")
    answers = len(example.responses)
    target = example.WhichOneof("target")
    if target is None:
        raise InvalidArgument.at(at, "has neither ranks nor ratings")
    if answers < (2 if target == "ranks" else 1):
        raise InvalidArgument.at(f"{at}.responses", "are too few to compare")
    values = list(example.ranks.values if target == "ranks" else example.ratings.values)
    if len(values) != answers:
        raise InvalidArgument.at(f"{at}.{target}.values", f"has {len(values)} entries for {answers} responses")
    if target == "ranks" and min(values) < 0:
        raise InvalidArgument.at(f"{at}.ranks.values", "has a negative rank; 0 is the best")
    if target == "ratings" and not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
        raise InvalidArgument.at(f"{at}.ratings.values", "has a rating outside 0..1")
    if len(example.truncated) not in (0, answers):
        raise InvalidArgument.at(f"{at}.truncated", f"has {len(example.truncated)} entries for {answers} responses")
    for name in ("margin", "weight"):
        value = getattr(example, name)
        if not math.isfinite(value) or value < 0:
            raise InvalidArgument.at(f"{at}.{name}", f"is {value}; it must be finite and at least 0")


def verify_current(
    samples: Sequence[trainer_v1.ScoredSample], training: TrainingIdentity, version: int, max_staleness: int = 0
) -> None:
    """FailedPrecondition, STALE_EXPERIENCE, if a token was generated by a version later than `version`, or by one
    that is more than `max_staleness` versions older."""
    for index, scored in enumerate(samples):
        for segment in scored.sample.segments:
            made_by = _version(segment, training)
            if not version - max_staleness <= made_by <= version:
                raise FailedPrecondition(
                    f"chunk.samples[{index}] was generated by version {made_by}, but this step trains version "
                    f"{version} (max_staleness {max_staleness}); generate again with the current weights",
                    reason="STALE_EXPERIENCE",
                    metadata={"current": str(version), "sample": str(made_by)},
                )


def staleness(samples: Sequence[trainer_v1.ScoredSample], training: TrainingIdentity, version: int) -> list[int]:
    """The age of each sample's oldest token, in versions before `version`."""
    return [version - min(_version(segment, training) for segment in scored.sample.segments) for scored in samples]


def _verify_tokens(tokens: list[int], at: str, vocabulary_size: int) -> None:
    if not tokens:
        raise InvalidArgument.at(at, "is empty")
    for index, token in enumerate(tokens):
        if not 0 <= token < vocabulary_size:
            raise InvalidArgument.at(f"{at}[{index}]", f"is {token}; the vocabulary has {vocabulary_size} tokens")


def _verify_segments(sample: types_v1.Sample, at: str, training: TrainingIdentity) -> None:
    starts = [segment.start for segment in sample.segments]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= len(sample.response_token_ids):
        raise InvalidArgument.at(at, "must start at 0, increase, and stay within the response")
    for index, segment in enumerate(sample.segments):
        version = _version(segment, training)
        known = training.digests.get(version)
        if known is None:
            raise FailedPrecondition(
                f"{at}[{index}]: this training has no version {segment.version}",
                reason="UNKNOWN_VERSION",
                metadata={"version": str(segment.version)},
            )
        if segment.digest != known and not (version == 0 and segment.digest == training.init.digest):
            raise FailedPrecondition(
                f"{at}[{index}]: the weights that generated the sample are not version {version} of this training",
                reason="DIGEST_MISMATCH",
                metadata={"expected": known, "found": segment.digest},
            )


def _version(segment: types_v1.Segment, training: TrainingIdentity) -> int:
    """The version in this training's numbering: its initial weights may have a different version elsewhere."""
    if segment.digest == training.init.digest and segment.version in (0, training.init.version):
        return 0
    return int(segment.version)
