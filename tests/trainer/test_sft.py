"""sft: the loss is the text's own, and the model learns to say what was demonstrated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, pairs, request_id, trainer, training

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm
from accord_models.tokenizer import load_tokenizer, render
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.sft import SFT, SftOptions
from accord_trainer.data.demonstrations import prompt_and_response


def user(text: str) -> types_v1.Conversation:
    return types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=text)])


def demonstration(question: str, answer: str, weight: float = 1.0) -> trainer_v1.PreferenceExample:
    return trainer_v1.PreferenceExample(
        prompt=user(question), responses=[answer], ratings=trainer_v1.Ratings(values=[1.0]), weight=weight
    )


def make(folder: Path, **options: object) -> SFT:
    start = Start(folder, None, None, True, seed=0, compute_dtype="float32")
    return SFT(start, SftOptions.model_validate({**TINY, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def test_the_loss_is_the_weighted_token_mean_of_the_responses(tiny_folder: Path) -> None:
    """Against the model on each text alone, in float64; prompts have no part in it."""
    examples = [demonstration("a day?", "good", 2.0), demonstration("and a night?", "a long one, and dark", 0.5)]
    tokenizer, model = load_tokenizer(tiny_folder), load_causal_lm(tiny_folder).double()
    loss, tokens = 0.0, 0.0
    for example in examples:
        prompt, response = prompt_and_response(tokenizer, example.prompt, example.responses[0], 500, "")
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].detach()
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])
        loss, tokens = loss - example.weight * float(chosen.sum()), tokens + example.weight * len(response)
    metrics = make(tiny_folder).evaluate(Experience([], examples), context())
    assert metrics["loss"] == pytest.approx(loss / tokens, rel=1e-5)
    assert metrics["samples"] == 2


def test_parts_and_prefixes_change_nothing(tiny_folder: Path) -> None:
    found = []
    batch = Experience([], [*pairs(3), demonstration("how was day 0", "fine"), demonstration("x", "a longer one", 3.0)])
    for options in ({"micro_batch_tokens": 8}, {"micro_batch_tokens": 10_000}, {"share_prefixes": False}):
        sft = make(tiny_folder, adam_epsilon=1e-3, **options)
        sft.step(batch, context())
        found.append(torch.cat([weight.flatten() for weight in sft.state().weights.values()]))
    assert torch.allclose(found[0], found[1], atol=2e-5)
    assert torch.allclose(found[0], found[2], atol=2e-5)


def test_of_preferences_the_best_answers_are_taken(tiny_folder: Path) -> None:
    example = pairs(1)[0]
    alone = demonstration("how was day 0", example.responses[0])
    sft = make(tiny_folder)
    both = [sft.evaluate(Experience([], [one]), context())["loss"] for one in (example, alone)]
    assert both[0] == pytest.approx(both[1])
    example.ranks.values[:] = [0, 0]
    assert sft.evaluate(Experience([], [example]), context())["samples"] == 2


def test_no_end_is_learned_where_an_answer_was_cut_off(tiny_folder: Path) -> None:
    whole, cut = demonstration("x", "and then"), demonstration("x", "and then")
    cut.truncated.append(True)
    sft = make(tiny_folder)
    tokens = [sft.evaluate(Experience([], [one]), context())["tokens"] for one in (whole, cut)]
    assert tokens[1] == tokens[0] - 1
    assert sft._demonstrations([whole])[0].response == (
        *sft._demonstrations([cut])[0].response,
        sft.tokenizer.eos_token_id,
    )


def test_what_cannot_be_learned_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    sft = make(tiny_folder, max_tokens=16)
    with pytest.raises(InvalidArgument) as refused:
        sft.check(Experience([], [demonstration("x", "word " * 40)]))
    assert refused.value.violations[0].field == "chunk.preferences[0].responses[0]"
    with pytest.raises(InvalidArgument, match="no answer with a weight above 0"):
        sft.check(Experience([], [demonstration("x", "y", 0.0)]))
    for reference, critic in ((tiny_folder, None), (None, tiny_folder)):
        with pytest.raises(InvalidArgument, match="leave it unset"):
            SFT(Start(tiny_folder, reference, critic, False, seed=0, compute_dtype="float32"), SftOptions())


async def test_the_published_model_gives_the_demonstrated_answer(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        options = {"learning_rate": 1e-2}
        await client.trainer.create_training(training(tiny_folder, algorithm="sft", options=options))
        put = await client.trainer.put_experience("t", preferences=[demonstration("how are you?", "very well")])
        losses = []
        for version in range(12):
            result = await client.trainer.step(
                "t", put.batch_id, parent_version=version, request_id=request_id(), publish=version == 11
            )
            losses.append(result.metrics["loss"])
    assert losses[-1] < 0.5 * losses[0]
    folder = Path(result.weights.uri.removeprefix("file://"))
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder)
    ids = torch.tensor([render(tokenizer, user("how are you?"))])
    said = model.generate(ids, do_sample=False, max_new_tokens=12, attention_mask=torch.ones_like(ids))
    assert tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True) == "very well"
