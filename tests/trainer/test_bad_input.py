"""What cannot be learned from is refused by name, and the model is the one it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.trainer import pairs, request_id, rollout, trainer, training

from accord.errors import AccordError, FailedPrecondition, InvalidArgument, ResourceExhausted
from accord.trainer import v1 as trainer_v1
from accord_trainer.trainings import memory_budget

pytestmark = pytest.mark.process

NAN, INFINITY = float("nan"), float("inf")
Change = Callable[[trainer_v1.ScoredSample], object]
FIELDS: list[tuple[str, Change]] = [
    ("score", lambda s: setattr(s, "score", NAN)),
    ("score", lambda s: setattr(s, "score", INFINITY)),
    ("score", lambda s: s.ClearField("score")),
    ("sample.response_token_ids", lambda s: s.sample.ClearField("response_token_ids")),
    ("sample.response_token_ids[0]", lambda s: s.sample.response_token_ids.__setitem__(0, 300)),
    ("sample.prompt_token_ids[0]", lambda s: s.sample.prompt_token_ids.__setitem__(0, -1)),
    ("sample.prompt_token_ids", lambda s: s.sample.ClearField("prompt_token_ids")),
    ("sample.response_token_ids", lambda s: s.sample.prompt_token_ids.extend([5] * 255)),
    ("sample.logprobs[0]", lambda s: s.sample.logprobs.__setitem__(0, 0.1)),
    ("sample.logprobs[0]", lambda s: s.sample.logprobs.__setitem__(0, NAN)),
    ("sample.logprobs[0]", lambda s: s.sample.logprobs.__setitem__(0, -INFINITY)),
    ("sample.logprobs", lambda s: s.sample.logprobs.append(-1.0)),
    ("sample.response_mask", lambda s: s.sample.ClearField("response_mask")),
    ("sample.response_mask", lambda s: s.sample.response_mask.__setitem__(slice(None), [False] * 6)),
    ("sample.finish_reason", lambda s: s.sample.ClearField("finish_reason")),
    ("sample.segments", lambda s: s.sample.ClearField("segments")),
    ("sample.segments", lambda s: setattr(s.sample.segments[0], "start", 1)),
    ("sample.sampling.temperature", lambda s: setattr(s.sample.sampling, "temperature", 0.0)),
    ("sample.sampling", lambda s: setattr(s.sample.sampling, "top_p", 0.5)),
]
STATES: list[tuple[str, Change]] = [
    ("UNKNOWN_VERSION", lambda s: setattr(s.sample.segments[0], "version", 7)),
    ("UNKNOWN_VERSION", lambda s: setattr(s.sample.segments[0], "version", -1)),
    ("DIGEST_MISMATCH", lambda s: setattr(s.sample.segments[0], "digest", "0" * 64)),
    ("TOKENIZER_MISMATCH", lambda s: setattr(s.sample, "tokenizer_fingerprint", "x")),
]


async def refused(tiny_folder: Path, state: Path, kind: type[AccordError], change: Change) -> AccordError:
    """The error of a batch in which the second of two samples is bad; nothing is stored and the model stands."""
    samples = rollout(tiny_folder, prompts=((5, 6, 7),), samples=2)
    change(samples[1])
    async with trainer(state) as client:
        made = await client.trainer.create_training(training(tiny_folder))
        with pytest.raises(kind) as wrong:
            await client.trainer.put_experience("t", samples=samples)
        assert not (state / "trainer/t/batches").exists()
        assert await client.trainer.training("t") == made
    return wrong.value


@pytest.mark.parametrize(("field", "change"), FIELDS)
async def test_a_bad_sample_is_named(tiny_folder: Path, tmp_path: Path, field: str, change: Change) -> None:
    error = await refused(tiny_folder, tmp_path, InvalidArgument, change)
    assert [violation.field for violation in error.violations] == [f"chunk.samples[1].{field}"]


@pytest.mark.parametrize(("reason", "change"), STATES)
async def test_a_sample_that_cannot_be_verified_is_named(
    tiny_folder: Path, tmp_path: Path, reason: str, change: Change
) -> None:
    error = await refused(tiny_folder, tmp_path, FailedPrecondition, change)
    assert error.reason == reason
    assert "chunk.samples[1]" in error.message


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("[1].responses", lambda e: e.responses.pop()),
        ("[1].ranks.values", lambda e: e.ranks.values.append(2)),
        ("[1].ranks.values", lambda e: e.ranks.values.__setitem__(0, -1)),
        ("[1].margin", lambda e: setattr(e, "margin", -1.0)),
        ("[1].weight", lambda e: setattr(e, "weight", INFINITY)),
        ("[1].prompt.messages[0].role", lambda e: setattr(e.prompt.messages[0], "role", "robot")),
        ("[1].prompt", lambda e: e.ClearField("prompt")),
        ("[1].ratings.values", lambda e: e.ratings.values.extend([0.5, 1.5])),
        ("[1].ratings.values", lambda e: e.ratings.values.extend([0.5, NAN])),
        ("[1].truncated", lambda e: e.truncated.append(True)),
        ("[1]", lambda e: e.ClearField("target")),
    ],
)
async def test_a_bad_preference_is_named(
    tiny_folder: Path, tmp_path: Path, field: str, change: Callable[[trainer_v1.PreferenceExample], object]
) -> None:
    examples = pairs(2)
    change(examples[1])
    async with trainer(tmp_path) as client:
        made = await client.trainer.create_training(training(tiny_folder, algorithm="reward_model"))
        with pytest.raises(InvalidArgument) as wrong:
            await client.trainer.put_experience("t", preferences=examples)
        assert [violation.field for violation in wrong.value.violations] == [f"chunk.preferences{field}"]
        assert await client.trainer.training("t") == made


@pytest.mark.parametrize(
    ("algorithm", "put", "field"),
    [
        ("ppo", {"preferences": pairs(1)}, "chunk.preferences[0]"),
        ("ppo", {}, "chunk"),
        ("grpo", {"single": True}, "chunk.samples"),
        ("dpo", {"samples": True}, "chunk.samples[0]"),
    ],
)
async def test_a_batch_of_the_wrong_kind_is_refused(
    tiny_folder: Path, tmp_path: Path, algorithm: str, put: dict[str, Any], field: str
) -> None:
    given = dict(put)
    if given.pop("samples", None):
        given["samples"] = rollout(tiny_folder)
    if given.pop("single", None):
        given["samples"] = rollout(tiny_folder, samples=1)
    async with trainer(tmp_path) as client:
        made = await client.trainer.create_training(training(tiny_folder, algorithm=algorithm))
        with pytest.raises(InvalidArgument) as wrong:
            await client.trainer.put_experience("t", **given)
        assert wrong.value.violations[0].field == field
        assert await client.trainer.training("t") == made


async def test_experience_of_an_older_version_is_refused_by_the_step(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        await client.trainer.step("t", put.batch_id, parent_version=0)
        before = await client.trainer.training("t")
        with pytest.raises(FailedPrecondition) as stale:
            await client.trainer.step("t", put.batch_id, parent_version=1)
        assert stale.value.reason == "STALE_EXPERIENCE"
        assert (stale.value.metadata["current"], stale.value.metadata["sample"]) == ("1", "0")
        assert await client.trainer.training("t") == before


@pytest.mark.parametrize(
    ("algorithm", "part"),
    [("ppo", "logits"), ("dpo", "weights"), ("sft", "weights"), ("ilql", "logits"), ("reward_model", "activations")],
)
async def test_a_step_that_cannot_fit_is_refused_before_it_begins(
    tiny_folder: Path, tmp_path: Path, algorithm: str, part: str
) -> None:
    """The answer says what to change; with room the same batch is learned from."""
    given: dict[str, Any] = {"preferences": pairs(4)}
    if algorithm == "ppo":
        given = {"samples": rollout(tiny_folder, tokens=24)}
    async with trainer(tmp_path, memory_gib=2**-15) as client:
        made = await client.trainer.create_training(training(tiny_folder, algorithm=algorithm))
        put = await client.trainer.put_experience("t", **given)
        with pytest.raises(ResourceExhausted) as full:
            await client.trainer.step("t", put.batch_id, parent_version=0)
        assert full.value.reason == "OUT_OF_MEMORY"
        assert int(full.value.metadata[part]) > 0
        assert memory_budget.ADVICE[part] in full.value.message
        assert int(full.value.metadata["needed_bytes"]) > int(full.value.metadata["free_bytes"]) == 2**15
        assert await client.trainer.training("t") == made
    async with trainer(tmp_path) as client:
        step = await client.trainer.step("t", put.batch_id, parent_version=0, request_id=request_id())
        assert step.version == 1
