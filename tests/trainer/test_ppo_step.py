"""What a PPO step must get right, or it quietly does not learn: pads, masks, epochs, rewards, value heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.trainer import TINY, rollout
from torch import nn

from accord_models.loading import load_causal_lm, new_reward_model
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ppo import PPO, PpoOptions
from accord_trainer.algorithms.step_targets import (
    AdvantageInputs,
    Advantages,
    Trajectories,
    penalised_score,
    trajectories,
)
from accord_trainer.model.policy import Policy
from accord_trainer.trainings.weights_digest import published_digest

NAN = float("nan")


def make(folder: Path, **options: object) -> PPO:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32")
    return PPO(start, PpoOptions.model_validate({**TINY, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def ragged(folder: Path) -> Experience:
    """Responses of 3 and of 7 tokens."""
    return Experience(rollout(folder, tokens=3) + rollout(folder, tokens=7, seed=1), [])


def digest(ppo: PPO) -> str:
    return published_digest(ppo.merged(), "float32")


def test_nan_at_pads_changes_nothing(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model says beyond the end of a response: rewards, advantages, losses and gradients never read it."""
    options = {"entropy_coefficient": 0.1, "kl_loss_coefficient": 0.1, "whiten_rewards": True}
    batch = ragged(tiny_folder)
    clean = make(tiny_folder, **options)
    expected = clean.step(batch, context())
    outputs, reference = Policy.outputs, Policy.reference_logprobs

    def spoiled(values_BR: torch.Tensor | None, members: torch.Tensor) -> Any:
        lengths_B = torch.tensor([len(batch.samples[b].sample.response_token_ids) for b in members.tolist()])
        if values_BR is None:
            return None
        beyond_BR = torch.arange(values_BR.shape[1]) >= lengths_B[:, None]
        return torch.where(beyond_BR, NAN, values_BR)

    def spoil_outputs(self: Policy, *arguments: Any, **keywords: Any) -> Any:
        out = outputs(self, *arguments, **keywords)
        fields = {name: spoiled(getattr(out, name), out.members) for name in ("logprobs_BR", "entropy_BR", "values_BR")}
        return replace(out, **fields)

    def spoil_reference(self: Policy, *arguments: Any) -> Any:
        members, logprobs_BR = reference(self, *arguments)
        return members, spoiled(logprobs_BR, members)

    monkeypatch.setattr(Policy, "outputs", spoil_outputs)
    monkeypatch.setattr(Policy, "reference_logprobs", spoil_reference)
    dirty = make(tiny_folder, **options)
    assert dirty.step(batch, context()) == expected
    assert digest(dirty) == digest(clean)


def test_tool_output_is_not_learned(tiny_folder: Path) -> None:
    """A token that the policy did not choose: its log-probability does not matter, and it gets no advantage."""
    digests = []
    for logprob in (-1.0, -15.0):
        batch = Experience(rollout(tiny_folder, tokens=5), [])
        for scored in batch.samples:
            scored.sample.response_mask[2] = False
            scored.sample.logprobs[2] = logprob
        ppo = make(tiny_folder)
        ppo.step(batch, context())
        digests.append(digest(ppo))
        data = trajectories(batch.samples)
        targets = ppo._step_targets(data, ppo._rows(data), {}, context())
        assert targets.advantages_BR[:, 2].tolist() == targets.rewards_BR[:, 2].tolist() == [0.0] * 4
    assert digests[0] == digests[1]
    heard = make(tiny_folder)
    heard.step(Experience(rollout(tiny_folder, tokens=5), []), context())
    assert digest(heard) != digests[0]


