"""Heads fitted to a frozen trunk, and reward models that read the mean over the response or have fewer blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.support.trainer import pairs

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_reward_model, pooling_of
from accord_models.publishing import save_model
from accord_models.tokenizer import answer_start, load_tokenizer, render_response
from accord_reward.inference import RewardModel
from accord_reward.scorer import Item
from accord_trainer.algorithm import Experience, Start, StepContext, parse_options
from accord_trainer.algorithms.reward_model import RewardModelOptions, RewardModelTraining
from accord_trainer.algorithms.reward_probe import RewardProbe, RewardProbeOptions
from accord_trainer.model.reward_scorer import Answers
from accord_trainer.trainings.weights_digest import published_digest


def start(folder: Path) -> Start:
    return Start(folder, None, None, True, seed=0, compute_dtype="float32")


def probe(folder: Path, **options: object) -> RewardProbe:
    return RewardProbe(start(folder), RewardProbeOptions.model_validate({"penalty": 1.0, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def judged(count: int) -> list[trainer_v1.PreferenceExample]:
    """Pairs whose better answer does not follow from its words alone, so that a penalty has something to do."""
    examples = pairs(count)
    for number, example in enumerate(examples):
        example.responses[:] = [f"{response} {'so it is' if number % 3 else 'no'}" for response in example.responses]
        if number % 5 == 0:
            example.ranks.values[:] = list(example.ranks.values)[::-1]
    return examples


def states(training: RewardModelTraining, examples: list[trainer_v1.PreferenceExample]) -> list[torch.Tensor]:
    return training.scorer.states(training._tokenize(examples))


def test_the_fit_is_logistic_regression_on_the_differences(tiny_folder: Path) -> None:
    examples, penalty = judged(20), 3.0
    training = probe(tiny_folder, penalty=penalty)
    differences = []
    for states_KD, example in zip(states(training, examples), examples, strict=True):
        better = list(example.ranks.values).index(0)
        differences.append((states_KD[better] - states_KD[1 - better]).double().numpy())
    rows = np.stack(differences)
    scale = np.sqrt((rows**2).mean(0))
    both = np.vstack([rows, -rows]) / scale
    # sklearn halves the norm and multiplies the sum of both orders' losses by C.
    model = LogisticRegression(C=0.5 / penalty, fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(both, np.repeat([1, 0], len(rows)))
    training.step(Experience([], examples), context())
    fitted = training.scorer.head.weight.detach().double().numpy()[0]
    assert fitted == pytest.approx(model.coef_[0] / scale, rel=1e-3, abs=1e-4)


def test_a_step_leaves_the_trunk_alone_and_depends_on_its_batch_only(tiny_folder: Path) -> None:
    training = probe(tiny_folder)
    before = {name: p.clone() for name, p in training.scorer.model.named_parameters()}
    training.step(Experience([], judged(4)), context())
    training.step(Experience([], judged(9)), context())
    changed = {n for n, p in training.scorer.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"score.weight"} == set(training.state().weights)
    fresh = probe(tiny_folder)
    fresh.step(Experience([], judged(9)), context())
    assert published_digest(fresh.merged(), "float32") == published_digest(training.merged(), "float32")


def test_a_fit_separates_separable_pairs_and_survives_its_state(tiny_folder: Path) -> None:
    batch = Experience([], pairs(8))
    training = probe(tiny_folder)
    before = training.evaluate(batch, context())
    found = training.step(batch, context())
    after = training.evaluate(batch, context())
    assert found["accuracy"] == after["accuracy"] == 1.0
    assert found["loss"] == pytest.approx(after["loss"], abs=1e-5)
    assert after["loss"] < before["loss"]
    other = probe(tiny_folder)
    other.load_state(training.state().clone())
    assert other.evaluate(batch, context()) == after


@pytest.mark.parametrize("kind", ["ranking", "rating", "ensemble"])
def test_a_fit_learns_rankings_ratings_and_members_with_resamples_of_their_own(tiny_folder: Path, kind: str) -> None:
    examples = pairs(8)
    for example in examples:
        if kind == "ranking":
            example.responses.append("neither of them")
            example.ranks.values.append(2)
        elif kind == "rating":
            example.ratings.CopyFrom(trainer_v1.Ratings(values=[1.0 - rank for rank in example.ranks.values]))
    training = probe(tiny_folder, ensemble=3 if kind == "ensemble" else 1)
    before = training.evaluate(Experience([], examples), context())
    found = training.step(Experience([], examples), context())
    assert found["loss"] < before["loss"]
    heads = training.scorer.head.weight
    assert kind != "ensemble" or not torch.allclose(heads[0], heads[1])


@pytest.mark.parametrize("share", [True, False])
def test_the_mean_is_over_the_responses_tokens_shared_prompt_or_not(tiny_folder: Path, share: bool) -> None:
    training = probe(tiny_folder, share_prefixes=share)
    assert training.scorer.share is share
    examples = judged(3)
    examples[1].responses.append("a third answer, longer than the others")
    examples[1].ranks.values.append(2)
    for example, found_KD in zip(examples, states(training, examples), strict=True):
        for response, found_D in zip(example.responses, found_KD, strict=True):
            ids = render_response(training.tokenizer, example.prompt, response)
            hidden_TD = training.scorer.trunk.module(torch.tensor([ids])).last_hidden_state[0]
            begin = answer_start(training.tokenizer, example.prompt, ids)
            assert 0 < begin < len(ids)
            assert torch.allclose(found_D, hidden_TD[begin:].mean(0), atol=1e-5)


@pytest.mark.parametrize("max_tokens", [1024, 12])
def test_the_reward_service_scores_as_the_trainer_does(tiny_folder: Path, tmp_path: Path, max_tokens: int) -> None:
    training = probe(tiny_folder, blocks=1, max_tokens=max_tokens)
    examples = judged(6)
    training.step(Experience([], examples), context())
    save_model(training.merged(), training.tokenizer, tmp_path / "published", "float32")
    served = RewardModel(tmp_path / "published")
    scores = training.scorer.scores(training._tokenize(examples))
    for example, scores_MK in zip(examples, scores, strict=True):
        items = [Item(example.prompt, response) for response in example.responses]
        assert served.score(items, 4096, max_tokens) == pytest.approx(scores_MK[0].tolist(), abs=1e-4)


def test_fewer_blocks_are_the_lower_ones_and_go_into_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    options = RewardModelOptions.model_validate({"blocks": 1, "pooling": "mean", "learning_rate": 1e-2})
    training = RewardModelTraining(start(tiny_folder), options)
    whole = RewardModelTraining(start(tiny_folder), RewardModelOptions()).scorer.model.state_dict()
    kept = training.scorer.model.state_dict()
    assert len(training.scorer.trunk.blocks) == 1
    assert all(torch.equal(tensor, whole[name]) for name, tensor in kept.items())
    before = training.evaluate(Experience([], pairs(4)), context())
    for _ in range(5):
        training.step(Experience([], pairs(4)), context())
    assert training.evaluate(Experience([], pairs(4)), context())["loss"] < before["loss"]
    save_model(training.merged(), training.tokenizer, tmp_path / "published", "float32")
    config = load_reward_model(tmp_path / "published").config
    assert (config.num_hidden_layers, pooling_of(config)) == (1, "mean")
    RewardModelTraining(start(tmp_path / "published"), options)  # it is gone on with
    for wrong in ({"pooling": "last"}, {"blocks": 2}, {"ensemble": 2}):
        with pytest.raises(InvalidArgument) as refused:
            RewardModelTraining(start(tmp_path / "published"), RewardModelOptions.model_validate(wrong))
        assert refused.value.violations[0].field == f"training.options.{next(iter(wrong))}"


def test_more_blocks_than_there_are_and_options_that_would_do_nothing_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="blocks"):
        probe(tiny_folder, blocks=99)
    training = trainer_v1.Training()
    training.options.update({"learning_rate": 1e-3})
    with pytest.raises(InvalidArgument, match="learning_rate: no effect"):
        parse_options(training.options, RewardProbeOptions)


def test_a_cut_answer_keeps_a_token_to_be_scored_at(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    training = probe(tiny_folder, max_tokens=8)
    example = pairs(1)[0]
    example.responses[0] = " ".join(["word"] * 40)
    answers: Answers = training._tokenize([example])[0]
    assert answers.starts[0] == 0
    assert training.scorer.states([answers])[0].isfinite().all()
    assert answer_start(tokenizer, example.prompt, []) == 0
