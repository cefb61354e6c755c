"""Reward models in service: loading by digest, verification, limits, and scores equal to the model's own."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import pytest
from tests.support.reward import item, make_reward_model, reward_client, scorer, values

import accord
from accord.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from accord.types import v1 as types_v1

pytestmark = pytest.mark.process

ITEMS = [
    item("How are you?", "fine"),
    item("Write something long about the quick brown fox and the lazy dog.", "The way is to try again. " * 4),
    item("hi", ""),
    item("hi", "I love this wonderful happy day."),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> types_v1.WeightsRef:
    return make_reward_model(tmp_path_factory.mktemp("reward_model"))


def scores_one_by_one(weights: types_v1.WeightsRef) -> list[float]:
    """The reference: the classifier on each conversation alone, nothing padded."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = weights.uri.removeprefix("file://")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for one in ITEMS:
        messages = [{"role": "user", "content": one.prompt.messages[0].content}]
        messages.append({"role": "assistant", "content": one.response})
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        with torch.inference_mode():
            hidden = model.base_model(torch.tensor([ids])).last_hidden_state
            found.append(float(model.score(hidden)[0, -1, 0]))
    return found


@pytest.mark.parametrize("max_batch_tokens", [4096, 100, 1])
async def test_padded_batches_score_the_last_real_token(
    tmp_path: Path, weights: types_v1.WeightsRef, max_batch_tokens: int
) -> None:
    async with reward_client(tmp_path, max_batch_tokens=max_batch_tokens) as client:
        spec = scorer("model", model_digest=await client.reward.load_model(weights))
        scores = values(await client.reward.score(ITEMS, scorers=[spec]))
    assert scores == pytest.approx(scores_one_by_one(weights), abs=1e-5)
    assert len({round(score, 4) for score in scores}) == len(ITEMS)


async def test_what_is_too_long_loses_its_beginning_and_keeps_the_response(
    tmp_path: Path, weights: types_v1.WeightsRef
) -> None:
    filler = " the lazy dog" * 200
    items = [item("A" + filler, "yes"), item("B" + filler, "yes"), item("A" + filler, "no")]
    async with reward_client(tmp_path) as client:
        digest = await client.reward.load_model(weights)
        one, other_beginning, other_end = values(
            await client.reward.score(items, scorers=[scorer("model", model_digest=digest)])
        )
        short = scorer("model", {"max_length": 8}, model_digest=digest)
        a, b = values(await client.reward.score([item("A", "yes"), item("B", "yes")], scorers=[short]))
    assert one == pytest.approx(other_beginning, abs=1e-6)
    assert abs(one - other_end) > 1e-4
    assert math.isclose(a, b, abs_tol=1e-6)


async def test_a_model_that_is_not_loaded_is_refused_and_unloading_is_repeatable(
    tmp_path: Path, weights: types_v1.WeightsRef
) -> None:
    async with reward_client(tmp_path) as client:
        spec = scorer("model", model_digest=weights.digest)
        with pytest.raises(FailedPrecondition) as before:
            await client.reward.score(ITEMS, scorers=[spec])
        await client.reward.load_model(weights)
        assert (await client.reward.scorers()).loaded_model_digests == [weights.digest]
        await client.reward.score(ITEMS, scorers=[spec])
        for _ in range(2):
            await client.reward.unload_model(weights.digest)
        with pytest.raises(FailedPrecondition) as after:
            await client.reward.score(ITEMS, scorers=[spec])
        assert not (await client.reward.scorers()).loaded_model_digests
        with pytest.raises(InvalidArgument) as unnamed:
            await client.reward.score(ITEMS, scorers=[scorer("model")])
    assert (before.value.reason, after.value.reason) == ("MODEL_NOT_LOADED", "MODEL_NOT_LOADED")
    assert [violation.field for violation in unnamed.value.violations] == ["scorers[0].model_digest"]


async def test_unloading_a_model_that_was_used_frees_its_memory(tmp_path: Path, weights: types_v1.WeightsRef) -> None:
    from accord_reward.inference import RewardModel

    def alive() -> set[int]:
        gc.collect()
        return {id(thing) for thing in gc.get_objects() if type(thing) is RewardModel}

    async with reward_client(tmp_path) as client:
        before = alive()
        await client.reward.load_model(weights)
        await client.reward.score(ITEMS, scorers=[scorer("model", model_digest=weights.digest)])
        assert len(alive() - before) == 1
        await client.reward.unload_model(weights.digest)
        assert not alive() - before


