"""The policy with its critic and its reference, over packed rows: log-probabilities, entropies and values.

The heads are applied to response tokens only; prompt tokens never reach them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.errors import FailedPrecondition, InvalidArgument
from accord_models.loading import load_causal_lm, load_reward_model, reward_head
from accord_models.tokenizer import fingerprint, load_tokenizer
from accord_trainer.algorithm import AlgorithmOptions, Start
from accord_trainer.distributed.world import passing
from accord_trainer.model.packing import Packed, Row, buckets, collate, pad, response_states
from accord_trainer.model.trunk import (
    Costs,
    TrainableModel,
    Trunk,
    autocast,
    can_share,
    head_gives_logits,
    prepare_blocks,
)

ValueHead = Literal["zeros", "normal"]
ENTROPY_CHUNK = 256
# The frozen blocks' output for each row, by the row's members, (T, D) without padding.
Lower = dict[tuple[int, ...], Tensor]


@dataclass(frozen=True)
class Outputs:
    """A model's outputs for the responses of some rows; `members` names them, the other tensors follow its order.

    All tensors are on the CPU, wherever the model is: later computations are small, and gradients flow back."""

    members: Tensor
    logprobs_BR: Tensor
    entropy_BR: Tensor | None
    values_BR: Tensor
    # The value of the state after the last token.
    final_value_B: Tensor


class Policy:
    """A causal LM that is trained, with a value head on its trunk or a separate critic, and its reference."""

    def __init__(
        self,
        start: Start,
        options: AlgorithmOptions,
        *,
        critic: bool = True,
        reference: bool = True,
        value_head: ValueHead = "zeros",
    ) -> None:
        """Loads models. Without `critic` all values are 0; without `reference` there are no reference
        log-probabilities."""
        self.tokenizer = load_tokenizer(start.init)
        self.compute_dtype = start.compute_dtype
        self.device = start.device
        self.logits_chunk = options.logits_chunk
        self.trainable = TrainableModel(load_causal_lm(start.init), options, task="CAUSAL_LM", seed=start.seed)
        self.model = self.trainable.model
        self.trunk = self.trainable.trunk
        head = output_head(self.model)
        if not head_gives_logits(self.model, self.trunk, head):
            raise InvalidArgument.at(
                "training.init",
                f"{type(self.model).__name__} cannot be trained: its logits are not head(hidden states)",
            )
        self.head = head
        # The maximum number of tokens of prompt and response together.
        self.positions = int(getattr(self.model.config, "max_position_embeddings", None) or 2**31)
        self.pad = int(self.tokenizer.pad_token_id or 0)
        self.critic = _critic(start, self.tokenizer) if critic else None
        self.critic_trunk = Trunk(self.critic.base_model) if self.critic else None
        self.value_head: nn.Linear | None = None
        if critic:
            self.value_head = (
                reward_head(self.critic) if self.critic else _value_head(self.head, value_head, start.seed)
            )
        self.share = options.share_prefixes and can_share(self.trunk, self.pad)
        if self.critic_trunk:
            self.share = self.share and can_share(self.critic_trunk, self.pad)
        self._reference = self._load_reference(start) if reference else None
        heads = self.heads(start)
        for module in (self.model, *heads, *(self._reference[:2] if self._reference else ())):
            (module.module if isinstance(module, Trunk) else module).to(start.device)
        for trunk in (self.trunk, self.critic_trunk):
            if trunk is not None:
                prepare_blocks(trunk.blocks[trunk.frozen :], options, start.device)
        self.costs = Costs(self.trunk, self.head)
        self.critic_costs = Costs(self.critic_trunk, None) if self.critic_trunk else None
        # Last, because the code above needs unsharded weights.
        blocks = [*self.trunk.blocks, *(self.critic_trunk.blocks if self.critic_trunk else ())]
        self.passes = start.world.place([self.model, *heads], start.compute_dtype, blocks)
        self.reference_passes = self.passes
        if self._reference:
            reference_trunk, reference_head, _ = self._reference
            self.reference_passes = start.world.place(
                [reference_trunk.module, reference_head], start.compute_dtype, reference_trunk.blocks
            )

    def heads(self, start: Start) -> list[nn.Module]:
        """The modules in the same passes as the model: the critic, or the value head on the trunk."""
        value = self.critic or self.value_head
        return [value] if value else []

    def flops(self) -> float:
        """Operations of all passes so far."""
        return self.costs.done + (self.critic_costs.done if self.critic_costs else 0.0)

    def parameters(self) -> dict[str, Parameter]:
        """The parameters of the language model, by name; some may be frozen."""
        return {f"policy.{name}": parameter for name, parameter in self.model.named_parameters()}

    def value_parameters(self) -> dict[str, Parameter]:
        """The parameters of the head on the trunk, or of the whole critic; none without a critic."""
        module = self.critic or self.value_head
        return {f"value.{name}": parameter for name, parameter in module.named_parameters()} if module else {}

    @passing("passes")
    @torch.no_grad()
    def lower(self, rows: Sequence[Row], max_tokens: int, check: Callable[[], None]) -> Lower:
        """The frozen blocks' output for all rows; empty if nothing is frozen."""
        found: Lower = {}
        if self.trunk.frozen:
            for group in buckets(rows, max_tokens):
                check()
                self.costs.lower(group)
                with self._autocast():
                    states_WTD = self.trunk.lower(self._collate(group))
                for row, states_TD in zip(group, states_WTD, strict=True):
                    found[row.members] = states_TD[: len(row)].clone()
        return found

    def states(self, packed: Packed, rows: Sequence[Row], lower: Lower) -> tuple[Tensor, Tensor]:
        """The trunk's states before each response token, (N, D), and after each response, (B, D); inside a pass."""
        if not lower:
            self.costs.lower(rows)
        self.costs.upper(rows)
        return response_states(_hidden(self.trunk, packed, rows, lower), packed)

    @passing("passes")
    def outputs(
        self,
        rows: Sequence[Row],
        temperature_B: Tensor,
        width: int,
        lower: Lower,
        *,
        entropy: bool = False,
        detach_values: bool = False,
    ) -> Outputs:
        """The current policy and critic on the rows of one pass. `detach_values` keeps the value loss
        out of the trunk."""
        packed = self._collate(rows)
        lengths = [len(response) for response in packed.responses]
        members = torch.tensor(packed.members)
        with self._autocast():
            before_ND, after_BD = self.states(packed, rows, lower)
            temperature_N = temperature_B[members].repeat_interleave(torch.tensor(lengths)).to(self.device)
            logprobs_N, entropy_N = token_logprobs(
                before_ND,
                torch.cat(packed.responses),
                temperature_N,
                self.head,
                entropy=entropy,
                chunk=self.logits_chunk,
            )
            if self.critic_trunk and self.critic_costs:
                self.critic_costs.upper(rows)
                before_ND, after_BD = response_states(self.critic_trunk.hidden(packed), packed)
        if detach_values and not self.critic_trunk:
            before_ND, after_BD = before_ND.detach(), after_BD.detach()
        values_N, final_value_B = torch.zeros(len(before_ND)), torch.zeros(len(after_BD))
        if self.value_head is not None:
            values_N = self.value_head(before_ND.float())[:, 0]
            final_value_B = self.value_head(after_BD.float())[:, 0]
        return Outputs(
            members=members,
            logprobs_BR=pad(logprobs_N.cpu(), lengths, width),
            entropy_BR=None if entropy_N is None else pad(entropy_N.cpu(), lengths, width),
            values_BR=pad(values_N.cpu(), lengths, width),
            final_value_B=final_value_B.cpu(),
        )

    @passing("reference_passes")
    @torch.no_grad()
    def reference_logprobs(
        self, rows: Sequence[Row], temperature_B: Tensor, width: int, lower: Lower
    ) -> tuple[Tensor, Tensor]:
        """The members of the rows and the reference's log-probabilities of their tokens, (B, width)."""
        packed = self._collate(rows)
        lengths = [len(response) for response in packed.responses]
        members = torch.tensor(packed.members)
        peft = self.trainable.peft
        # Without a separate model the reference is this model with its adapter disabled.
        off = peft.disable_adapter() if self._reference is None and peft else contextlib.nullcontext()
        # The frozen blocks have no adapter, so their output for the policy can be used here too.
        trunk, head, shared = self._reference or (self.trunk, self.head, True)
        if not (lower and shared):
            self.costs.lower(rows)
        self.costs.upper(rows)
        with off, self._autocast():
            states_ND, _ = response_states(_hidden(trunk, packed, rows, lower if shared else {}), packed)
            temperature_N = temperature_B[members].repeat_interleave(torch.tensor(lengths)).to(self.device)
            targets_N, chunk = torch.cat(packed.responses), self.logits_chunk
            logprobs_N, _ = token_logprobs(states_ND, targets_N, temperature_N, head, entropy=False, chunk=chunk)
        return members, pad(logprobs_N.cpu(), lengths, width)

    def _collate(self, rows: Sequence[Row]) -> Packed:
        return collate(rows, pad=self.pad, share=self.share).to(self.device)

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.compute_dtype, self.device.type)

    def _load_reference(self, start: Start) -> tuple[Trunk, nn.Module, bool] | None:
        """The reference's trunk and head, and whether its lower blocks are the policy's frozen ones."""
        if start.reference_is_init and self.trainable.peft:
            return None
        folder = start.reference or start.init
        if fingerprint(load_tokenizer(folder)) != fingerprint(self.tokenizer):
            raise FailedPrecondition(
                f"the reference {folder} has a different tokenizer than the policy", reason="TOKENIZER_MISMATCH"
            )
        model = load_causal_lm(folder)
        model.requires_grad_(False)
        head = output_head(model)
        trunk = Trunk(model.base_model)
        shared = False
        if self.trunk.frozen and len(trunk.blocks) == len(self.trunk.blocks):
            trunk.frozen = self.trunk.frozen
            shared = self.trunk.share_lower(trunk, release=not start.world.sharded)
        if self.compute_dtype == "bfloat16" and not start.world.sharded:
            _round_products(trunk.blocks[trunk.frozen if shared else 0 :])
        return trunk, head, shared


