"""Reward models over answers: one score for each, from its last token's state or from its mean state.

Answers to one prompt share its computation if the model supports it. M is the number of heads: 1, or the members of an
ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_models.loading import pooling_of, reward_head
from accord_models.reward_head import has_bare_head, head_tokens, pool
from accord_models.tokenizer import after_cut, answer_start, keep_end, pair_inputs, render_response
from accord_trainer.distributed.world import Passes, World, even_rounds, passing, unsharded
from accord_trainer.model.packing import Row, buckets, collate
from accord_trainer.model.trunk import Costs, Trunk, autocast, can_share


@dataclass(frozen=True)
class Answers:
    """The answers of one example as tokens: their common beginning, and the rest of each (never empty).

    `lengths`: tokens of each answer alone, uncut and without the template around it. `starts`: where each answer
    begins, counted from the first token of `common`.
    """

    common: tuple[int, ...]
    rest: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.common) + sum(map(len, self.rest))


def tokenize(tokenizer: PreTrainedTokenizerBase, example: trainer_v1.PreferenceExample, max_tokens: int) -> Answers:
    """Renders each answer after its prompt. Tokens beyond `max_tokens` are cut from the beginning, as in the reward
    service, so that training and scoring see the same tokens."""
    rendered = [render_response(tokenizer, example.prompt, response) for response in example.responses]
    whole = [tuple(keep_end(tokenizer, ids, max_tokens)) for ids in rendered]
    starts = tuple(
        after_cut(answer_start(tokenizer, example.prompt, ids), len(ids), len(kept))
        for ids, kept in zip(rendered, whole, strict=True)
    )
    shortest = min(map(len, whole))
    first = whole[0]
    common = next((i for i in range(shortest) if any(ids[i] != first[i] for ids in whole)), shortest)
    common = min(common, shortest - 1)  # each keeps at least one separate token, for its score
    lengths = tuple(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in example.responses)
    return Answers(first[:common], tuple(ids[common:] for ids in whole), lengths, starts)


class RewardScorer:
    """A reward model under training. Decoders score packed rows; encoders and others one answer a row."""

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
        self.tokenizer = tokenizer
        self.pad = int(tokenizer.pad_token_id or 0)
        self.compute_dtype = compute_dtype
        self.head = reward_head(model)
        self.members = self.head.out_features
        self.causal = has_bare_head(model)
        self.share = share and self.causal and can_share(trunk, self.pad)
        self.pooling = pooling_of(model.config)
        if self.pooling == "mean" and not self.causal:
            raise InvalidArgument.at(
                "training.options.pooling",
                f"must not be mean: {type(model).__name__} has its own pooling; leave it out",
            )
        self.costs = Costs(trunk, None)
        self.passes: Passes = unsharded

    def groups(self, answers: Sequence[Answers], max_tokens: int) -> list[list[int]]:
        """Indices of the examples of each pass: similar lengths, at most `max_tokens` with padding."""
        rows = [Row((0,) * len(one), (), (index,)) for index, one in enumerate(answers)]
        return [[row.members[0] for row in group] for group in buckets(rows, max_tokens)]

    @passing("passes")
    def scores(self, answers: Sequence[Answers]) -> list[Tensor]:
        """The scores of each example's answers, (M, K) each."""
        if self.share:
            rows = [Row(one.common, one.rest, tuple(range(len(one.rest)))) for one in answers]
        else:
            rows = [Row((), ((*one.common, *rest),), (0,)) for one in answers for rest in one.rest]
        self.costs.lower(rows)
        self.costs.upper(rows)
        device = self.head.weight.device
        packed = collate(rows, pad=self.pad, share=self.share).to(device)
        with autocast(self.compute_dtype, device.type):
            if self.causal:
                hidden_WTD = self.trunk.hidden(packed)
                pooled_ND = pool(hidden_WTD, self._tokens_read(answers, hidden_WTD.shape[1]))
            else:
                inputs = {"attention_mask": packed.attention, **pair_inputs(self.tokenizer, packed.tokens_WT)}
                scores_NM = self.model(input_ids=packed.tokens_WT, **inputs).logits
        if self.causal:
            # Not in bfloat16: differences of scores matter.
            scores_NM = self.head(pooled_ND)
        return list(scores_NM.float().cpu().t().split([len(one.rest) for one in answers], dim=1))

    def states(self, answers: Sequence[Answers]) -> list[Tensor]:
        """The head's inputs for each example's answers, (K, D) each, float32."""
        read: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
        try:
            self.scores(answers)
        finally:
            hook.remove()
        return list(read[-1].detach().float().cpu().split([len(one.rest) for one in answers]))  # type: ignore[no-untyped-call]

    def _tokens_read(self, answers: Sequence[Answers], width: int) -> list[list[int]]:
        """The positions in the packed rows, flattened, that the head reads for each answer, in order."""
        tokens: list[list[int]] = []
        row = 0
        for one in answers:
            common, earlier = len(one.common), 0
            for rest, start in zip(one.rest, one.starts or (0,) * len(one.rest), strict=True):
                read = head_tokens(self.pooling, start, common + len(rest))
                # The row contains the common tokens once, then the rest of each answer in order.
                tokens.append([row * width + at + (earlier if at >= common else 0) for at in read])
                if self.share:
                    earlier += len(rest)
                else:
                    row += 1
            row += self.share
        return tokens


class Gathered:
    """The scores of a whole batch, filled in by each rank for the examples that it processed."""

    def __init__(self, answers: Sequence[Answers], members: int) -> None:
        self._sizes = [len(one.rest) for one in answers]
        self._starts = [0, *accumulate(self._sizes)]
        self._scores_MN = torch.zeros(members, self._starts[-1])

    def put(self, example: int, scores_MK: Tensor) -> None:
        """The scores of one example."""
        self._scores_MN[:, self._starts[example] : self._starts[example + 1]] = scores_MK.detach()

    def all(self, world: World) -> list[Tensor]:
        """The scores of every example in order, (M, K) each, the same on all ranks."""
        return list(torch.split(world.sum(self._scores_MN), self._sizes, dim=1))


def score_all(
    scorer: RewardScorer, answers: Sequence[Answers], max_tokens: int, world: World, check: Callable[[], None]
) -> list[Tensor]:
    """The scores of every example, in order, (M, K) each, without gradient."""
    gathered = Gathered(answers, scorer.members)
    with torch.no_grad():
        for group in even_rounds(scorer.groups(answers, max_tokens), world):
            check()
            for index, scores_MK in zip(group.items, scorer.scores([answers[i] for i in group.items]), strict=True):
                if group.counts:
                    gathered.put(index, scores_MK)
    return gathered.all(world)
