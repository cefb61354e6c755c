"""Prefix sharing: the responses to one prompt in one row, [prompt | response | response | ...].

The prompt is computed once for all its responses. An attention mask lets every response see only the prompt and itself,
and position ids of each response continue from the prompt, so the numbers equal those of separate rows up to rounding.
Models without support for such a mask get one response a row (`share=False`) through the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Row:
    """One prompt and responses to it; `members` are the indices of the responses in the batch."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    members: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True)
class Packed:
    """W rows of T tokens, padded on the right, ready for a model.

    `attention` is (W, 1, T, T), true where a query (third) may see a key (fourth); of unshared rows it is the plain
    (W, T) mask. `states` holds for each response, in the order of `members`, the flat (W * T) positions of the state
    before each of its tokens and of the state after the last: one more than its number of tokens.
    """

    tokens_WT: Tensor
    positions_WT: Tensor
    attention: Tensor
    states: tuple[Tensor, ...]
    responses: tuple[Tensor, ...]
    members: tuple[int, ...]

    def to(self, device: torch.device) -> Packed:
        """The same on `device`."""
        return Packed(
            self.tokens_WT.to(device),
            self.positions_WT.to(device),
            self.attention.to(device),
            tuple(states.to(device) for states in self.states),
            tuple(response.to(device) for response in self.responses),
            self.members,
        )


def make_rows(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    share: bool,
    max_tokens: int,
    max_members: int,
) -> list[Row]:
    """Rows for responses[i] to prompts[i], in order of first appearance; equal prompts share rows of at most
    `max_members` responses and `max_tokens` tokens (a single response may be longer)."""
    open_rows: dict[tuple[int, ...], int] = {}
    rows: list[Row] = []
    for member, (prompt_ids, response_ids) in enumerate(zip(prompts, responses, strict=True)):
        prompt, response = tuple(prompt_ids), tuple(response_ids)
        at = open_rows.get(prompt) if share else None
        row = rows[at] if at is not None else None
        if at is not None and row and len(row) + len(response) <= max_tokens and len(row.members) < max_members:
            rows[at] = Row(prompt, (*row.responses, response), (*row.members, member))
        else:
            open_rows[prompt] = len(rows)
            rows.append(Row(prompt, (response,), (member,)))
    return rows


def buckets(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Groups of rows of similar length, each at most `max_tokens` with its padding (a single row may be longer)."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=len, reverse=True):
        if groups and len(groups[-1][0]) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def collate(rows: Sequence[Row], *, pad: int, share: bool) -> Packed:
    """Rows as tensors. With `share` the mask has four dimensions; pads see pads, so that every query sees a key."""
    width = max(map(len, rows))
    tokens_WT = torch.full((len(rows), width), pad, dtype=torch.long)
    positions_WT = torch.zeros((len(rows), width), dtype=torch.long)
    segments_WT = torch.full((len(rows), width), -1, dtype=torch.long)  # 0 the prompt, k the k-th response, -1 pads
    states: list[Tensor] = []
    responses: list[Tensor] = []
    for w, row in enumerate(rows):
        start = len(row.prompt)
        tokens_WT[w, : len(row)] = torch.tensor([*row.prompt, *(token for r in row.responses for token in r)])
        positions_WT[w, :start] = torch.arange(start)
        segments_WT[w, :start] = 0
        for segment, response in enumerate(row.responses, start=1):
            end = start + len(response)
            positions_WT[w, start:end] = torch.arange(len(row.prompt), len(row.prompt) + len(response))
            segments_WT[w, start:end] = segment
            before_first = max(len(row.prompt) - 1, 0)
            states.append(w * width + torch.tensor([before_first, *range(start, end)]))
            responses.append(torch.tensor(response))
            start = end
    real_WT = segments_WT >= 0
    attention = real_WT.long()
    if share:
        query_W1T1, key_W11T = segments_WT[:, None, :, None], segments_WT[:, None, None, :]
        causal_TT = torch.ones(width, width, dtype=torch.bool).tril()
        attention = causal_TT & ((key_W11T == query_W1T1) | ((key_W11T == 0) & (query_W1T1 > 0)))
    members = tuple(member for row in rows for member in row.members)
    return Packed(tokens_WT, positions_WT, attention, tuple(states), tuple(responses), members)


def response_states(hidden_WTD: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """The states before each response token, (N, D), all responses in turn, and after each response, (B, D)."""
    flat_ND = hidden_WTD.flatten(0, 1)
    before_N = torch.cat([states[:-1] for states in packed.states])
    after_B = torch.stack([states[-1] for states in packed.states])
    # index_select, unlike indexing, adds gradients up in a fixed order: repeats are bit-equal.
    return flat_ND.index_select(0, before_N), flat_ND.index_select(0, after_B)


def pad(values_N: Tensor, lengths: Sequence[int], width: int) -> Tensor:
    """Flat per-token values as (B, width), 0 at the pads."""
    padded_BR = nn.utils.rnn.pad_sequence(list(torch.split(values_N, list(lengths))), batch_first=True)
    return functional.pad(padded_BR, (0, width - padded_BR.shape[1]))
