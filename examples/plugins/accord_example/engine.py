"""An engine: generates with the active weights, one token after another, each sample with its own random stream.

It implements the seam completely and nothing else: no batching, no cache. Start here, then make it fast.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.errors import FailedPrecondition
from accord.types import v1 as types_v1
from accord_models.loading import load_causal_lm, load_config, stop_tokens
from accord_models.tokenizer import fingerprint, load_tokenizer, render
from accord_rollout.engine import (
    PROBE_TOKENS,
    Activate,
    Completion,
    Failed,
    Finish,
    Job,
    ModelInfo,
    ResidentWeights,
    Sampling,
    Weights,
)
from accord_rollout.settings import RolloutSettings


@dataclass(frozen=True)
class Model:
    """The content of one activation."""

    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]


class PlainEngine:
    """Computes in float32 on the CPU, in a thread, so that the event loop stays free."""

    compute_dtype = "float32"
    compute_threads = 1
    max_concurrent_requests = 1
    updates_in_flight = False

    def __init__(self, settings: RolloutSettings) -> None:
        self._active: Model | None = None

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Everything that can fail happens here, while the old model continues to generate."""
        model = await asyncio.to_thread(self._read, folder)

        async def activate() -> ModelInfo:
            self._active = model
            config = model.net.config.get_text_config()
            return ModelInfo(
                tokenizer_fingerprint=fingerprint(model.tokenizer),
                max_context_tokens=config.max_position_embeddings,
                vocabulary_size=config.vocab_size,
            )

        return activate

    async def resident_weights(self) -> ResidentWeights:
        """The log-probabilities of the probe: token k given those before it."""
        net = self._require().net

        def probe() -> tuple[float, ...]:
            logits_TV = self._logits(net, PROBE_TOKENS)
            nexts = torch.tensor(PROBE_TOKENS[1:])[:, None]
            return tuple(logits_TV[:-1].log_softmax(dim=-1).gather(-1, nexts)[:, 0].tolist())

        return ResidentWeights(probe_logprobs=await asyncio.to_thread(probe))

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        return render(self._require().tokenizer, conversation)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._require().tokenizer.decode(list(token_ids), skip_special_tokens=True))

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        model = self._require()
        for job in jobs:
            yield await asyncio.to_thread(self._one, model, job, sampling)

    async def close(self) -> None:
        self._active = None

    def _require(self) -> Model:
        if self._active is None:
            raise FailedPrecondition("no weights yet; call UpdateWeights first", reason="NO_WEIGHTS")
        return self._active

    def _read(self, folder: Path) -> Model:
        tokenizer, config = load_tokenizer(folder), load_config(folder)
        return Model(load_causal_lm(folder, "float32"), tokenizer, stop_tokens(folder, config, tokenizer))

    @torch.inference_mode()
    def _logits(self, net: PreTrainedModel, token_ids: Sequence[int]) -> torch.Tensor:
        return net(input_ids=torch.tensor([token_ids])).logits[0].float()  # type: ignore[no-any-return]

    def _one(self, model: Model, job: Job, sampling: Sampling) -> Completion | Failed:
        random = torch.Generator().manual_seed(job.seed - 2**64 if job.seed >= 2**63 else job.seed)
        tokens: list[int] = []
        logprobs: list[float] = []
        while len(tokens) < sampling.max_new_tokens and (not tokens or tokens[-1] not in model.stop_ids):
            logits_V = self._logits(model.net, [*job.prompt_token_ids, *tokens])[-1]
            if logits_V.isnan().any():  # a failure is not a sample
                return Failed(job.index, "NON_FINITE_LOGITS", "the model's logits are not finite")
            token, logprob = sample(logits_V, sampling, random)
            tokens.append(token)
            logprobs.append(logprob)
        finish = Finish.STOP if tokens[-1] in model.stop_ids else Finish.LENGTH
        return Completion(job.index, tuple(tokens), tuple(logprobs), finish)


def sample(logits_V: torch.Tensor, sampling: Sampling, random: torch.Generator) -> tuple[int, float]:
    """A token and its log-probability, in nats, under the distribution that it was sampled from."""
    if sampling.temperature == 0:  # greedy: log-probabilities of the plain distribution
        token = int(logits_V.argmax())
        return token, float(logits_V.log_softmax(dim=-1)[token])
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p < 1:
        sorted_V, order_V = logits_V.sort(descending=True, stable=True)
        probs_V = sorted_V.softmax(dim=-1)
        outside_V = probs_V.cumsum(dim=-1) - probs_V >= sampling.top_p
        logits_V = logits_V.masked_fill(torch.zeros_like(outside_V).scatter(-1, order_V, outside_V), -torch.inf)
    logprobs_V = logits_V.log_softmax(dim=-1)
    token = int(torch.multinomial(logprobs_V.exp(), 1, generator=random))
    return token, min(float(logprobs_V[token]), 0.0)
