"""ilql publishes a plain language model, whose logits are those of pi_beta plus beta Q, and engines sample from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.rollout import generate_request, rollout_service, samples, user
from tests.support.rollout import weights_ref as rollout_ref
from tests.support.trainer import TINY, request_id, trainer, training
from transformers import GPT2Config, GPT2LMHeadModel, PhiConfig, PhiForCausalLM

from accord.rollout import v1 as rollout_v1
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm
from accord_models.publishing import save_model
from accord_models.tokenizer import load_tokenizer
from accord_runtime.artifacts.transports.file import local_path
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ilql import ILQL, IlqlOptions
from accord_trainer.model.ilql_export import guided
from accord_trainer.trainings.weights_digest import published_digest

pytestmark = pytest.mark.process

IDS = torch.tensor([[5, 6, 7, 8, 100]])
GOOD, BAD = "good", "bad"


def said(question: str, answer: str, rating: float) -> trainer_v1.PreferenceExample:
    return trainer_v1.PreferenceExample(
        prompt=user(question), responses=[answer], ratings=trainer_v1.Ratings(values=[rating])
    )


def behaviour() -> list[trainer_v1.PreferenceExample]:
    """Two answers, said equally often; people rate one of them 1 and the other 0."""
    return [said(f"how was day {i}", answer, float(answer == GOOD)) for i in range(2) for answer in (GOOD, BAD)]


def make(folder: Path, beta: float, **options: object) -> ILQL:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32")
    ilql = ILQL(start, IlqlOptions.model_validate({**TINY, "value_learning_rate": 1e-2, "beta": beta, **options}))
    for _ in range(3):
        ilql.step(Experience([], behaviour()), StepContext(0, torch.Generator(), lambda: None))
    return ilql


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"lora_rank": 2, "learning_rate": 1e-2}])
def test_published_logits_are_the_models_plus_beta_q(
    tiny_folder: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with torch.enable_grad():
        ilql = make(tiny_folder, beta=3.0, **options)
    published = ilql.merged()
    assert save_model(published, ilql.tokenizer, tmp_path / "out", "float32") == published_digest(published, "float32")
    model: Any = ilql.policy.model
    hidden, logits = model.model(IDS).last_hidden_state, model(IDS).logits
    q = (hidden @ ilql.policy.q.first.weight.T + hidden @ ilql.policy.q.second.weight.T) / 2
    found = load_causal_lm(tmp_path / "out")(IDS).logits
    assert torch.allclose(found, logits + 3.0 * q, atol=2e-5)
    assert float((found - logits).abs().max()) > 0.1
    # Engines that go by the config alone must not take the embeddings for the head.
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    # The training continues with its own head, tied as before.
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings


@torch.no_grad()
def test_before_any_step_it_is_the_model_itself(tiny_folder: Path) -> None:
    start = Start(tiny_folder, None, None, True, seed=0, compute_dtype="float32")
    ilql = ILQL(start, IlqlOptions(beta=8.0))
    assert torch.equal(ilql.merged()(IDS).logits, load_causal_lm(tiny_folder)(IDS).logits)
    assert float(ilql.policy.q.first.weight.abs().max()) > 0  # the two heads differ, or they would be one for ever
    assert not torch.equal(ilql.policy.q.first.weight, ilql.policy.q.second.weight)


@torch.no_grad()
@pytest.mark.parametrize(
    "model",
    [
        PhiForCausalLM(
            PhiConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
        ),  # its head has a bias
        GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2)),
    ],
    ids=["phi", "gpt2"],
)
def test_other_architectures_come_back_from_disk(model: Any, tiny_folder: Path, tmp_path: Path) -> None:
    model.train(False)
    head = model.get_output_embeddings()
    if head.bias is not None:
        head.bias.normal_()
    q_weight = torch.randn(300, 32)
    save_model(guided(model, q_weight, 0.5), load_tokenizer(tiny_folder), tmp_path / "out", "float32")
    expected = model(IDS).logits + 0.5 * model.base_model(IDS).last_hidden_state @ q_weight.T
    assert torch.allclose(load_causal_lm(tmp_path / "out")(IDS).logits, expected, atol=2e-5)


async def test_sampled_answers_are_better_than_the_data_that_were_learned_from(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """The same training, published without and with guidance, sampled by the engine: the first says what the data say,
    the second what people like."""
    rewards = {}
    async with (
        trainer(tmp_path / "trainer", max_loaded=2) as client,
        rollout_service(tmp_path / "rollout") as (stub, _),
    ):
        first = rollout_v1.UpdateWeightsRequest(request_id=request_id(), weights=rollout_ref(tiny_folder))
        await stub.UpdateWeights(first)  # a tied model: what comes next must not be copied into its embeddings
        for beta in (0.0, 8.0):
            name = f"beta{beta:.0f}"
            options = {"learning_rate": 1e-2, "value_learning_rate": 1e-2, "beta": beta, "polyak": 0.3}
            await client.trainer.create_training(training(tiny_folder, name, algorithm="ilql", options=options))
            put = await client.trainer.put_experience(name, preferences=behaviour())
            for version in range(80):
                result = await client.trainer.step(
                    name, put.batch_id, parent_version=version, request_id=request_id(), publish=version == 79
                )
            await stub.UpdateWeights(rollout_v1.UpdateWeightsRequest(request_id=request_id(), weights=result.weights))
            wanted = generate_request(
                [f"how was day {i}" for i in range(2)],
                request_id(),
                n=32,
                sampling=types_v1.SamplingParams(max_new_tokens=8),
            )
            drawn = list((await samples(stub, wanted)).values())
            rewards[beta] = sum(sample.text == GOOD for sample in drawn) / len(drawn)
            # Their log-probabilities are those of the published folder, read by itself.
            sample = drawn[0]
            ids = torch.tensor([[*sample.prompt_token_ids, *sample.response_token_ids]])
            with torch.no_grad():
                logits = load_causal_lm(local_path(result.weights.uri))(ids).logits[0]
            expected = logits.log_softmax(-1)[len(sample.prompt_token_ids) - 1 : -1]
            chosen = expected.gather(1, ids[0, len(sample.prompt_token_ids) :, None])[:, 0]
            assert torch.allclose(torch.tensor(list(sample.logprobs)), chosen, atol=1e-4)
    assert 0.2 < rewards[0.0] < 0.7, rewards
    assert rewards[8.0] > rewards[0.0] + 0.25, rewards
