"""grpo, rloo, reinforce++ and dapo on a tiny model: what they share with ppo, and where they differ."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.trainer import TINY, request_id, rollout, trainer, training

from accord.errors import FailedPrecondition, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_causal_lm
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.dapo import DAPO
from accord_trainer.algorithms.grpo import GRPO
from accord_trainer.algorithms.policy_gradient import PolicyGradient
from accord_trainer.algorithms.ppo import PPO
from accord_trainer.algorithms.reinforce_plus_plus import ReinforcePlusPlus
from accord_trainer.algorithms.rloo import RLOO
from accord_trainer.algorithms.step_targets import trajectories
from accord_trainer.trainings.weights_digest import published_digest

pytestmark = pytest.mark.process

GROUPED = (GRPO, RLOO, DAPO)
WITHOUT_CRITIC = (*GROUPED, ReinforcePlusPlus)
NAMES = ("grpo", "rloo", "reinforce++", "dapo")


def make(kind: type[PolicyGradient], folder: Path, critic: Path | None = None, **options: object) -> PolicyGradient:
    start = Start(folder, None, critic, True, seed=0, compute_dtype="float32")
    return kind(start, kind.options_type.model_validate({**TINY, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def weights(algorithm: PolicyGradient) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in algorithm.state().weights.values()])


def scored(samples: list[trainer_v1.ScoredSample], *scores: float) -> list[trainer_v1.ScoredSample]:
    for sample, score in zip(samples, scores, strict=True):
        sample.score = score
    return samples


@pytest.mark.parametrize("kind", WITHOUT_CRITIC)
def test_no_critic_is_built_and_none_is_taken(kind: type[PolicyGradient], tiny_folder: Path) -> None:
    algorithm = make(kind, tiny_folder)
    assert not [name for name in algorithm.state().weights if name.startswith("value.")]
    metrics = algorithm.step(Experience(rollout(tiny_folder, samples=4), []), context())
    assert not {"value_loss", "explained_variance"} & metrics.keys()
    with pytest.raises(InvalidArgument, match="has no critic"):
        make(kind, tiny_folder, critic=tiny_folder)


@pytest.mark.parametrize("kind", WITHOUT_CRITIC)
def test_the_first_minibatch_has_ratio_one(kind: type[PolicyGradient], tiny_folder: Path) -> None:
    algorithm = make(kind, tiny_folder, epochs=1, minibatch_size=64)
    metrics = algorithm.step(Experience(rollout(tiny_folder, samples=4, temperature=0.7), []), context())
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0.0


@pytest.mark.parametrize("kind", WITHOUT_CRITIC)
def test_cutting_a_minibatch_into_parts_changes_nothing(kind: type[PolicyGradient], tiny_folder: Path) -> None:
    found = []
    for size in (8, 10_000):
        algorithm = make(
            kind, tiny_folder, epochs=1, minibatch_size=64, micro_batch_tokens=size, share_prefixes=False,
            adam_epsilon=1e-3, kl_loss_coefficient=0.1, entropy_coefficient=0.1,
        )  # fmt: skip
        before = weights(algorithm)
        algorithm.step(Experience(rollout(tiny_folder, samples=4), []), context())
        found.append(weights(algorithm))
    assert torch.allclose(found[0], found[1], atol=2e-5)
    assert not torch.allclose(found[0], before, atol=1e-4)


@pytest.mark.parametrize("kind", GROUPED)
def test_a_batch_of_single_responses_is_refused_but_one_such_group_is_only_ignored(
    kind: type[PolicyGradient], tiny_folder: Path
) -> None:
    samples = scored(rollout(tiny_folder, prompts=((5, 6), (8, 9)), samples=2), 0.0, 1.0, 0.5, 0.6)
    algorithm = make(kind, tiny_folder)
    with pytest.raises(InvalidArgument) as refused:
        algorithm.check(Experience(samples[1:3], []))
    assert refused.value.violations[0].field == "chunk.samples"
    algorithm.check(Experience(samples[:3], []))
    assert not advantages(kind, tiny_folder, samples[:3])[2].any()
    assert advantages(kind, tiny_folder, samples[:3])[:2].any()


@pytest.mark.parametrize("kind", GROUPED)
def test_equal_rewards_teach_nothing(kind: type[PolicyGradient], tiny_folder: Path) -> None:
    """The gradient is exactly 0, whatever the score; dapo says so and refuses."""
    algorithm = make(kind, tiny_folder, kl_coefficient=0.0, kl_loss_coefficient=0.0)
    before = weights(algorithm)
    batch = Experience(scored(rollout(tiny_folder), 0.1, 0.1, 0.7, 0.7), [])
    if kind is DAPO:
        with pytest.raises(FailedPrecondition) as refused:
            algorithm.step(batch, context())
        assert refused.value.reason == "NO_SIGNAL"
    else:
        assert algorithm.step(batch, context())["grad_norm"] == 0.0
    assert torch.equal(weights(algorithm), before)


def test_dapo_learns_as_if_groups_without_signal_were_not_there(tiny_folder: Path) -> None:
    samples = scored(rollout(tiny_folder), 0.0, 1.0, 0.7, 0.7)
    found = []
    for batch in (samples, samples[:2]):
        algorithm = make(DAPO, tiny_folder, epochs=1, minibatch_size=64, adam_epsilon=1e-3)
        metrics = algorithm.step(Experience(batch, []), context())
        found.append(weights(algorithm))
        assert metrics["samples_dropped"] == len(batch) - 2
    assert torch.allclose(found[0], found[1], atol=1e-6)


def advantages(kind: type[PolicyGradient], folder: Path, samples: Any, **options: object) -> torch.Tensor:
    algorithm = make(kind, folder, **options)
    data = trajectories(samples)
    return algorithm._step_targets(data, algorithm._rows(data), {}, context()).advantages_BR


def test_advantages_by_hand(tiny_folder: Path) -> None:
    samples = scored(rollout(tiny_folder), 0.0, 1.0, 5.0, 5.0)
    last = [len(sample.sample.response_token_ids) - 1 for sample in samples]
    grpo = advantages(GRPO, tiny_folder, samples)
    assert [float(row[0]) for row in grpo] == pytest.approx([-1, 1, 0, 0])
    assert [float(row[at]) for row, at in zip(grpo, last, strict=True)] == pytest.approx([-1, 1, 0, 0])
    plain = advantages(GRPO, tiny_folder, samples, scale_advantages=False)
    assert [float(row[0]) for row in plain] == pytest.approx([-0.5, 0.5, 0, 0])
    assert [float(row[0]) for row in advantages(RLOO, tiny_folder, samples)] == pytest.approx([-1, 1, 0, 0], abs=1e-5)
    whitened = advantages(ReinforcePlusPlus, tiny_folder, samples, kl_coefficient=0.0, group_baseline=True)
    assert float(whitened[0, 0]) < float(whitened[2, 0]) < float(whitened[1, 0])
    mask_BR = trajectories(samples).mask_BR
    assert float(whitened[mask_BR].mean()) == pytest.approx(0, abs=1e-5)
    assert float(whitened[mask_BR].std(correction=0)) == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same tokenizer: a reference that there is KL to."""
    from tests.support.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("other") / "model", seed=1)


