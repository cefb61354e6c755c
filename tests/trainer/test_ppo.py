"""PPO's step on a tiny model: what must hold whatever the sizes of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.tiny import make_tiny_model
from tests.support.trainer import TINY, rollout

from accord.errors import FailedPrecondition, InvalidArgument
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ppo import PPO, PpoOptions
from accord_trainer.model.policy import Policy
from accord_trainer.trainings.weights_digest import published_digest


def make(folder: Path, reference: Path | None = None, **options: object) -> PPO:
    start = Start(folder, reference, None, reference is None, seed=0, compute_dtype="float32")
    return PPO(start, PpoOptions.model_validate({**TINY, **options}))


def context(version: int = 0) -> StepContext:
    return StepContext(version, torch.Generator().manual_seed(0), lambda: None)


def batch(folder: Path, **fields: object) -> Experience:
    return Experience(rollout(folder, samples=4, **fields), [])  # type: ignore[arg-type]


def digest(ppo: PPO) -> str:
    return published_digest(ppo.merged(), ppo.publish_dtype)


@pytest.mark.parametrize("share", [True, False])
def test_the_first_minibatch_has_ratio_one(tiny_folder: Path, share: bool) -> None:
    ppo = make(tiny_folder, epochs=1, minibatch_size=64, share_prefixes=share)
    metrics = ppo.step(batch(tiny_folder, temperature=0.7), context())
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0.0
    # The engine's log-probabilities at this temperature are the trainer's.
    assert metrics["mismatch_kl"] == pytest.approx(0.0, abs=1e-6)


def test_cutting_a_minibatch_into_parts_changes_nothing(tiny_folder: Path) -> None:
    weights = []
    for size in (8, 10_000):
        ppo = make(tiny_folder, epochs=1, minibatch_size=64, micro_batch_tokens=size, share_prefixes=False)
        ppo.step(batch(tiny_folder), context())
        weights.append(torch.cat([w.flatten() for w in ppo.state().weights.values()]))
    before = torch.cat([w.flatten() for w in make(tiny_folder).state().weights.values()])
    assert torch.allclose(weights[0], weights[1], atol=2e-5)
    assert not torch.allclose(weights[0], before, atol=2e-4)


def test_sharing_prefixes_changes_nothing(tiny_folder: Path) -> None:
    weights = []
    for share in (True, False):
        # A large epsilon keeps Adam from blowing rounding up to whole steps where a gradient is nearly 0.
        ppo = make(tiny_folder, epochs=2, minibatch_size=64, share_prefixes=share, adam_epsilon=1e-3)
        assert ppo.policy.share is share
        ppo.step(batch(tiny_folder), context())
        weights.append(torch.cat([w.flatten() for w in ppo.state().weights.values()]))
    assert torch.allclose(weights[0], weights[1], atol=2e-5)


def test_frozen_blocks_stay_and_what_they_give_is_computed_once(tiny_folder: Path) -> None:
    results = []
    for cached in (True, False):
        ppo = make(tiny_folder, trainable_layers=1)
        if not cached:
            ppo.policy.lower = lambda *_: {}  # type: ignore[method-assign]
        before = {name: p.clone() for name, p in ppo.policy.model.named_parameters()}
        ppo.step(batch(tiny_folder), context())
        changed = {n for n, p in ppo.policy.model.named_parameters() if not torch.equal(p, before[n])}
        assert changed
        assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in changed)
        results.append(digest(ppo))
    assert results[0] == results[1]


def test_lora_trains_adapters_only_and_publishes_them_merged(tiny_folder: Path, tmp_path: Path) -> None:
    ppo = make(tiny_folder, lora_rank=2, learning_rate=1e-2)
    start = digest(ppo)
    assert start == digest(make(tiny_folder))  # a fresh adapter changes nothing
    assert all("lora_" in name or name.startswith("value.") for name in ppo.state().weights)
    ppo.step(batch(tiny_folder), context())
    assert digest(ppo) != start
    assert digest(ppo) == digest(ppo)  # merging leaves the live model alone
    ppo.save_adapter(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    metrics = ppo.evaluate(batch(tiny_folder), context())
    assert metrics["kl_k3"] > 0  # to the reference, which is the model without its adapter


def test_the_reference_is_what_was_asked_for(tiny_folder: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)
    for options in ({}, {"trainable_layers": 1}, {"lora_rank": 2}):
        ppo = make(tiny_folder, reference=other, **options)
        assert ppo.evaluate(batch(tiny_folder), context())["kl_k3"] > 0.1
        assert make(tiny_folder, **options).evaluate(batch(tiny_folder), context())["kl_k3"] < 1e-5


def test_a_separate_critic_learns_together_with_the_policy(tiny_folder: Path, tmp_path: Path) -> None:
    from accord_models.loading import new_reward_model
    from accord_models.publishing import save_model
    from accord_models.tokenizer import load_tokenizer

    critic = tmp_path / "critic"
    save_model(new_reward_model(tiny_folder, 0), load_tokenizer(tiny_folder), critic, "float32")
    start = Start(tiny_folder, None, critic, True, seed=0, compute_dtype="float32")
    ppo = PPO(start, PpoOptions.model_validate({**TINY, "critic_learning_rate": 1e-3}))
    before = {name: w.clone() for name, w in ppo.state().weights.items()}
    metrics = ppo.step(batch(tiny_folder), context())
    changed = {name for name, w in ppo.state().weights.items() if not torch.equal(w, before[name])}
    assert "value.score.weight" in changed
    assert any(name.startswith("value.model.layers") for name in changed)
    assert any(name.startswith("policy.") for name in changed)
    assert metrics["value_grad_norm"] > 0


def test_critic_warm_up_leaves_the_policy_alone(tiny_folder: Path) -> None:
    ppo = make(tiny_folder, critic_warmup_steps=1)
    start = digest(ppo)
    before = {name: w.clone() for name, w in ppo.state().weights.items() if name.startswith("value.")}
    ppo.step(batch(tiny_folder), context(0))
    assert digest(ppo) == start
    assert all(not torch.equal(ppo.state().weights[name], w) for name, w in before.items())
    ppo.step(batch(tiny_folder), context(1))
    assert digest(ppo) != start


def test_adaptive_kl_coefficient_is_part_of_the_state(tiny_folder: Path) -> None:
    ppo = make(tiny_folder, kl_target=1.0, kl_horizon=100.0)
    ppo.step(batch(tiny_folder), context())
    state = ppo.state().clone()
    assert state.scalars["kl_coefficient"] == pytest.approx(0.05 * (1 - 0.2 * 8 / 100), rel=1e-3)
    other = make(tiny_folder, kl_target=1.0, kl_horizon=100.0)
    other.load_state(state)
    assert other.kl == ppo.kl
    assert digest(other) == digest(ppo)


def test_missing_end_costs_what_was_asked(tiny_folder: Path) -> None:
    samples = batch(tiny_folder)
    free = make(tiny_folder).evaluate(samples, context())
    paid = make(tiny_folder, missing_eos_penalty=1.0).evaluate(samples, context())
    assert paid["score"] == free["score"]
    assert paid["reward"] == pytest.approx(free["reward"] - (1 - free["eos_rate"]), abs=1e-5)


def test_an_overflowing_loss_is_an_error(tiny_folder: Path) -> None:
    ppo = make(tiny_folder)
    samples = batch(tiny_folder)
    samples.samples[0].score = 1e38
    with pytest.raises(FailedPrecondition) as odd:
        ppo.step(samples, context())
    assert odd.value.reason == "NOT_FINITE"


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("top_p", 0.9), ("top_k", 5)])
def test_samples_of_another_distribution_are_refused(tiny_folder: Path, field: str, value: float) -> None:
    samples = batch(tiny_folder)
    setattr(samples.samples[1].sample.sampling, field, value)
    with pytest.raises(InvalidArgument) as wrong:
        make(tiny_folder).check(samples)
    assert wrong.value.violations[0].field.startswith("chunk.samples[1].sample.sampling")


def test_kl_stop_ends_the_epochs(tiny_folder: Path) -> None:
    counts = []
    for stop in (None, 1e-9):
        ppo = make(tiny_folder, epochs=3, minibatch_size=4, kl_stop=stop, learning_rate=1e-2)
        ppo.step(batch(tiny_folder), context())
        counts.append(ppo.state().scalars["updates"])
    assert counts == [6, 2]


def test_the_learning_rate_warms_up(tiny_folder: Path) -> None:
    ppo = make(tiny_folder, epochs=1, minibatch_size=64, warmup_updates=4, learning_rate=4e-3)
    rates = [ppo.step(batch(tiny_folder), context())["lr"] for _ in range(5)]
    assert rates == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3, 4e-3])


def test_a_fresh_value_head_says_nothing(tiny_folder: Path) -> None:
    policy = Policy(Start(tiny_folder, None, None, True, seed=3, compute_dtype="float32"), PpoOptions())
    assert float(policy.value_head.weight.detach().abs().sum()) == 0.0
