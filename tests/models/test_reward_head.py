"""A reward model is scored in service on the states that it was trained on: one function chooses and pools them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.support.tiny import PAD

from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.publishing import save_model
from accord_models.reward_head import head_tokens, pool
from accord_models.tokenizer import load_tokenizer
from accord_reward import inference
from accord_reward.scorer import Item
from accord_trainer.algorithm import Start
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.model import reward_scorer

RESPONSES = ["fine", "I love this wonderful happy day.", "a"]


def example() -> trainer_v1.PreferenceExample:
    prompt = types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content="How are you?")])
    return trainer_v1.PreferenceExample(prompt=prompt, responses=RESPONSES, ranks=trainer_v1.Ranks(values=[1, 0, 2]))


def both_sides(folder: Path, published: Path, pooling: str) -> tuple[RewardModelTraining, inference.RewardModel]:
    options = RewardModelOptions.model_validate({"pooling": pooling, "share_prefixes": False})
    training = RewardModelTraining(Start(folder, None, None, True, seed=0, compute_dtype="float32"), options)
    save_model(training.merged(), training.tokenizer, published, "float32")
    return training, inference.RewardModel(published)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_the_trainer_and_the_reward_service_pool_the_same_states_with_the_same_function(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    assert inference.pool is reward_scorer.pool is pool
    training, served = both_sides(tiny_folder, tmp_path / "published", pooling)
    tokens_read: dict[str, list[list[list[int]]]] = {"trained": [], "served": []}

    def recording(side: str):  # type: ignore[no-untyped-def]
        def record(values: torch.Tensor, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
            tokens_read[side].append([list(each) for each in tokens])
            return pool(values, tokens)

        return record

    monkeypatch.setattr(reward_scorer, "pool", recording("trained"))
    monkeypatch.setattr(inference, "pool", recording("served"))
    prompt = example().prompt
    for response in RESPONSES:  # one at a time: without padding both sides compute the same hidden states
        answers = training._tokenize([trainer_v1.PreferenceExample(prompt=prompt, responses=[response])])
        with torch.inference_mode():
            trained = training.scorer.scores(answers)[0][0].tolist()
        # The service applies the head to all states before it takes the last: equal to rounding.
        expected = trained if pooling == "mean" else pytest.approx(trained, abs=1e-6)
        assert served.score([Item(prompt, response)], 4096) == expected
    assert tokens_read["trained"] == tokens_read["served"] != []


@pytest.mark.parametrize("batch", [1, 4096])
def test_a_response_that_ends_in_the_pad_token_is_scored_where_it_was_trained(
    tiny_folder: Path, tmp_path: Path, batch: int
) -> None:
    folder = tmp_path / "plain"
    training, _ = both_sides(tiny_folder, tmp_path / "first", "last")
    training.tokenizer.chat_template = None
    save_model(training.merged(), training.tokenizer, folder, "float32")
    served = inference.RewardModel(folder)
    one = example()
    one.responses[:] = [f"fine{PAD}", "fine", f"I love this day.{PAD}"]
    assert load_tokenizer(folder)(one.responses[0])["input_ids"][-1] == load_tokenizer(folder).pad_token_id
    trained = training.scorer.scores(training._tokenize([one]))[0][0].tolist()
    assert abs(trained[0] - trained[1]) > 1e-4
    assert served.score([Item(one.prompt, text) for text in one.responses], batch) == pytest.approx(trained, abs=1e-5)


def test_the_mean_is_over_the_response_and_the_last_state_is_its_last(tiny_folder: Path) -> None:
    values_WTD = torch.arange(24.0).reshape(2, 4, 3)
    assert pool(values_WTD, [head_tokens("last", 1, 3), head_tokens("last", 4, 8)]).tolist() == [
        values_WTD[0, 2].tolist(),
        values_WTD[1, 3].tolist(),
    ]
    assert torch.equal(pool(values_WTD, [head_tokens("mean", 1, 3)])[0], values_WTD[0, 1:3].mean(0))
