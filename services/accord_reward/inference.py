"""A reward model in memory: tokenises, batches by length, scores. The only module of this service that needs torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from accord.errors import AccordError
from accord_models.loading import ensemble_size, load_reward_model, pooling_of, reward_head
from accord_models.precision import compute_threads, resolve_dtype
from accord_models.reward_head import has_bare_head, head_tokens, pool
from accord_models.tokenizer import (
    after_cut,
    answer_start,
    keep_end,
    load_tokenizer,
    pair_inputs,
    reading_limit,
    render_response,
)
from accord_reward.scorer import Item, ItemFailure, Outcome

log = logging.getLogger(__name__)
_LONGEST_TO_SHORTEST = 1.25


class RewardModel:
    """A loaded sequence classifier with one output, or an ensemble's: the service's `RewardModelHandle`.

    Not thread-safe: one worker thread at a time may use it.
    """

    def __init__(self, folder: Path, dtype: str = "float32", threads: int = 0) -> None:
        """Loads `folder`, eval mode, no dropout. `dtype`: float32, bfloat16 or auto. InvalidArgument/BAD_MODEL."""
        compute_threads(threads)
        self._model = load_reward_model(folder, resolve_dtype(dtype), members=True)
        self._tokenizer = load_tokenizer(folder)
        config = self._model.config
        if config.pad_token_id is None:
            # Decoders find the last real token by the pad id, and refuse batches without one.
            config.pad_token_id = self._tokenizer.pad_token_id
        self._pad = int(config.pad_token_id)
        self.max_tokens = reading_limit(config, self._tokenizer)
        self.members = ensemble_size(config)
        self._pooling = pooling_of(config)
        self._head = reward_head(self._model)
        self._bare_head = has_bare_head(self._model)

    def score(
        self, items: Sequence[Item], max_batch_tokens: int, max_length: int | None = None, member: int | None = None
    ) -> list[Outcome]:
        """One raw score per item, in order, or a failure if the model's chat template refuses the conversation.

        An ensemble gives the mean of its members, or the score of one `member`.

        The model reads the last min(max_length, max_tokens) tokens. Only the items determine which of them share a
        forward pass, so the same items give the same bits.
        """
        limit = min(max_length or self.max_tokens, self.max_tokens)
        outcomes: dict[int, Outcome] = {}
        tokens: dict[int, list[int]] = {}
        starts: dict[int, int] = {}
        cut = 0
        for index, item in enumerate(items):
            try:
                ids = render_response(self._tokenizer, item.prompt, item.response)
            except AccordError as error:
                outcomes[index] = ItemFailure(error.message, reason=error.reason)
                continue
            cut += len(ids) > limit
            tokens[index] = keep_end(self._tokenizer, ids, limit)
            if self._pooling == "mean":
                start = answer_start(self._tokenizer, item.prompt, ids)
                starts[index] = after_cut(start, len(ids), len(tokens[index]))
        if cut:
            log.info("%d of %d items were longer than %d tokens; their beginnings were cut off", cut, len(items), limit)
        for batch in by_length(tokens, max_batch_tokens):
            scores = self._forward(
                [tokens[index] for index in batch], [starts[index] for index in batch if starts], member
            )
            outcomes.update(zip(batch, scores, strict=True))
        return [outcomes[index] for index in range(len(items))]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special tokens."""
        return [len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]

    @torch.inference_mode()
    def _forward(self, token_ids: Sequence[list[int]], starts: Sequence[int], member: int | None) -> list[float]:
        """Scores of one padded batch. `starts`: the start of each response, if the head reads the mean of its states.

        Pads on the right, so the position ids of the real tokens are 0, 1, 2, ...
        """
        width = max(len(ids) for ids in token_ids)
        device = self._model.device
        ids_BT = torch.full((len(token_ids), width), self._pad, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for row, ids in enumerate(token_ids):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT, **pair_inputs(self._tokenizer, ids_BT)}
        given = {name: tensor.to(device) for name, tensor in inputs.items()}
        responses = zip(starts or [0] * len(token_ids), token_ids, strict=True)
        tokens = [
            [row * width + at for at in head_tokens(self._pooling, start, len(ids))]
            for row, (start, ids) in enumerate(responses)
        ]
        if self._pooling == "mean":
            pooled_BD = pool(self._model.base_model(**given).last_hidden_state, tokens)
            # Not in bfloat16: only differences of scores matter.
            logits_BM = torch.nn.functional.linear(pooled_BD, self._head.weight.float())
        elif self._bare_head:
            logits_BM = pool(self._head(self._model.base_model(**given).last_hidden_state), tokens)
        else:
            logits_BM = self._model(**given).logits.float()
        scores: list[float] = (logits_BM.mean(-1) if member is None else logits_BM[:, member]).tolist()
        return scores


def by_length(tokens: dict[int, list[int]], max_batch_tokens: int) -> Iterator[list[int]]:
    """The keys in batches, shortest first: at most `max_batch_tokens` with padding, or one item.

    A batch also ends before an item that is much longer than its first: on a CPU padding costs as much as tokens.
    """
    batch: list[int] = []
    for index in sorted(tokens, key=lambda index: (len(tokens[index]), index)):
        length = len(tokens[index])
        if batch and (
            (len(batch) + 1) * length > max_batch_tokens or length > _LONGEST_TO_SHORTEST * len(tokens[batch[0]]) + 8
        ):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
