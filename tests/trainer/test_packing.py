"""Sharing a prompt changes the cost and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedModel

from accord_models.loading import load_causal_lm, new_reward_model
from accord_models.tokenizer import load_tokenizer
from accord_trainer.model.packing import Packed, buckets, collate, make_rows, response_states
from accord_trainer.model.policy import output_head, token_logprobs
from accord_trainer.model.reward_scorer import Answers, RewardScorer
from accord_trainer.model.trunk import Trunk, can_share, head_gives_logits

PROMPTS = [[5, 6, 7, 8], [9, 10], [5, 6, 7, 8], [9, 10], [5, 6, 7, 8]]
RESPONSES = [[11, 12, 13], [14], [15, 16], [17, 18, 19, 20, 21], [11, 12, 13]]


def packed(share: bool) -> Packed:
    rows = make_rows(PROMPTS, RESPONSES, share=share, max_tokens=64, max_members=8)
    return collate(rows, pad=0, share=share)


def logprobs_by_member(model: PreTrainedModel, share: bool) -> dict[int, Tensor]:
    batch = packed(share)
    states, _ = response_states(Trunk(model.base_model).hidden(batch), batch)
    targets = torch.cat(batch.responses)
    found, _ = token_logprobs(states, targets, torch.full(targets.shape, 0.7), output_head(model), entropy=False)
    return dict(zip(batch.members, torch.split(found, [len(r) for r in batch.responses]), strict=True))


def test_rows_hold_a_prompt_once_and_every_response() -> None:
    rows = make_rows(PROMPTS, RESPONSES, share=True, max_tokens=64, max_members=8)
    assert [row.members for row in rows] == [(0, 2, 4), (1, 3)]
    assert [len(row) for row in rows] == [4 + 3 + 2 + 3, 2 + 1 + 5]


def test_rows_are_bounded_in_tokens_and_members() -> None:
    by_tokens = make_rows(PROMPTS, RESPONSES, share=True, max_tokens=10, max_members=8)
    assert [row.members for row in by_tokens] == [(0, 2), (1, 3), (4,)]
    by_members = make_rows(PROMPTS, RESPONSES, share=True, max_tokens=64, max_members=1)
    assert len(by_members) == len(PROMPTS)


def test_buckets_bound_the_padded_size() -> None:
    rows = make_rows(PROMPTS, RESPONSES, share=False, max_tokens=64, max_members=8)
    groups = buckets(rows, 14)
    assert sorted(row.members[0] for group in groups for row in group) == list(range(5))
    assert all(len(group) * max(map(len, group)) <= 14 for group in groups)


def test_packed_logprobs_and_gradients_equal_the_unpacked_ones(tiny_folder: Path) -> None:
    gradients = []
    values = []
    for share in (True, False):
        model = load_causal_lm(tiny_folder)
        found = logprobs_by_member(model, share)
        torch.cat([found[i] * (i + 1) for i in range(5)]).sum().backward()  # type: ignore[no-untyped-call]
        values.append(torch.cat([found[i].detach() for i in range(5)]))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(values[0], values[1], atol=1e-5)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_logprobs_are_those_of_the_model_itself_at_the_temperature(tiny_folder: Path) -> None:
    model = load_causal_lm(tiny_folder)
    found = logprobs_by_member(model, share=True)
    for member, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
        assert torch.allclose(found[member], expected, atol=1e-5)


def test_a_response_sees_no_other_response(tiny_folder: Path) -> None:
    model = load_causal_lm(tiny_folder)
    before = logprobs_by_member(model, share=True)[4]
    RESPONSES[0][1] = 200
    after = logprobs_by_member(model, share=True)[4]
    RESPONSES[0][1] = 12
    assert torch.equal(before, after)


@pytest.mark.parametrize("share", [True, False])
def test_lower_then_upper_blocks_give_what_all_blocks_give(tiny_folder: Path, share: bool) -> None:
    trunk = Trunk(load_causal_lm(tiny_folder).base_model, trainable_layers=1)
    batch = packed(share)
    whole = trunk.hidden(batch)
    assert torch.equal(trunk.upper(batch, trunk.lower(batch)), whole)
    assert len(trunk.blocks) == 2


def test_the_self_checks_tell_models_apart(tiny_folder: Path) -> None:
    model = load_causal_lm(tiny_folder)
    trunk = Trunk(model.base_model)
    assert can_share(trunk, pad=0)
    assert head_gives_logits(model, trunk, output_head(model))
    assert not head_gives_logits(model, trunk, torch.nn.Linear(32, 300))
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    encoder = BertModel(config, add_pooling_layer=False).eval()
    assert not can_share(Trunk(encoder), pad=0)


@pytest.mark.parametrize("share", [True, False])
def test_scores_are_those_of_the_published_classifier(tiny_folder: Path, share: bool) -> None:
    model = new_reward_model(tiny_folder, seed=3)
    tokenizer = load_tokenizer(tiny_folder)
    scorer = RewardScorer(model, Trunk(model.base_model), tokenizer, "float32", share=share)
    assert scorer.share is share
    answers = [Answers((5, 6, 7), ((8, 9), (10,), (11, 12, 13))), Answers((), ((8, 9), (10,)))]
    found = torch.cat(scorer.scores(answers), dim=1)[0]
    whole = [torch.tensor([[*one.common, *rest]]) for one in answers for rest in one.rest]
    expected = torch.cat([model(input_ids=ids).logits[:, 0] for ids in whole])
    assert torch.allclose(found, expected, atol=1e-5)
