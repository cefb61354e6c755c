"""The transformer below the heads: its trained part, the execution of its blocks, and the cost of its passes.

- Frozen lower blocks: their output does not change while a batch is processed, so it is computed once (for the old
  policy, the reference and every epoch), and the upper blocks continue from it.
- LoRA: Hu et al. 2021, arXiv 2106.09685.
- Compilation and activation checkpointing wrap only a block's `forward`. Hooks of the module (the boundary of the
  frozen blocks, FSDP2's gathering) stay outside, and the names of parameters do not change.
- Costs: the model side of MFU (model FLOPs utilisation, Chowdhery et al. 2022, PaLM, arXiv 2204.02311, appendix B): the
  operations that the model's mathematics need. Padding, recomputation, norms and softmax do not count; each matrix
  entry costs 2 operations a token. With N entries and L blocks of attention width W:
  - forward: 2 N a token, and 4 L W for each token that a token sees (itself, and in a packed row only its own prompt
    and response: half of the square, which PaLM counts whole);
  - backward: 2 N more for the gradient of the inputs, 2 N more if the weights are trained, twice the attention's;
  - logits: of response tokens only. Frozen lower blocks: computed once a step, no backward pass.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from accord.errors import FailedPrecondition, InvalidArgument
from accord_trainer.algorithm import AlgorithmOptions
from accord_trainer.model.packing import Packed, Row, collate, make_rows, response_states

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger(__name__)
_PROMPTS = [[1, 2, 3], [1, 2, 3], [4, 5]]
_RESPONSES = [[4, 5], [6, 2, 1], [3]]
_TOLERANCE = 1e-3


def find_blocks(module: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of transformer blocks in `module`: the parent module, the name in the parent, and the list."""
    found = [
        (holder, name, child)
        for holder in module.modules()
        for name, child in holder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) > 0
    ]
    if not found:
        raise InvalidArgument.at("training.init", "has no list of transformer blocks, so it cannot be trained")
    return max(found, key=lambda entry: sum(p.numel() for p in entry[2].parameters()))


class Trunk:
    """`module(tokens) -> hidden states` of a Hugging Face model, with its list of blocks.

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
        # D, the size of a hidden state.
        self.width = int(config.hidden_size)

    def freeze(self) -> None:
        """Disables gradients of the embeddings and the lower blocks; the modules above them (upper blocks, final norm,
        pooler) stay trained, unless their weights are tied to the embeddings."""
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
        """The output of the frozen blocks, (W, T, D)."""
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
        """The last hidden states, (W, T, D), computed from the output of `lower`."""

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
        """Whether everything below the upper blocks is equal in both, so that one computation of the frozen part serves
        both. If so, `other` drops its copy of the blocks; without `release` it keeps it (sharded blocks have one
        owner).
        """
        for mine, theirs in zip(self._below(), other._below(), strict=True):
            for (_, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
                if a.shape != b.shape or not torch.equal(a, b):
                    return False
        for index in range(self.frozen if release else 0):
            other.blocks[index] = self.blocks[index]
        return True

    def activation_bytes(self, groups: Sequence[Sequence[Row]], options: AlgorithmOptions, compute_dtype: str) -> int:
        """The approximate bytes that the trained blocks keep of the largest pass: input and output of each linear
        layer.

        A lower bound: the attention scores (L x L, unless a fused kernel avoids them) are not included."""
        tokens = max(len(group) * max(map(len, group)) for group in groups)
        size = 2 if compute_dtype == "bfloat16" else 4
        blocks = [_block_widths(block) for block in self.blocks[self.frozen :]]
        if options.activation_checkpointing:
            return tokens * (len(blocks) * self.width * 4 + max(blocks) * size)
        return tokens * sum(blocks) * size

    def _below(self) -> list[nn.Module]:
        return [*(m for m in self.module.modules() if isinstance(m, nn.Embedding)), *self.blocks[: self.frozen]]

    @contextmanager
    def _only(self, blocks: Any) -> Iterator[None]:
        setattr(self._holder, self._name, nn.ModuleList(list(blocks)))
        try:
            yield
        finally:
            setattr(self._holder, self._name, self.blocks)


def autocast(compute_dtype: str, device: str = "cpu") -> AbstractContextManager[object]:
    """Matrix products in bfloat16 if that is the compute type; float32 otherwise."""
    if compute_dtype != "bfloat16":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)


def prepare_blocks(blocks: Iterable[nn.Module], options: AlgorithmOptions, device: torch.device) -> None:
    """Compiles the blocks and checkpoints their activations, according to the options.

    FailedPrecondition, COMPILE_UNAVAILABLE, if torch.compile has no working compiler."""
    if options.compile:
        require_compiler(device.type)
    for block in blocks:
        if options.compile:
            # One program for all lengths: the numbers must not depend on the order of lengths.
            block.forward = torch.compile(block.forward, dynamic=True)
        if options.activation_checkpointing:
            block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Keeps only the inputs and recomputes the block in the backward pass (Chen et al. 2016, arXiv 1604.06174)."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    # Without dropout there is no random state to preserve.
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords)


@cache
def require_compiler(device: str) -> None:
    """FailedPrecondition, COMPILE_UNAVAILABLE, if a trivial function cannot be compiled on `device`."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # inductor raises many types: a missing compiler, a missing Triton, a failed build
        log.info("torch.compile does not work on this machine", exc_info=True)
        what = next(iter(str(error).splitlines()), repr(error))
        raise FailedPrecondition(
            f"training.options.compile: torch.compile does not work on this machine ({what}). Install a C++ compiler "
            "(for GPUs also Triton), or turn the option off",
            reason="COMPILE_UNAVAILABLE",
        ) from error