def differences(folder: Path, reference: Path, sample: trainer_v1.ScoredSample) -> torch.Tensor:
    """log policy - log reference of each response token, from the two models themselves."""
    prompt, response = list(sample.sample.prompt_token_ids), list(sample.sample.response_token_ids)
    found = []
    for model in map(load_causal_lm, (folder, reference)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0])
    return found[0] - found[1]


@pytest.mark.parametrize("kind", GROUPED)
def test_the_kl_of_all_tokens_is_in_the_reward(
    kind: type[PolicyGradient], tiny_folder: Path, other_folder: Path
) -> None:
    """Scores are equal: what tells the responses to a prompt apart is their KL to the reference."""
    samples = scored(rollout(tiny_folder), 1.0, 1.0, 1.0, 1.0)
    start = Start(tiny_folder, other_folder, None, False, seed=0, compute_dtype="float32")
    algorithm = kind(start, kind.options_type.model_validate({**TINY, "kl_coefficient": 0.1}))
    data = trajectories(samples)
    found = algorithm._step_targets(data, algorithm._rows(data), {}, context()).advantages_BR[:, 0]
    kl = [float(differences(tiny_folder, other_folder, sample).sum()) for sample in samples]
    expected = [0.1 * (kl[other] - kl[own]) for own, other in ((0, 1), (1, 0), (2, 3), (3, 2))]
    if kind is not RLOO:  # of two responses one is a deviation above the mean, the other below
        expected = [math.copysign(1.0, value) for value in expected]
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert min(map(abs, expected)) > 1e-3


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_kl_term_is_the_estimator_that_was_asked_for(estimator: str, tiny_folder: Path, other_folder: Path) -> None:
    """At the first minibatch, by GRPO's aggregation: the mean over responses of their token means."""
    samples = scored(rollout(tiny_folder), 0.0, 1.0, 0.0, 1.0)
    start = Start(tiny_folder, other_folder, None, False, seed=0, compute_dtype="float32")
    options = {**TINY, "kl_loss_coefficient": 0.5, "kl_loss_estimator": estimator, "minibatch_size": 64}
    found = GRPO(start, GRPO.options_type.model_validate(options)).step(Experience(samples, []), context())
    means = []
    for sample in samples:
        d = differences(tiny_folder, other_folder, sample)
        means.append(float((0.5 * d**2 if estimator == "k2" else torch.exp(-d) - 1 + d).mean()))
    assert found["kl_loss"] == pytest.approx(sum(means) / len(means), rel=1e-3)


