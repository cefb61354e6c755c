"""Reward models over answers: one score for each, at its last token; answers to one prompt share it where they can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.trainer import v1 as trainer_v1
from accord_models.loading import reward_head
from accord_models.tokenizer import keep_end, render_response
from accord_trainer.forward import autocast, response_states
from accord_trainer.prefix import Row, buckets, collate
from accord_trainer.selfcheck import can_share
from accord_trainer.trunk import Trunk


@dataclass(frozen=True)
class Answers:
    """The answers of one example as tokens: what they begin with in common, and how each goes on (never empty)."""

    common: tuple[int, ...]
    rest: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.common) + sum(map(len, self.rest))


def tokenize(tokenizer: PreTrainedTokenizerBase, example: trainer_v1.PreferenceExample, max_tokens: int) -> Answers:
    """Renders each answer after its prompt. What is over `max_tokens` is cut from the beginning, as in the reward
    service, so that a model is scored on what it was trained on."""
    whole = [
        tuple(keep_end(tokenizer, render_response(tokenizer, example.prompt, response), max_tokens))
        for response in example.responses
    ]
    shortest = min(map(len, whole))
    first = whole[0]
    common = next((i for i in range(shortest) if any(ids[i] != first[i] for ids in whole)), shortest)
    common = min(common, shortest - 1)  # each keeps a token of its own to be scored at
    return Answers(first[:common], tuple(ids[common:] for ids in whole))


class Scorer:
    """A reward model that is trained. Decoders score packed rows; encoders and others one answer a row."""

    def __init__(
        self,
        model: PreTrainedModel,
        trunk: Trunk,
        tokenizer: PreTrainedTokenizerBase,
        compute_dtype: str,
        *,
        share: bool,
    ) -> None:
        self.model = model
        self.trunk = trunk
        self.pad = int(tokenizer.pad_token_id or 0)
        self.compute_dtype = compute_dtype
        self.head = reward_head(model)
        # A causal trunk with a bare head: the score is the head's output at the last token.
        self.causal = getattr(model, "score", None) is self.head
        self.share = share and self.causal and can_share(trunk, self.pad)

    def groups(self, answers: Sequence[Answers], max_tokens: int) -> list[list[int]]:
        """Indices of examples that go through together: like lengths, at most `max_tokens` with padding."""
        rows = [Row((0,) * len(one), (), (index,)) for index, one in enumerate(answers)]
        return [[row.members[0] for row in group] for group in buckets(rows, max_tokens)]

    def scores(self, answers: Sequence[Answers]) -> list[Tensor]:
        """The scores of each example's answers, (K,) each."""
        if self.share:
            rows = [Row(one.common, one.rest, tuple(range(len(one.rest)))) for one in answers]
        else:
            rows = [Row((), ((*one.common, *rest),), (0,)) for one in answers for rest in one.rest]
        packed = collate(rows, pad=self.pad, share=self.share)
        with autocast(self.compute_dtype):
            if self.causal:
                _, last_ND = response_states(self.trunk.hidden(packed), packed)
                scores_N = self.head(last_ND)[:, 0]
            else:
                scores_N = self.model(input_ids=packed.tokens_WT, attention_mask=packed.attention).logits[:, 0]
        return list(scores_N.float().split([len(one.rest) for one in answers]))


def score_all(scorer: Scorer, answers: Sequence[Answers], max_tokens: int, check: Callable[[], None]) -> list[Tensor]:
    """The scores of every example, in order, without gradient."""
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for group in scorer.groups(answers, max_tokens):
            check()
            found.update(zip(group, scorer.scores([answers[i] for i in group]), strict=True))
    return [found[i] for i in range(len(answers))]


def head_parameters(model: PreTrainedModel) -> list[nn.Module]:
    """The parts of a reward model outside its trunk."""
    trunk = {id(module) for module in model.base_model.modules()}
    return [child for child in model.children() if id(child) not in trunk]