def _probe(values: torch.Tensor) -> torch.Tensor:
    return values.sin() * 2.0 + 1.0


@torch.no_grad()
def can_share(trunk: Trunk, pad: int) -> bool:
    """Whether packed rows have the hidden states of separate ones, so the model supports a mask of four dimensions.
    Tested on a few tokens when the model is loaded."""
    shared = make_rows(_PROMPTS, _RESPONSES, share=True, max_tokens=64, max_members=8)
    apart = make_rows(_PROMPTS, _RESPONSES, share=False, max_tokens=64, max_members=8)
    plain = collate(apart, pad=pad, share=False)
    expected, _ = response_states(trunk.hidden(plain), plain)
    packed = collate(shared, pad=pad, share=True)
    try:
        found, _ = response_states(trunk.hidden(packed), packed)
    except (ValueError, TypeError, RuntimeError, IndexError, NotImplementedError) as error:
        log.info("%s does not support packed rows (%s): using one response a row", type(trunk.module).__name__, error)
        return False
    return bool(torch.allclose(found, expected, atol=_TOLERANCE * float(expected.abs().max().clamp(min=1.0))))


@torch.no_grad()
def head_gives_logits(model: PreTrainedModel, trunk: Trunk, head: nn.Module) -> bool:
    """Whether the model's logits equal its head on its hidden states, without scaling or capping afterwards."""
    tokens = torch.tensor([_PROMPTS[0]])
    hidden = trunk.module(input_ids=tokens, use_cache=False).last_hidden_state
    return bool(torch.allclose(head(hidden), model(input_ids=tokens, use_cache=False).logits, atol=_TOLERANCE))


class TrainableModel:
    """A model under training: as a whole, its upper blocks, or through LoRA adapters.

    `model` is the plain model (adapters, if any, are inside its layers); `trunk` its body.
    """

    def __init__(
        self, model: PreTrainedModel, options: AlgorithmOptions, *, task: Literal["CAUSAL_LM"] | None, seed: int
    ) -> None:
        self.model = model
        self.peft: PeftModel | None = None
        self.trunk = Trunk(model.base_model, trainable_layers=options.trainable_layers)
        if options.lora_rank:
            self.peft = _with_lora(model, options, task, seed, self.trunk)
        elif self.trunk.frozen:
            self.trunk.freeze()

    def merged(self) -> PreTrainedModel:
        """The plain model, adapters merged in float32 into a copy; without adapters the live model itself."""
        if self.peft is None:
            return self.model
        # Merging in place and unmerging would leave rounding errors in the base weights.
        copied: Any = copy.deepcopy(self.peft)
        merged: PreTrainedModel = copied.merge_and_unload()
        return merged

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter in PEFT's format (safetensors); FailedPrecondition with full fine-tuning."""
        if self.peft is None:
            raise FailedPrecondition(
                "this training has no adapter, since lora_rank is 0; publish the merged model",
                reason="NO_ADAPTER",
            )
        self.peft.save_pretrained(str(folder), safe_serialization=True)


