"""Reward models of both families, and steps that repeat bit for bit on several threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.trainer.trainer_bench import TINY, pairs
from transformers import BertConfig, BertModel

from accord_models.loading import load_reward_model
from accord_models.publishing import save_model
from accord_models.tokenizer import load_tokenizer
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.preference_metrics import calibration_error, preference_metrics
from accord_trainer.weights_digest import published_digest


@pytest.fixture
def encoder_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A tiny random BERT with the tiny tokenizer."""
    tokenizer = load_tokenizer(tiny_folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(BertModel(config), tokenizer, tmp_path / "encoder", "float32")
    return tmp_path / "encoder"


def make(folder: Path, **options: object) -> RewardModelTraining:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32")
    return RewardModelTraining(start, RewardModelOptions.model_validate({**TINY, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def test_an_encoder_learns_and_its_published_folder_scores_the_same(encoder_folder: Path, tmp_path: Path) -> None:
    training = make(encoder_folder, learning_rate=1e-2, trainable_layers=1)
    batch = Experience([], pairs(8))
    before = training.evaluate(batch, context())
    weights = {name: p.clone() for name, p in training.adaptable.model.named_parameters()}
    for _ in range(12):
        training.step(batch, context())
    changed = {n for n, p in training.adaptable.model.named_parameters() if not torch.equal(p, weights[n])}
    assert not any(".layer.0." in name for name in changed)
    assert {"classifier.weight", "bert.pooler.dense.weight"} < changed
    assert not any("embeddings" in name for name in changed)
    after = training.evaluate(batch, context())
    assert after["loss"] < 0.7 * before["loss"]
    save_model(training.merged(), training.tokenizer, tmp_path / "published", "float32")
    again = make(tmp_path / "published").evaluate(batch, context())  # a reward model is gone on with, head and all
    assert again["loss"] == pytest.approx(after["loss"], abs=1e-5)


def test_lora_publishes_head_and_adapter_in_one_model(tiny_folder: Path, tmp_path: Path) -> None:
    training = make(tiny_folder, lora_rank=2, learning_rate=1e-2)
    batch = Experience([], pairs(4))
    training.step(batch, context())
    expected = training.evaluate(batch, context())
    digest = save_model(training.merged(), training.tokenizer, tmp_path / "published", "float32")
    assert digest == published_digest(training.merged(), "float32")
    load_reward_model(tmp_path / "published")
    found = make(tmp_path / "published").evaluate(batch, context())
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_same_steps_give_the_same_bits_on_two_threads(tiny_folder: Path) -> None:
    digests = set()
    for _ in range(3):
        training = make(tiny_folder)
        for _ in range(2):
            training.step(Experience([], pairs(8)), context())
        digests.add(published_digest(training.merged(), "float32"))
    assert len(digests) == 1


def test_cutting_a_batch_into_parts_changes_nothing(tiny_folder: Path) -> None:
    weights = []
    for size in (8, 10_000):
        training = make(tiny_folder, micro_batch_tokens=size, adam_epsilon=1e-3)
        training.step(Experience([], pairs(6)), context())
        weights.append(torch.cat([w.flatten() for w in training.state().weights.values()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-5)


def test_an_example_without_weight_teaches_nothing(tiny_folder: Path) -> None:
    digests = []
    for examples in (pairs(3), pairs(4)):
        if len(examples) == 4:
            examples[3].weight = 0.0
        training = make(tiny_folder, micro_batch_tokens=1)
        training.step(Experience([], examples), context())
        digests.append(published_digest(training.merged(), "float32"))
    assert digests[0] == digests[1]


def test_metrics_by_hand() -> None:
    first, second, third = pairs(3)
    third.source = ""
    scores = [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 2.0]])]
    found = preference_metrics(scores, [first, second, third], [[1, 2], [2, 1], [1, 1]])
    assert found["accuracy"] == 0.5  # right, wrong, tied
    assert (found["accuracy/set0"], found["accuracy/set1"]) == (1.0, 0.0)
    assert "accuracy/" not in found
    assert found["longer_accuracy"] == pytest.approx(0.5 / 3)  # the better one is shorter, shorter, as long
    assert "uncertainty" not in found
    # Confidence .5 with half right, and twice .7311 with half right.
    assert calibration_error([0.0, 1.0, -1.0]) == pytest.approx(2 * (0.731058 - 0.5) / 3, abs=1e-5)