def test_each_epoch_shuffles_the_minibatches_again(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make(tiny_folder, epochs=3, minibatch_size=2, share_prefixes=False)
    seen: list[frozenset[int]] = []
    update = PPO._update

    def watching(self: PPO, data: Any, targets: Any, minibatch: Any, *rest: Any) -> float:
        seen.append(frozenset(member for row in minibatch for member in row.members))
        return update(self, data, targets, minibatch, *rest)

    monkeypatch.setattr(PPO, "_update", watching)
    ppo.step(Experience(rollout(tiny_folder, samples=4), []), context())
    epochs = [seen[at : at + 4] for at in range(0, 12, 4)]
    assert all(sorted(member for part in epoch for member in part) == list(range(8)) for epoch in epochs)
    assert len({frozenset(epoch) for epoch in epochs}) == 3


def test_old_values_and_logprobs_stay_frozen_over_the_epochs(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = make(tiny_folder, epochs=3, learning_rate=1e-2)
    asked: list[bool] = []
    outputs = Policy.outputs

    def watching(self: Policy, *arguments: Any, **keywords: Any) -> Any:
        asked.append(torch.is_grad_enabled())
        return outputs(self, *arguments, **keywords)

    monkeypatch.setattr(Policy, "outputs", watching)
    metrics = ppo.step(Experience(rollout(tiny_folder), []), context())
    assert asked == sorted(asked)  # first what is frozen, then only passes that are learned from
    assert metrics["ratio_max"] > 1.001


def test_rewards_are_a_penalty_at_each_token_and_the_score_at_the_last(tiny_folder: Path, tmp_path: Path) -> None:
    from tests.support.tiny import make_tiny_model

    other = make_tiny_model(tmp_path / "other", seed=1)
    start = Start(tiny_folder, other, None, False, seed=0, compute_dtype="float32")
    ppo = PPO(start, PpoOptions.model_validate({**TINY, "kl_coefficient": 0.3}))
    batch = ragged(tiny_folder)
    data = trajectories(batch.samples)
    targets = ppo._step_targets(data, ppo._rows(data), {}, context())
    kl = torch.where(data.mask_BR, targets.old.logprobs_BR - targets.old.reference_logprobs_BR, 0.0).sum() / 8
    assert ppo.evaluate(batch, context())["kl_k1"] == pytest.approx(float(kl), rel=1e-4)  # nats a response
    penalty_BR = 0.3 * (targets.old.logprobs_BR - targets.old.reference_logprobs_BR)
    for b, scored in enumerate(batch.samples):
        length = len(scored.sample.response_token_ids)
        expected_R = -penalty_BR[b, :length]
        expected_R[-1] += scored.score
        assert targets.rewards_BR[b, :length].tolist() == pytest.approx(expected_R.tolist(), abs=1e-6)
        assert not targets.rewards_BR[b, length:].any()


def some(data: Trajectories, **fields: Any) -> Trajectories:
    return replace(data, **fields)


def test_a_truncated_response_gets_the_configured_score(tiny_folder: Path) -> None:
    data = trajectories(rollout(tiny_folder, samples=1))
    data = some(data, score_B=torch.tensor([2.0, 3.0]), truncated_B=torch.tensor([True, False]))
    assert penalised_score(data, 0.0).tolist() == [2.0, 3.0]
    assert penalised_score(data, 0.5).tolist() == [1.5, 3.0]
    assert penalised_score(data, 0.0, -1.0).tolist() == [-1.0, 3.0]
    assert make(tiny_folder, missing_eos_score=-1.0).score(data).tolist() == [-1.0, 3.0]


def test_a_truncated_response_bootstraps_from_the_critic_if_asked(tiny_folder: Path) -> None:
    """By hand, with lambda and gamma 1 and no KL: the advantage is score + value at the cut - value before."""
    data = trajectories(rollout(tiny_folder, samples=1))
    data = some(data, truncated_B=torch.tensor([True, False]), score_B=torch.tensor([1.0, 1.0]))
    found: dict[bool, Advantages] = {}
    for bootstrap in (False, True):
        ppo = make(
            tiny_folder, bootstrap_truncated=bootstrap, gae_lambda=1.0, kl_coefficient=0.0, whiten_advantages=False,
            value_head_init="normal",
        )  # fmt: skip
        targets = ppo._step_targets(data, ppo._rows(data), {}, context())
        old = targets.old
        assert float(old.final_value_B.abs().min()) > 1e-4
        found[bootstrap] = ppo.compute_advantages(data, AdvantageInputs(data.score_B, targets.rewards_BR, old))
    end_B = torch.where(data.truncated_B, old.final_value_B, 0.0)
    for bootstrap, advantages in found.items():
        ends_B = end_B if bootstrap else torch.zeros(2)
        expected_BR = torch.where(data.mask_BR, (1.0 + ends_B)[:, None] - old.values_BR, 0.0)
        assert torch.allclose(advantages.advantages_BR, expected_BR, atol=1e-5)


def test_a_new_value_head_is_initialised_like_a_reward_models_if_asked(tiny_folder: Path) -> None:
    head = make(tiny_folder, value_head_init="normal").policy.value_head
    assert head is not None
    assert float(head.weight.detach().std()) == pytest.approx(33**-0.5, rel=0.35)
    assert float(head.bias.detach().abs().sum()) == 0.0
    reward = new_reward_model(tiny_folder, seed=0).score.weight.detach()
    assert float(reward.std()) == pytest.approx(33**-0.5, rel=0.35)


def test_dropout_is_off_whatever_the_config_says(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    from accord_models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tiny_folder)
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64)).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.resid_pdrop > 0
    model = load_causal_lm(tmp_path)
    assert not model.training
    assert all(part.p == 0 for part in model.modules() if isinstance(part, nn.Dropout))