def _with_lora(
    model: PreTrainedModel, options: AlgorithmOptions, task: str | None, seed: int, trunk: Trunk
) -> PeftModel:
    from peft import LoraConfig, get_peft_model  # the import takes seconds, and most trainings have no adapter

    layers = list(range(trunk.frozen, len(trunk.blocks))) if trunk.frozen else None
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,  # type: ignore[arg-type]  # a float works too
        lora_dropout=0.0,
        target_modules=list(options.lora_targets) or _block_linears(trunk),
        layers_to_transform=layers,
        task_type=task,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise InvalidArgument.at("training.options.lora_targets", str(error)) from error
    adapted.train(False)
    return adapted


def _block_linears(trunk: Trunk) -> list[str]:
    """The names of the linear layers inside a block, which get an adapter by default."""
    return sorted({name for name, part in trunk.blocks[0].named_modules() if isinstance(part, nn.Linear)})


class Costs:
    """Counts the operations of passes through one trunk and its head, in `done`."""

    def __init__(self, trunk: Trunk, head: nn.Module | None) -> None:
        """Must be created before weights are sharded. `head` is None if no head is applied to every response token."""
        config: Any = trunk.module.config
        heads = config.num_attention_heads
        self._attention = int(heads * (getattr(config, "head_dim", None) or config.hidden_size // heads))
        self._lower = _entries(trunk.blocks[: trunk.frozen])
        self._upper = _entries(trunk.blocks[trunk.frozen :])
        self._trained = _entries(trunk.blocks[trunk.frozen :], trained=True)
        self._head = _entries([head]) if head is not None else 0
        self._head_trained = _entries([head], trained=True) if head is not None else 0
        self._blocks = (trunk.frozen, len(trunk.blocks) - trunk.frozen)
        self.done = 0.0

    def lower(self, rows: Sequence[Row]) -> None:
        """Counts a pass of the frozen blocks."""
        self.done += 2.0 * self._lower * _tokens(rows) + self._blocks[0] * self._seen(rows)

    def upper(self, rows: Sequence[Row]) -> None:
        """Counts a pass of the trained blocks and the head, and with gradients enabled their backward pass."""
        tokens, attention = _tokens(rows), self._blocks[1] * self._seen(rows)
        self.done += 2.0 * self._upper * tokens + attention
        if torch.is_grad_enabled():
            self.done += 2.0 * (self._upper + self._trained) * tokens + 2.0 * attention
        self.heads(rows, 1)

    def heads(self, rows: Sequence[Row], count: int) -> None:
        """Counts `count` heads of the head's shape on the response tokens."""
        answered = count * sum(len(response) for row in rows for response in row.responses)
        self.done += 2.0 * self._head * answered
        if torch.is_grad_enabled():
            self.done += 2.0 * (self._head + self._head_trained) * answered

    def _seen(self, rows: Sequence[Row]) -> float:
        return 4.0 * self._attention * sum(map(seen_tokens, rows))


def seen_tokens(row: Row) -> int:
    """The number of tokens that each token of a row sees, including itself, summed."""
    prompt = len(row.prompt)
    responses = sum(prompt * len(r) + len(r) * (len(r) + 1) // 2 for r in row.responses)
    return prompt * (prompt + 1) // 2 + responses


def _entries(modules: Iterable[nn.Module], *, trained: bool = False) -> int:
    """Entries of the matrices (embeddings are looked up, not multiplied)."""
    return sum(
        part.weight.numel()
        for module in modules
        for part in module.modules()
        if isinstance(part, nn.Linear) and (part.weight.requires_grad or not trained)
    )


def _tokens(rows: Sequence[Row]) -> int:
    return sum(map(len, rows))


def _block_widths(block: nn.Module) -> int:
    """Without adapters, whose input is that of the layer they adapt."""
    return sum(
        part.in_features + part.out_features
        for name, part in block.named_modules()
        if isinstance(part, nn.Linear) and "lora_" not in name
    )
