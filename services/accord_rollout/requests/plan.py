"""Turns a Generate request into a plan: the samples, their seeds and the sampling parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from accord.errors import InvalidArgument
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_rollout.engine import Sampling

# Below this, logits divided by the temperature may overflow; use 0 instead.
_LEAST_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Slot:
    """One requested sample: `index` = prompt_position * n + j."""

    index: int
    prompt_position: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """A request with defaults filled in."""

    slots: tuple[Slot, ...]
    sampling: Sampling


def make_plan(request: rollout_v1.GenerateRequest) -> Plan:
    """The checks that need no model and are not limits of the contract. InvalidArgument names the field."""
    n = request.n or 1
    total = len(request.prompts) * n
    indices = list(request.indices) or list(range(total))
    for index in indices:
        if not 0 <= index < total:
            raise InvalidArgument.at("indices", f"{index} is not below {total} (prompts times n)")
    if len(set(indices)) != len(indices):
        raise InvalidArgument.at("indices", "must not contain an index twice")
    for position in sorted({index // n for index in indices}):
        _check_input(request, position, request.prompts[position])
    slots = tuple(_slot(request, index, n) for index in sorted(indices))
    return Plan(slots, _sampling(request.sampling))


def prompt_seed(request_id: str, position: int) -> int:
    """The seed of a prompt that has none: 64 bits of SHA-256 over request_id and position."""
    return _hash64(b"accord/prompt\0" + request_id.encode() + b"\0" + position.to_bytes(8, "little"))


def sample_seed(seed: int, j: int) -> int:
    """The seed of sample j of a prompt: 64 bits of SHA-256 over the prompt's seed and j."""
    return _hash64(b"accord/sample\0" + seed.to_bytes(8, "little") + j.to_bytes(8, "little"))


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def _slot(request: rollout_v1.GenerateRequest, index: int, n: int) -> Slot:
    position, j = divmod(index, n)
    prompt = request.prompts[position]
    seed = prompt.seed if prompt.HasField("seed") else prompt_seed(request.request_id, position)
    return Slot(index, position, sample_seed(seed, j))


def _check_input(request: rollout_v1.GenerateRequest, position: int, prompt: rollout_v1.Prompt) -> None:
    kind = prompt.WhichOneof("input")
    if kind is None:
        raise InvalidArgument.at(f"prompts[{position}]", "must have a conversation or token_ids")
    if kind == "token_ids" and not request.tokenizer_fingerprint:
        raise InvalidArgument.at("tokenizer_fingerprint", f"must be set, because prompts[{position}] has token_ids")


def _sampling(params: types_v1.SamplingParams) -> Sampling:
    sampling = Sampling(
        max_new_tokens=params.max_new_tokens,
        temperature=params.temperature if params.HasField("temperature") else 1.0,
        top_p=params.top_p if params.HasField("top_p") else 1.0,
        top_k=params.top_k if params.HasField("top_k") else 0,
    )
    if 0 < sampling.temperature < _LEAST_TEMPERATURE:
        raise InvalidArgument.at(
            "sampling.temperature", f"must be 0 (greedy) or at least {_LEAST_TEMPERATURE}, not {sampling.temperature}"
        )
    return sampling
