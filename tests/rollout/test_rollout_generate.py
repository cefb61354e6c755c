"""Generate over gRPC: samples with everything a trainer needs, keyed, seeded, checked, refused where they must be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.recompute import recomputed_logprobs
from tests.support.rollout import generate, generate_request, rollout_service, samples, user

from accord.digest import weights_digest
from accord.errors import FailedPrecondition, InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.service import RolloutService

Served = tuple[rollout_v1.RolloutServiceStub, RolloutService]


@pytest.fixture
async def stub(tiny_folder: Path, tmp_path: Path) -> AsyncIterator[rollout_v1.RolloutServiceStub]:
    async with rollout_service(tmp_path, model=tiny_folder, max_batch_size=4) as (made, _):
        yield made


async def test_samples_carry_what_a_trainer_needs(stub: rollout_v1.RolloutServiceStub, tiny_folder: Path) -> None:
    params = types_v1.SamplingParams(max_new_tokens=8, temperature=0.8)
    found = await samples(stub, generate_request(["hello", "the lazy dog"], n=3, sampling=params))
    assert sorted(found) == list(range(6))
    status = await stub.GetStatus(rollout_v1.GetStatusRequest())
    for index, sample in found.items():
        assert sample.prompt_id == f"p{index // 3}"
        assert sample.prompt.messages[0].content == ["hello", "the lazy dog"][index // 3]
        assert len(sample.response_token_ids) == len(sample.logprobs) == len(sample.response_mask)
        assert all(sample.response_mask)
        assert [(s.start, s.version, s.digest) for s in sample.segments] == [(0, 0, weights_digest(tiny_folder))]
        assert sample.tokenizer_fingerprint == status.tokenizer_fingerprint
        assert (sample.sampling.temperature, sample.sampling.top_p, sample.sampling.top_k) == (0.8, 1.0, 0)
        expected = recomputed_logprobs(
            tiny_folder, list(sample.prompt_token_ids), list(sample.response_token_ids), temperature=0.8
        )
        assert list(sample.logprobs) == pytest.approx(expected, abs=1e-4)


async def test_a_retry_gives_the_same_samples_and_another_request_does_not(stub: rollout_v1.RolloutServiceStub) -> None:
    first = await samples(stub, generate_request(["hello"] * 2, "one", n=2))
    assert await samples(stub, generate_request(["hello"] * 2, "one", n=2)) == first
    other = await samples(stub, generate_request(["hello"] * 2, "two", n=2))
    tokens = [tuple(sample.response_token_ids) for sample in (*first.values(), *other.values())]
    assert len(set(tokens)) == 8
    assert len({sample.seed for sample in (*first.values(), *other.values())}) == 8


async def test_a_prompt_seed_decides_alone(stub: rollout_v1.RolloutServiceStub) -> None:
    seeded = [rollout_v1.Prompt(conversation=user("hello"), seed=seed) for seed in (5, 5, 0, 2**64 - 1)]
    first = await samples(stub, generate_request([], "one", prompts=seeded))
    second = await samples(stub, generate_request([], "two", prompts=seeded))
    assert first[0].response_token_ids == first[1].response_token_ids != first[2].response_token_ids
    for index in first:
        assert first[index].seed == second[index].seed
        assert first[index].response_token_ids == second[index].response_token_ids


async def test_indices_give_only_what_is_missing_with_the_same_tokens(stub: rollout_v1.RolloutServiceStub) -> None:
    whole = await samples(stub, generate_request(["hello", "the quick brown fox"], n=4))
    part = await samples(stub, generate_request(["hello", "the quick brown fox"], n=4, indices=[6, 1]))
    assert sorted(part) == [1, 6]
    for index, sample in part.items():
        assert sample.response_token_ids == whole[index].response_token_ids


async def test_length_is_said_when_the_response_is_cut(stub: rollout_v1.RolloutServiceStub) -> None:
    params = types_v1.SamplingParams(max_new_tokens=3, temperature=0)
    found = await samples(stub, generate_request(["hello"], sampling=params))
    assert found[0].finish_reason == types_v1.FINISH_REASON_LENGTH
    assert len(found[0].response_token_ids) == 3


async def test_stop_is_said_and_its_token_kept(stub: rollout_v1.RolloutServiceStub) -> None:
    params = types_v1.SamplingParams(max_new_tokens=60, temperature=3.0)
    found = await samples(stub, generate_request(["hello"], n=40, sampling=params))
    stopped = [s for s in found.values() if s.finish_reason == types_v1.FINISH_REASON_STOP]
    assert stopped
    for sample in stopped:
        assert sample.response_token_ids[-1] == 2
        assert 2 not in sample.response_token_ids[:-1]
        assert "<|im_end|>" not in sample.text


async def test_a_prompt_that_is_too_long_is_a_failure_and_loses_no_other(stub: rollout_v1.RolloutServiceStub) -> None:
    responses = await generate(stub, generate_request(["x" * 400, "hello"], n=2))
    for index in (0, 1):
        failed = responses[index].failure
        assert (failed.request_id, failed.failure.reason) == ("request", "PROMPT_TOO_LONG")
        assert not failed.failure.retryable
        assert "256" in failed.failure.message
    assert responses[2].HasField("sample")
    assert responses[3].HasField("sample")


async def test_a_conversation_the_template_refuses_is_a_failure(stub: rollout_v1.RolloutServiceStub) -> None:
    odd = types_v1.Conversation(messages=[types_v1.ChatMessage(role="oracle", content="?")])
    prompts = [rollout_v1.Prompt(conversation=odd), rollout_v1.Prompt(conversation=user("hello"))]
    responses = await generate(stub, generate_request([], prompts=prompts))
    assert responses[0].failure.failure.reason == "BAD_CONVERSATION"
    assert "oracle" in responses[0].failure.failure.message
    assert responses[1].HasField("sample")


async def test_token_prompts_are_fed_as_they_are(stub: rollout_v1.RolloutServiceStub) -> None:
    rendered = await samples(stub, generate_request(["hello"]))
    print_ = rendered[0].tokenizer_fingerprint
    prompt = rollout_v1.Prompt(token_ids=rollout_v1.TokenIds(ids=rendered[0].prompt_token_ids))
    found = await samples(stub, generate_request([], prompts=[prompt], tokenizer_fingerprint=print_))
    assert found[0].prompt_token_ids == rendered[0].prompt_token_ids
    assert found[0].response_token_ids == rendered[0].response_token_ids
    assert not found[0].HasField("prompt")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n": -1}, "n"),
        ({"indices": [9]}, "indices"),
        ({"indices": [0, 0]}, "indices"),
        ({"sampling": types_v1.SamplingParams(max_new_tokens=-4)}, "sampling.max_new_tokens"),
        ({"sampling": types_v1.SamplingParams(max_new_tokens=4, temperature=-1)}, "sampling.temperature"),
        ({"sampling": types_v1.SamplingParams(max_new_tokens=4, temperature=float("nan"))}, "sampling.temperature"),
        ({"sampling": types_v1.SamplingParams(max_new_tokens=4, top_p=0)}, "sampling.top_p"),
        ({"sampling": types_v1.SamplingParams(max_new_tokens=4, top_k=-1)}, "sampling.top_k"),
        ({"prompts": [rollout_v1.Prompt(prompt_id="empty")]}, "prompts[0]"),
        ({"prompts": [rollout_v1.Prompt(token_ids=rollout_v1.TokenIds(ids=[1]))]}, "tokenizer_fingerprint"),
    ],
)
async def test_a_wrong_field_is_named(
    stub: rollout_v1.RolloutServiceStub, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await generate(stub, generate_request(["hello"], **changes))
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_token_ids_outside_the_vocabulary_are_refused(stub: rollout_v1.RolloutServiceStub) -> None:
    status = await stub.GetStatus(rollout_v1.GetStatusRequest())
    prompt = rollout_v1.Prompt(token_ids=rollout_v1.TokenIds(ids=[1, 300]))
    with pytest.raises(InvalidArgument) as refused:
        await generate(stub, generate_request([], prompts=[prompt], tokenizer_fingerprint=status.tokenizer_fingerprint))
    assert refused.value.violations[0].field == "prompts[0].token_ids"


async def test_another_tokenizer_is_refused(stub: rollout_v1.RolloutServiceStub) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await generate(stub, generate_request(["hello"], tokenizer_fingerprint="0" * 64))
    assert refused.value.reason == "TOKENIZER_MISMATCH"


async def test_a_version_that_is_not_active_is_refused(stub: rollout_v1.RolloutServiceStub) -> None:
    assert await samples(stub, generate_request(["hello"], version=0))
    with pytest.raises(FailedPrecondition) as refused:
        await generate(stub, generate_request(["hello"], version=3))
    assert refused.value.reason == "VERSION_MISMATCH"
    assert refused.value.metadata == {"wanted": "3", "in_force": "0"}