async def test_an_old_load_repeated_after_an_unload_has_the_model_loaded(
    tmp_path: Path, weights: types_v1.WeightsRef
) -> None:
    async with reward_client(tmp_path) as client:
        await client.reward.load_model(weights, request_id="load-1")
        await client.reward.unload_model(weights.digest)
        await client.reward.load_model(weights, request_id="load-1")
        await client.reward.score(ITEMS, scorers=[scorer("model", model_digest=weights.digest)])
        other = types_v1.WeightsRef(uri=weights.uri, digest="0" * 64)
        with pytest.raises(AlreadyExists):
            await client.reward.load_model(other, request_id="load-1")


async def refused(client: accord.Client, weights: types_v1.WeightsRef, kind: type[Exception]) -> str:
    with pytest.raises(kind) as error:
        await client.reward.load_model(weights)
    assert not (await client.reward.scorers()).loaded_model_digests
    return getattr(error.value, "reason", "")


async def test_weights_that_are_not_the_ones_meant_never_come_into_service(
    tmp_path: Path, weights: types_v1.WeightsRef
) -> None:
    def but(**fields: str) -> types_v1.WeightsRef:
        changed = types_v1.WeightsRef(uri=weights.uri, digest=weights.digest)
        for name, value in fields.items():
            setattr(changed, name, value)
        return changed

    async with reward_client(tmp_path) as client:
        assert await refused(client, but(digest="0" * 64), FailedPrecondition) == "DIGEST_MISMATCH"
        await refused(client, but(digest="../../elsewhere"), InvalidArgument)
        await refused(client, but(format="adapter"), InvalidArgument)
        await refused(client, but(uri="file:///no/such/folder"), NotFound)
        await refused(client, but(uri="ftp://host/model"), InvalidArgument)


async def test_a_language_model_without_a_head_is_no_reward_model(tmp_path: Path) -> None:
    from tests.support.tiny import make_tiny_model

    from accord.digest import weights_digest

    folder = make_tiny_model(tmp_path / "policy")
    async with reward_client(tmp_path) as client:
        ref = types_v1.WeightsRef(uri=folder.as_uri(), digest=weights_digest(folder))
        assert await refused(client, ref, InvalidArgument) == "BAD_MODEL"


async def test_a_full_service_refuses_models_while_others_are_in_use_and_replaces_idle_ones(tmp_path: Path) -> None:
    first, second = (make_reward_model(tmp_path / str(seed), seed) for seed in (1, 2))
    async with reward_client(tmp_path, max_models=1) as client:
        await client.reward.load_model(first)
        with pytest.raises(ResourceExhausted, match=first.digest[:12]) as full:
            await client.reward.load_model(second)
        assert full.value.reason == "TOO_MANY_MODELS"
        assert (await client.reward.scorers()).loaded_model_digests == [first.digest]
    async with reward_client(tmp_path, max_models=1, model_idle_seconds=0) as client:
        await client.reward.load_model(first)
        await client.reward.load_model(second)
        assert (await client.reward.scorers()).loaded_model_digests == [second.digest]


async def test_each_member_of_an_ensemble_can_be_asked_and_their_mean_is_the_score(tmp_path: Path) -> None:
    ensemble = make_reward_model(tmp_path, ensemble=3)
    async with reward_client(tmp_path) as client:
        digest = await client.reward.load_model(ensemble)
        members = [scorer("model", {"member": number}, model_digest=digest) for number in range(3)]
        results = await client.reward.score(ITEMS, scorers=members)
        whole = values(await client.reward.score(ITEMS, scorers=[scorer("model", model_digest=digest)]))
        with pytest.raises(InvalidArgument, match="has 3 members"):
            await client.reward.score(ITEMS, scorers=[scorer("model", {"member": 3}, model_digest=digest)])
    raws = [[part.raw for part in result.score.parts] for result in results]
    assert all(len(set(raw)) == 3 for raw in raws)
    assert [sum(raw) / 3 for raw in raws] == pytest.approx(whole, abs=1e-5)
