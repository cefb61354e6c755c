"""dpo: the loss by hand, and what training on a tiny model must show."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, pairs, request_id, trainer, training

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm
from accord_models.tokenizer import load_tokenizer
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.dpo import DPO, DpoOptions
from accord_trainer.data.demonstrations import prompt_and_response
from accord_trainer.objectives.dpo import dpo_loss

D_N = torch.tensor([2.0, -1.0], dtype=torch.float64)


def make(folder: Path, **options: object) -> DPO:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32")
    return DPO(start, DpoOptions.model_validate({**TINY, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def ranking() -> trainer_v1.PreferenceExample:
    """Three answers, the first two of them tied."""
    return trainer_v1.PreferenceExample(
        prompt=types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content="well?")]),
        responses=["very good", "good indeed", "bad"],
        ranks=trainer_v1.Ranks(values=[0, 0, 1]),
        weight=0.5,
    )


def test_losses_by_hand() -> None:
    sigmoid = [math.log1p(math.exp(-0.1 * 2)), math.log1p(math.exp(0.1))]
    assert dpo_loss(D_N, beta=0.1, kind="sigmoid").tolist() == pytest.approx(sigmoid)
    smoothed = 0.8 * sigmoid[0] + 0.2 * math.log1p(math.exp(0.2))
    assert float(dpo_loss(D_N, beta=0.1, kind="sigmoid", label_smoothing=0.2)[0]) == pytest.approx(smoothed)
    assert dpo_loss(D_N, beta=0.5, kind="ipo").tolist() == pytest.approx([(2 - 1) ** 2, (-1 - 1) ** 2])
    assert dpo_loss(D_N, beta=1.0, kind="hinge").tolist() == pytest.approx([0, 2])


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "hinge"])
def test_gradients_numerically(kind: str) -> None:
    given = D_N.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda d: dpo_loss(d, beta=0.3, kind=kind, label_smoothing=0.1), given)


def test_at_the_start_nothing_is_preferred_and_the_loss_is_log_two(tiny_folder: Path) -> None:
    metrics = make(tiny_folder).evaluate(Experience([], pairs(4)), context())
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["chosen_reward"] == pytest.approx(0, abs=1e-5)
    assert metrics["pairs"] == 4


def test_log_probabilities_are_those_of_the_whole_text(tiny_folder: Path) -> None:
    """Against the model on prompt and response alone, token by token, in float64."""
    example = pairs(1)[0]
    tokenizer, model = load_tokenizer(tiny_folder), load_causal_lm(tiny_folder).double()
    expected = []
    for text in example.responses:
        prompt, response = prompt_and_response(tokenizer, example.prompt, text, 500, "")
        assert response[-1] == tokenizer.eos_token_id
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        expected.append(float(logits.detach().log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum()))
    metrics = make(tiny_folder).evaluate(Experience([], [example]), context())
    assert [metrics["chosen_logprob"], metrics["rejected_logprob"]] == pytest.approx(expected, rel=1e-5)


def test_parts_and_prefixes_change_nothing(tiny_folder: Path) -> None:
    found = []
    batch = Experience([], [*pairs(3), ranking()])
    for options in ({"micro_batch_tokens": 8}, {"micro_batch_tokens": 10_000}, {"share_prefixes": False}):
        dpo = make(tiny_folder, adam_epsilon=1e-3, **options)
        dpo.step(batch, context())
        found.append(torch.cat([weight.flatten() for weight in dpo.state().weights.values()]))
    before = torch.cat([weight.flatten() for weight in make(tiny_folder).state().weights.values()])
    assert torch.allclose(found[0], found[1], atol=2e-5)
    assert torch.allclose(found[0], found[2], atol=2e-5)
    assert not torch.allclose(found[0], before, atol=1e-4)


def test_a_ranking_counts_as_its_ordered_pairs_and_a_tie_as_none(tiny_folder: Path) -> None:
    dpo = make(tiny_folder)
    assert dpo.evaluate(Experience([], [ranking()]), context())["pairs"] == 2
    tied = ranking()
    tied.ranks.values[:] = [0, 0, 0]
    with pytest.raises(InvalidArgument, match="no pair of differently ranked answers"):
        dpo.check(Experience([], [tied]))


def test_an_answer_that_was_cut_off_has_no_end(tiny_folder: Path) -> None:
    dpo, cut = make(tiny_folder), pairs(1)[0]
    before = dpo.evaluate(Experience([], [cut]), context())["tokens"]
    cut.truncated.extend([False, True])
    assert dpo.evaluate(Experience([], [cut]), context())["tokens"] == before - 1


def test_a_response_is_never_cut(tiny_folder: Path) -> None:
    long = pairs(2)
    long[1].responses[1] = "word " * 40
    with pytest.raises(InvalidArgument) as refused:
        make(tiny_folder, max_tokens=32).check(Experience([], long))
    assert refused.value.violations[0].field == "chunk.preferences[1].responses[1]"


@pytest.mark.parametrize("options", [{}, {"loss": "ipo"}, {"loss": "hinge"}, {"lora_rank": 4, "learning_rate": 1e-2}])
async def test_it_learns_the_preference_through_the_service(
    tiny_folder: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder, algorithm="dpo", options=options))
        accuracy = []
        for version in range(6):
            put = await client.trainer.put_experience("t", preferences=pairs(8))
            result = await client.trainer.step("t", put.batch_id, parent_version=version, request_id=request_id())
            accuracy.append(result.metrics["accuracy"])
            assert 0 <= result.metrics["accuracy/set1"] <= 1
        assert accuracy[-1] == 1.0
        assert result.metrics["reward_margin"] > 0
