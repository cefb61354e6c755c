"""Reward models of both families, and steps that repeat bit for bit on several threads."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, pairs
from transformers import BertConfig, BertModel

from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_reward_model
from accord_models.publishing import save_model
from accord_models.tokenizer import load_tokenizer, render_response
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.data.bootstrap import bootstrap_weights
from accord_trainer.metrics.preferences import annotator_accuracy, calibration_error, preference_metrics
from accord_trainer.trainings.weights_digest import published_digest


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
    weights = {name: p.clone() for name, p in training.trainable.model.named_parameters()}
    for _ in range(12):
        training.step(batch, context())
    changed = {n for n, p in training.trainable.model.named_parameters() if not torch.equal(p, weights[n])}
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


def every_kind() -> list[trainer_v1.PreferenceExample]:
    """A pair with a margin, a tied pair, a ranking with ties, ratings; each with a weight."""
    wide, tied, ranked, rated = pairs(4)
    wide.margin, tied.margin = 0.7, 0.7  # a tie knows no margin
    tied.ranks.values[:] = [0, 0]
    ranked.responses.extend(["it was", "it was a day"])
    ranked.ranks.values[:] = [1, 0, 2, 1]
    rated.ratings.CopyFrom(trainer_v1.Ratings(values=[0.2, 0.9]))
    for example, weight in zip((wide, tied, ranked, rated), (0.5, 1.0, 3.0, 2.0), strict=True):
        example.weight = weight
    return [wide, tied, ranked, rated]


def by_hand(scores_K: list[torch.Tensor], example: trainer_v1.PreferenceExample, smoothing: float) -> torch.Tensor:
    """The loss of one example, written down anew."""
    if example.HasField("ratings"):
        terms = [
            -r * torch.log(torch.sigmoid(s)) - (1 - r) * torch.log(1 - torch.sigmoid(s))
            for s, r in zip(scores_K, example.ratings.values, strict=True)
        ]
        return sum(terms, torch.zeros(())) / len(terms)
    if len(scores_K) == 2:
        a, b = scores_K  # `pairs` gives the better one first where the index is even: here always
        tied = example.ranks.values[0] == example.ranks.values[1]
        margin, part = (0.0, 0.5) if tied else (example.margin, smoothing)
        return -(1 - part) * torch.log(torch.sigmoid(a - b - margin)) - part * torch.log(torch.sigmoid(b - a + margin))
    # Ranks 1, 0, 2, 1: the second is taken first, then the two that tie (Efron), then the third alone.
    first, best, last, other = (torch.exp(score) for score in scores_K)
    everyone = torch.log(first + best + last + other) - scores_K[1]
    both = torch.log(first + other + last) + torch.log(0.5 * (first + other) + last) - scores_K[0] - scores_K[3]
    return everyone + both


def test_gradients_are_those_of_each_text_alone_in_float64(tiny_folder: Path) -> None:
    """Margin, tie, ranking, rating, weight, smoothing and centring all reach the gradient; scored at the last token."""
    examples = every_kind()
    examples[1].responses[:] = examples[1].responses[::-1]
    training = make(tiny_folder, label_smoothing=0.1, centring=0.3, micro_batch_tokens=40)
    reference = copy.deepcopy(training.trainable.model).double()
    total = torch.zeros((), dtype=torch.float64)
    plain, weights = 0.0, 0.0
    for example in examples:
        scores = []
        for response in example.responses:
            ids = render_response(training.tokenizer, example.prompt, response)
            hidden = reference.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            scores.append(training.scorer.head.weight.detach().double()[0] @ hidden)
        loss = by_hand(scores, example, 0.1)
        plain, weights = plain + example.weight * float(loss.detach()), weights + example.weight
        total = total + example.weight * (loss + 0.3 * torch.stack(scores).sum().square())
    (total / weights).backward()  # type: ignore[no-untyped-call]
    found: dict[str, torch.Tensor] = {}

    def keep() -> dict[str, float]:
        for name, parameter in training.trainable.model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.clone()
        training.optimizer.clear()
        return {"model": 1.0, "head": 1.0}

    training.optimizer.update = keep  # type: ignore[method-assign]
    assert training.step(Experience([], examples), context())["loss"] == pytest.approx(plain / weights, rel=1e-5)
    compared = 0
    for name, parameter in reference.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(found[name].double(), parameter.grad, rtol=1e-3, atol=1e-5), name
            compared += 1
    assert compared > 10


def test_the_head_has_its_own_learning_rate(tiny_folder: Path) -> None:
    """The first update of Adam moves each weight by about its learning rate."""
    training = make(tiny_folder, learning_rate=1e-4, head_learning_rate=1e-2, adam_epsilon=1e-12)
    before = {name: p.detach().clone() for name, p in training.trainable.model.named_parameters()}
    training.step(Experience([], pairs(2)), context())
    after = training.trainable.model.named_parameters()
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in after}
    assert moved.pop("score.weight") == pytest.approx(1e-2, rel=0.01)
    assert max(moved.values()) == pytest.approx(1e-4, rel=0.01)


def test_the_correlation_of_score_and_length_by_hand() -> None:
    scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])]
    found = preference_metrics(scores, pairs(2), [[3, 4], [1, 1]])
    # Lengths less their mean: .75, 1.75, -1.25, -1.25; scores: -1, 0, -2, 3.
    assert found["length_correlation"] == pytest.approx((-0.75 + 2.5 - 3.75) / math.sqrt(6.75 * 14))


def test_accuracy_by_annotator_by_hand_and_what_is_learnt_does_not_hang_on_who_judged(tiny_folder: Path) -> None:
    judged = pairs(3)
    for example, annotator in zip(judged, ("ada", "ada", ""), strict=True):
        example.annotator = annotator
    scores = [torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    assert annotator_accuracy(scores, judged) == {"accuracy/annotator/ada": 0.5}
    found = make(tiny_folder).evaluate(Experience([], judged), context())
    assert "accuracy/annotator/ada" in found
    named = bootstrap_weights(judged[0], 8, seed=1, kind="poisson")
    judged[0].annotator = "bob"
    assert torch.equal(bootstrap_weights(judged[0], 8, seed=1, kind="poisson"), named)


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
