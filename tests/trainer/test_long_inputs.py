"""What is too long: the trainer and the reward service read the same part of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.loading import new_reward_model
from accord_models.publishing import save_model
from accord_models.tokenizer import keep_end, load_tokenizer
from accord_reward.inference import RewardModel
from accord_reward.scorer import Item
from accord_trainer.algorithm import Start
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.distributed.world import Alone
from accord_trainer.model.reward_scorer import score_all


def test_a_long_conversation_scores_the_same_in_training_and_in_service(tiny_folder: Path, tmp_path: Path) -> None:
    save_model(new_reward_model(tiny_folder, 0), load_tokenizer(tiny_folder), tmp_path / "model", "float32")
    prompt = types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content="what? " * 40)])
    responses = ["yes " * 5, "no " * 60]
    options = RewardModelOptions(max_tokens=48)
    training = RewardModelTraining(
        Start(tmp_path / "model", None, None, True, seed=0, compute_dtype="float32"), options
    )
    example = trainer_v1.PreferenceExample(prompt=prompt, responses=responses, ranks=trainer_v1.Ranks(values=[0, 1]))
    answers = training._tokenize([example])
    assert [len(answers[0].common) + len(rest) for rest in answers[0].rest] == [48, 48]
    with torch.no_grad():
        trained = score_all(training.scorer, answers, 1024, Alone(), lambda: None)[0][0].tolist()
    served = RewardModel(tmp_path / "model", threads=1).score([Item(prompt, r, False) for r in responses], 4096, 48)
    assert trained == pytest.approx(served, abs=1e-5)


def test_a_start_token_stays_in_front(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    bos = tokenizer.bos_token_id
    assert keep_end(tokenizer, [bos, 7, 8, 9, 10], 3) == [bos, 9, 10]
    assert keep_end(tokenizer, [6, 7, 8, 9, 10], 3) == [8, 9, 10]
    assert keep_end(tokenizer, [bos, 7], 3) == [bos, 7]