def test_later_rewards_are_discounted_by_gamma(tiny_folder: Path) -> None:
    samples = scored(rollout(tiny_folder), 1.0, -1.0, 0.5, 2.0)
    found = advantages(ReinforcePlusPlus, tiny_folder, samples, kl_coefficient=0.0, gamma=0.5)
    longest = max(range(4), key=lambda b: len(samples[b].sample.response_token_ids))
    row = found[longest]
    assert len(samples[longest].sample.response_token_ids) >= 3
    # Whitening shifts and scales; the steps between neighbours keep their ratio.
    assert float((row[0] - row[1]) / (row[1] - row[2])) == pytest.approx(0.5, rel=1e-3)


def test_dapo_takes_the_penalty_of_length_off_the_score(tiny_folder: Path) -> None:
    data = trajectories(rollout(tiny_folder, tokens=6))
    data = replace(data, mask_BR=torch.ones(4, 6, dtype=torch.bool), limit_B=torch.full((4,), 6))
    plain, penal = (make(DAPO, tiny_folder, overlong_buffer=tokens).score(data) for tokens in (0, 4))
    assert (plain - penal).tolist() == pytest.approx([1.0] * 4)


def test_the_kl_term_of_the_loss_pulls_towards_the_reference(tiny_folder: Path, other_folder: Path) -> None:
    """No reward differs, so the KL term alone moves the policy: nearer to a reference that is another model."""
    for estimator in ("k2", "k3"):
        start = Start(tiny_folder, other_folder, None, False, seed=0, compute_dtype="float32")
        given = {**TINY, "kl_loss_coefficient": 1.0, "kl_loss_estimator": estimator, "minibatch_size": 64}
        algorithm = GRPO(start, GRPO.options_type.model_validate(given))
        batch = Experience(scored(rollout(tiny_folder), 1, 1, 1, 1), [])
        before = algorithm.evaluate(batch, context())["kl_k1"]
        for _ in range(4):
            metrics = algorithm.step(batch, context())
        assert metrics["kl_loss"] > 0
        assert algorithm.evaluate(batch, context())["kl_k1"] < before


@pytest.mark.parametrize("name", NAMES)
async def test_the_score_rises_through_the_service_and_survives_its_restart(
    name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    """Tokens with small ids are rewarded; the policy learns to give them. Halfway the trainer is stopped."""
    scores = []
    folder, digest, version = tiny_folder, "", 0
    options = {"learning_rate": 5e-3, "minibatch_size": 16, "epochs": 2}
    for half in range(2):
        async with trainer(tmp_path / "state") as client:
            opened = training(tiny_folder, algorithm=name, options=options, checkpoint_every=4)
            await client.trainer.create_training(opened)
            for step in range(4):
                samples = rollout(folder, samples=8, version=version, digest=digest, seed=4 * half + step, below=100)
                scores.append(sum(sample.score for sample in samples) / len(samples))
                put = await client.trainer.put_experience("t", samples=samples)
                result = await client.trainer.step(
                    "t", put.batch_id, parent_version=version, request_id=request_id(), publish=True
                )
                version, digest = result.version, result.digest
                folder = Path(result.weights.uri.removeprefix("file://"))
    assert sum(scores[-2:]) / 2 > sum(scores[:2]) / 2 + 0.1


def test_ppo_is_the_only_one_with_a_critic(tiny_folder: Path) -> None:
    assert any(name.startswith("value.") for name in make(PPO, tiny_folder).state().weights)
    assert published_digest(make(PPO, tiny_folder).merged(), "float32") == published_digest(
        make(GRPO, tiny_folder).merged(), "float32"
    )
