"""Samples of older versions: which are taken, what their loss is weighed by, and which responses are left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, request_id, rollout, trainer, training
from torch import Tensor

from accord.errors import FailedPrecondition, InvalidArgument
from accord.types import v1 as types_v1
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.grpo import GRPO
from accord_trainer.algorithms.ppo import PPO
from accord_trainer.algorithms.step_targets import trajectories
from accord_trainer.objectives.policy_loss import Measure, accepted, importance_weights, response_ratio
from accord_trainer.trainings.verification import TrainingIdentity, staleness

# Two responses of 3 and 2 tokens; log old - log rollout: .5, -.2, .1 and -1, .6. What a pad says counts nowhere.
OLD_BR = torch.tensor([[-1.0, -1.2, -0.9], [-3.0, -0.4, 50.0]])
ROLLOUT_BR = torch.tensor([[-1.5, -1.0, -1.0], [-2.0, -1.0, -50.0]])
MASK_BR = torch.tensor([[True, True, True], [True, True, False]])


def make(folder: Path, **options: object) -> PPO:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32")
    return PPO(start, PPO.options_type.model_validate({**TINY, **options}))


def context(version: int = 0) -> StepContext:
    return StepContext(version, torch.Generator().manual_seed(0), lambda: None)


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [("product", [0.4, -0.4]), ("mean", [0.4 / 3, -0.2]), ("worst", [0.5, -1.0])],
)
def test_a_responses_ratio_by_hand(measure: Measure, wanted: list[float]) -> None:
    assert response_ratio(OLD_BR, ROLLOUT_BR, MASK_BR, measure).tolist() == pytest.approx(wanted, abs=1e-6)
    at = math.exp(max(abs(value) for value in wanted))
    assert accepted(OLD_BR, ROLLOUT_BR, MASK_BR, at * 1.001, measure).tolist() == [True, True]
    assert accepted(OLD_BR, ROLLOUT_BR, MASK_BR, at * 0.999, measure).tolist() == [
        abs(value) < math.log(at) - 0.001 for value in wanted
    ]


def test_importance_weights_of_tokens_and_of_responses_by_hand() -> None:
    def found(**how: object) -> Tensor:
        return importance_weights(OLD_BR, ROLLOUT_BR, MASK_BR, 1.5, **how)  # type: ignore[arg-type]

    tokens = found(bound="truncate", level="token")
    assert tokens[0].tolist() == pytest.approx([1.5, math.exp(-0.2), math.exp(0.1)])
    whole = found(bound="truncate", level="sequence")
    assert whole[0].tolist() == pytest.approx([math.exp(0.4)] * 3)
    assert whole[1, :2].tolist() == pytest.approx([math.exp(-0.4)] * 2)
    masked = found(bound="mask", level="token")
    assert masked[0].tolist() == pytest.approx([0.0, math.exp(-0.2), math.exp(0.1)])
    assert masked[1, :2].tolist() == pytest.approx([0.0, 0.0])


def test_old_logprobs_of_stale_samples_are_the_trained_versions_and_their_weights_are_old_over_rollout(
    tiny_folder: Path,
) -> None:
    """The decoupled objective: in the first update the ratio is 1 also where the samples are stale, and what they are
    off by is in the importance weight. With the rollout's logprobs in the place of the old ones it is the other way
    round, and with none recomputed the weight is 1."""
    ppo = make(tiny_folder, epochs=1, minibatch_size=64, importance_cap=50.0)
    batch = Experience(rollout(tiny_folder, samples=4), [])
    fresh = ppo.step(batch, context())
    assert fresh["mismatch_kl"] == pytest.approx(0.0, abs=1e-6)
    stale = ppo.step(batch, context(1))
    assert stale["mismatch_kl"] > 1e-5
    assert stale["mismatch_max"] > 1e-3
    assert (stale["ratio_mean"], stale["ratio_max"]) == (pytest.approx(1.0, abs=1e-4), pytest.approx(1.0, abs=1e-4))
    data = trajectories(batch.samples)
    targets = ppo._step_targets(data, ppo._rows(data), {}, context(2))
    with torch.no_grad():
        row = batch.samples[0].sample
        ids = torch.tensor([[*row.prompt_token_ids, *row.response_token_ids]])
        logits = ppo.merged()(input_ids=ids).logits[0, len(row.prompt_token_ids) - 1 : -1]
        now = logits.log_softmax(-1).gather(1, ids[0, len(row.prompt_token_ids) :, None])[:, 0]
    weights = (now - torch.tensor(list(row.logprobs))).exp()
    assert targets.importance_BR is not None
    assert float((weights - 1).abs().max()) > 1e-3
    assert torch.allclose(targets.importance_BR[0, : len(weights)], weights, rtol=1e-3)


def test_responses_that_were_sampled_by_quite_another_policy_are_left_out_and_counted(tiny_folder: Path) -> None:
    samples = rollout(tiny_folder, samples=4)
    for scored in samples[:3]:
        scored.sample.logprobs[0] -= 2.0
    ppo = make(tiny_folder, rejection_cap=3.0)
    data = trajectories(samples)
    targets = ppo._step_targets(data, ppo._rows(data), {}, context())
    assert targets.mask_BR.any(1).tolist() == [False] * 3 + [True] * 5
    metrics = ppo.step(Experience(samples, []), context())
    assert (metrics["samples_rejected"], metrics["samples_dropped"]) == (3, 3)
    for measure, rejected in (("mean", 0), ("worst", 3)):
        found = make(tiny_folder, rejection_cap=3.0, rejection_measure=measure).evaluate(
            Experience(samples, []), context()
        )
        assert found["samples_rejected"] == rejected
    assert "samples_rejected" not in make(tiny_folder).evaluate(Experience(samples, []), context())


def test_what_is_rejected_moves_nothing(tiny_folder: Path) -> None:
    """The weights after the step are those of a step whose loss never saw the rejected response."""
    samples = rollout(tiny_folder, prompts=((5, 6, 7),), samples=4)
    samples[0].sample.logprobs[0] -= 5.0
    start = Start(tiny_folder, None, None, True, seed=0, compute_dtype="float32")
    made = {}
    for name, options in {"rejected": {"rejection_cap": 2.0}, "kept": {}}.items():
        grpo = GRPO(start, GRPO.options_type.model_validate({**TINY, "epochs": 1, "importance_cap": None, **options}))
        made[name] = grpo.step(Experience(samples, []), context())
    assert made["rejected"]["samples_rejected"] == 1
    advantage = made["kept"]["policy_loss"], made["rejected"]["policy_loss"]
    assert advantage[0] != pytest.approx(advantage[1], abs=1e-6)


def test_a_batch_that_is_rejected_whole_says_so_and_changes_nothing(tiny_folder: Path) -> None:
    samples = rollout(tiny_folder)
    for scored in samples:
        scored.sample.logprobs[0] -= 5.0
    ppo = make(tiny_folder, rejection_cap=2.0)
    before = {name: weight.clone() for name, weight in ppo.state().weights.items()}
    with pytest.raises(FailedPrecondition, match="rejection_cap") as refused:
        ppo.step(Experience(samples, []), context())
    assert refused.value.reason == "ALL_REJECTED"
    assert all(torch.equal(before[name], weight) for name, weight in ppo.state().weights.items())


async def test_samples_of_up_to_max_staleness_versions_before_are_taken_and_no_older_ones(
    tiny_folder: Path, tmp_path: Path
) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder, max_staleness=1))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        for parent in (0, 1):
            result = await client.trainer.step("t", put.batch_id, parent_version=parent, request_id=request_id())
            assert result.metrics["staleness"] == result.metrics["staleness_max"] == parent
            assert (result.metrics["mismatch_kl"] > 1e-6) is bool(parent)
        before = await client.trainer.training("t")
        with pytest.raises(FailedPrecondition, match="max_staleness 1") as stale:
            await client.trainer.step("t", put.batch_id, parent_version=2)
        assert stale.value.reason == "STALE_EXPERIENCE"
        assert await client.trainer.training("t") == before


async def test_samples_of_several_versions_are_learned_from_where_staleness_is_allowed(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """What an engine gives that changes weights between two tokens; its oldest token says how stale a sample is."""
    async with trainer(tmp_path) as client:
        for training_id, allowed in (("async", 1), ("sync", 0)):
            await client.trainer.create_training(training(tiny_folder, training_id, max_staleness=allowed))
            put = await client.trainer.put_experience(training_id, samples=rollout(tiny_folder))
            first = await client.trainer.step(training_id, put.batch_id, parent_version=0, request_id=request_id())
            mixed = rollout(tiny_folder, seed=1)
            for scored in mixed[:2]:
                scored.sample.segments.append(types_v1.Segment(start=2, version=1, digest=first.digest))
            for scored in mixed[2:]:
                scored.sample.segments[0].version, scored.sample.segments[0].digest = 1, first.digest
            put = await client.trainer.put_experience(training_id, samples=mixed)
            ask = client.trainer.step(training_id, put.batch_id, parent_version=1, request_id=request_id())
            if allowed:
                metrics = (await ask).metrics
                assert (metrics["staleness"], metrics["staleness_max"]) == (0.5, 1.0)
            else:
                with pytest.raises(FailedPrecondition) as stale:
                    await ask
                assert stale.value.reason == "STALE_EXPERIENCE"


async def test_a_negative_staleness_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        with pytest.raises(InvalidArgument) as wrong:
            await client.trainer.create_training(training(tiny_folder, max_staleness=-1))
        assert [violation.field for violation in wrong.value.violations] == ["training.max_staleness"]


def test_masked_importance_by_hand() -> None:
    old, rollout_logprobs = torch.tensor([[0.0, -1.0, -3.0]]), torch.tensor([[-1.5, -1.4, -1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = importance_weights(old, rollout_logprobs, mask, 2.0, bound="mask", level="token")
    assert found[0].tolist() == pytest.approx([0.0, math.exp(0.4), 0.0])


def test_tokens_with_other_engine_logprobs_are_masked_if_asked(tiny_folder: Path) -> None:
    batch = Experience(rollout(tiny_folder), [])
    for scored in batch.samples:
        scored.sample.logprobs[0] -= 3.0
    for bound, part in (("truncate", True), ("mask", True)):
        ppo = make(tiny_folder, importance_bound=bound)
        data = trajectories(batch.samples)
        weights_BR = ppo._step_targets(data, ppo._rows(data), {}, context()).importance_BR
        assert weights_BR is not None
        assert weights_BR[:, 0].tolist() == pytest.approx([2.0 if bound == "truncate" else 0.0] * 4)
        assert weights_BR[:, 1].tolist() == pytest.approx([1.0] * 4, abs=1e-4)
        assert (ppo.evaluate(batch, context())["importance_bounded"] > 0) is part
    with pytest.raises(InvalidArgument, match="importance_cap"):
        make(tiny_folder, importance_bound="mask", importance_cap=1.0)


async def test_a_step_reports_how_old_its_experience_is(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        result = await client.trainer.step("t", put.batch_id, parent_version=0, request_id=request_id())
        assert result.metrics["staleness"] == result.metrics["staleness_max"] == 0.0


def test_staleness_counts_versions_from_the_oldest_token(tiny_folder: Path) -> None:
    samples = rollout(tiny_folder, prompts=((5, 6),), samples=2, version=4, digest="d")
    samples[0].sample.segments.insert(0, types_v1.Segment(start=0, version=2, digest="c"))
    samples[0].sample.segments[1].start = 3
    identity = TrainingIdentity("samples", 300, "", {2: "c", 4: "d"}, types_v1.WeightsRef(digest="init", version=9))
    assert staleness(samples, identity, 5) == [3, 1]
    samples[1].sample.segments[0].version, samples[1].sample.segments[0].digest = 9, "init"  # is version 0 here
    assert staleness(samples, identity, 5) == [3, 5]