def _hidden(trunk: Trunk, packed: Packed, rows: Sequence[Row], lower: Lower) -> Tensor:
    if not lower:
        return trunk.hidden(packed)
    return trunk.upper(packed, nn.utils.rnn.pad_sequence([lower[row.members] for row in rows], batch_first=True))


def _round_products(blocks: Iterable[nn.Module]) -> None:
    """Keeps the weights of linear layers in bfloat16, since autocast rounds them before each product anyway: the same
    numbers, with half the memory and without the rounding."""
    for block in blocks:
        for layer in block.modules():
            if type(layer) is nn.Linear:
                layer.to(torch.bfloat16)


def _critic(start: Start, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
    """The reward model that the critic starts from; its tokenizer must be the policy's."""
    if start.critic is None:
        return None
    if fingerprint(load_tokenizer(start.critic)) != fingerprint(tokenizer):
        raise FailedPrecondition(
            "the critic's reward model has a different tokenizer than the policy; leave critic_init unset, "
            "or train the reward model from the policy's base model",
            reason="TOKENIZER_MISMATCH",
        )
    return load_reward_model(start.critic)


def output_head(model: PreTrainedModel) -> nn.Linear:
    """The layer that computes logits; InvalidArgument if there is none."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear):
        raise InvalidArgument.at("training.init", f"{type(model).__name__} has no linear output layer")
    return head


def _value_head(head: nn.Linear, kind: ValueHead, seed: int) -> nn.Linear:
    """A new head on the policy's trunk: zeros, or N(0, 1 / sqrt(d + 1)).

    A random head starts with noise of the trunk's scale, which may be several times that of the returns, and this noise
    then dominates the advantages of the first steps. (The random head of Huang et al. 2024, arXiv 2403.17031, is
    that of a reward model.)
    """
    value_head = nn.Linear(head.in_features, 1)
    if kind == "normal":
        generator = torch.Generator().manual_seed(seed % 2**63)
        nn.init.normal_(value_head.weight, std=(head.in_features + 1) ** -0.5, generator=generator)
    else:
        nn.init.zeros_(value_head.weight)
    nn.init.zeros_(value_head.bias)
    return value_head


def scaled_logits(states_ND: Tensor, head: nn.Module, temperature_N: Tensor) -> Tensor:
    """logits / temperature, (N, V), float32. Without a bias the states are divided instead: they are far smaller."""
    if getattr(head, "bias", None) is None:
        logits_NV: Tensor = head(states_ND / temperature_N[:, None])
        return logits_NV.float()
    logits_NV = head(states_ND)
    return logits_NV.float() / temperature_N[:, None]


def token_logprobs(
    states_ND: Tensor, targets_N: Tensor, temperature_N: Tensor, head: nn.Module, *, entropy: bool, chunk: int = 0
) -> tuple[Tensor, Tensor | None]:
    """log p(target) of each token, nats, and if `entropy` the entropy of each distribution, nats.

    With `chunk` the logits of at most that many tokens exist at the same time: they are dropped, and recomputed for the
    gradient.
    """
    if not chunk or len(targets_N) <= chunk:
        return _logprobs(states_ND, targets_N, temperature_N, head, entropy)
    run = _logprobs if not torch.is_grad_enabled() else _recomputed_logprobs
    states, targets, temperatures = (torch.split(one, chunk) for one in (states_ND, targets_N, temperature_N))
    pieces = zip(states, targets, temperatures, strict=True)
    found = [run(*piece, head, entropy) for piece in pieces]
    logprobs_N = torch.cat([logprobs for logprobs, _ in found])
    return logprobs_N, torch.cat([part for _, part in found if part is not None]) if entropy else None


def _recomputed_logprobs(
    states_ND: Tensor, targets_N: Tensor, temperature_N: Tensor, head: nn.Module, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    found: tuple[Tensor, Tensor | None] = checkpoint(
        _logprobs, states_ND, targets_N, temperature_N, head, entropy, use_reentrant=False, preserve_rng_state=False
    )
    return found


def _logprobs(
    states_ND: Tensor, targets_N: Tensor, temperature_N: Tensor, head: nn.Module, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logits_NV = scaled_logits(states_ND, head, temperature_N)
    logprobs_N = -functional.cross_entropy(logits_NV, targets_N, reduction="none")
    if not entropy:
        return logprobs_N, None
    # In chunks that fit the cache; with gradient only if a loss needs it.
    parts = [token_entropy(piece_NV) for piece_NV in torch.split(logits_NV, ENTROPY_CHUNK)]
    return logprobs_N, torch.cat(parts)


def token_entropy(logits_NV: Tensor) -> Tensor:
    """H = log Z - sum of p * logit, nats."""
    normaliser_N = torch.logsumexp(logits_NV, dim=-1)
    probabilities_NV = (logits_NV - normaliser_N[:, None]).exp()
    return normaliser_N - (probabilities_NV * logits_NV).sum(dim=-1)


def logits_bytes(most_tokens: int, vocabulary: int, options: AlgorithmOptions) -> int:
    """The bytes of one pass's float32 logits and of the softmax that the gradient needs; of `logits_chunk` tokens, if
    set."""
    held = min(most_tokens, options.logits_chunk or most_tokens)
    return 2 * 4 * held * vocabulary
