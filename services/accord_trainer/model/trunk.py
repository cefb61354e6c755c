"""The transformer below the heads: hidden states of packed rows, and training of its upper blocks only.

Where the lower blocks are frozen their output does not change while a batch is worked on, so it is computed once (for
the old policy, the reference, and every epoch) and the upper blocks go on from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from accord.errors import InvalidArgument
from accord_trainer.model.packing import Packed


def find_blocks(module: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of transformer blocks in `module`: its holder, its name there, and itself."""
    found = [
        (holder, name, child)
        for holder in module.modules()
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) > 0
    ]
    if not found:
        raise InvalidArgument.at(
            "training.init", "has no list of transformer blocks; no such model can be trained here"
        )
    return max(found, key=lambda entry: sum(p.numel() for p in entry[2].parameters()))


class Trunk:
    """`module(tokens) -> hidden states` of a Hugging Face model, its blocks known.

    `frozen` lower blocks (and the embeddings below them) get no gradient; 0: everything is trained.
    """

    def __init__(self, module: nn.Module, *, trainable_layers: int = 0) -> None:
        self.module = module
        self._holder, self._name, self.blocks = find_blocks(module)
        if trainable_layers > len(self.blocks):
            raise InvalidArgument.at(
                "training.options.trainable_layers",
                f"is {trainable_layers}, but the model has {len(self.blocks)} blocks",
            )
        self.frozen = len(self.blocks) - trainable_layers if trainable_layers else 0
        config: Any = module.config
        # D, the length of a hidden state.
        self.width = int(config.hidden_size)

    def freeze(self) -> None:
        """Takes the gradient from the embeddings and the lower blocks; what lies above them (upper blocks, final norm,
        pooler) stays trained, unless its weights are tied to the embeddings."""
        if not self.frozen:
            return
        chosen = list(self.blocks[: self.frozen])
        for holder in {self.module, self._holder}:
            for child in holder.children():
                parts = list(child.modules())
                if self.blocks not in parts and any(isinstance(part, nn.Embedding) for part in parts):
                    chosen.append(child)
        for part in chosen:
            part.requires_grad_(False)

    def hidden(self, packed: Packed) -> Tensor:
        """The last hidden states, (W, T, D)."""
        attention = packed.attention
        config: Any = self.module.config
        if attention.ndim == 4 and config._attn_implementation == "eager":
            attention = torch.where(attention, 0.0, torch.finfo(torch.float32).min)
        output = self.module(
            input_ids=packed.tokens_WT, attention_mask=attention, position_ids=packed.positions_WT, use_cache=False
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    @torch.no_grad()
    def lower(self, packed: Packed) -> Tensor:
        """What the frozen blocks hand to the others, (W, T, D)."""
        caught: list[Tensor] = []
        hook = self.blocks[self.frozen - 1].register_forward_hook(
            lambda _module, _inputs, output: caught.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            with self._only(self.blocks[: self.frozen]):
                self.hidden(packed)
        finally:
            hook.remove()
        return caught[0]

    def upper(self, packed: Packed, lower_WTD: Tensor) -> Tensor:
        """The last hidden states, (W, T, D), going on from `lower`."""

        def enter(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if inputs:
                return (lower_WTD, *inputs[1:]), keywords
            return inputs, {**keywords, "hidden_states": lower_WTD}

        hook = self.blocks[self.frozen].register_forward_pre_hook(enter, with_kwargs=True)
        try:
            with self._only(self.blocks[self.frozen :]):
                return self.hidden(packed)
        finally:
            hook.remove()

    def share_lower(self, other: Trunk, *, release: bool = True) -> bool:
        """Whether everything below the upper blocks is equal in both; if so `other` lets go of its own copy, unless
        told not to (blocks that are spread over ranks have one owner).

        Only then does one computation of the frozen part serve both.
        """
        for mine, theirs in zip(self._below(), other._below(), strict=True):
            for (_, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
                if a.shape != b.shape or not torch.equal(a, b):
                    return False
        for index in range(self.frozen if release else 0):
            other.blocks[index] = self.blocks[index]
        return True

    def _below(self) -> list[nn.Module]:
        return [*(m for m in self.module.modules() if isinstance(m, nn.Embedding)), *self.blocks[: self.frozen]]

    @contextmanager
    def _only(self, blocks: Any) -> Iterator[None]:
        setattr(self._holder, self._name, nn.ModuleList(list(blocks)))
        try:
            yield
        finally:
            setattr(self._holder, self._name, self.blocks)
