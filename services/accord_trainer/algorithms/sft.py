"""Supervised fine-tuning on demonstrations: the log-likelihood of desired answers (Ouyang et al. 2022, arXiv
2203.02155, section 3.5).

A demonstration is an example with one response, rated 1. From examples with more responses, the best one is used (or
all that tie for it), so preferences can be learned from as well (Dong et al. 2023, RAFT, arXiv 2304.06767).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_trainer.algorithm import AlgorithmOptions, Experience, StepContext
from accord_trainer.algorithms.policy_training import Means, PolicyTraining
from accord_trainer.data.demonstrations import response_of
from accord_trainer.distributed.world import even_rounds
from accord_trainer.model.optimizer import not_finite
from accord_trainer.model.packing import Row, buckets, make_rows


class SftOptions(AlgorithmOptions):
    """Options of `sft`, in addition to those of every algorithm."""

    max_tokens: int = Field(1024, ge=8, description="Longer conversations lose the beginning of their prompt.")


@dataclass(frozen=True)
class _Demonstration:
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    weight: float


class SFT(PolicyTraining):
    """The algorithm `sft`. Learns from preferences: their best answers."""

    learns_from: Literal["preferences"] = "preferences"
    options_type = SftOptions
    reference = False
    options: SftOptions

    def check(self, batch: Experience) -> None:
        """Refuses answers that are too long, and batches without a weight above 0."""
        if not sum(one.weight for one in self._demonstrations(batch.preferences)) > 0:
            raise InvalidArgument.at("chunk.preferences", "has no answer with a weight above 0")

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        return {**super().step_bytes(batch), **self.passes_bytes(self._rows(self._demonstrations(batch.preferences)))}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        figures = self._pass(batch, context, learn=True)
        rate = self.options.learning_rate * self.optimizer.rate_factor()
        norms = self.optimizer.update()
        return {**figures, "lr": rate, "grad_norm": norms["policy"]}

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        with torch.no_grad():
            return self._pass(batch, context, learn=False)

    def _demonstrations(self, preferences: Sequence[trainer_v1.PreferenceExample]) -> list[_Demonstration]:
        found = []
        for i, one in enumerate(preferences):
            weight = one.weight if one.HasField("weight") else 1.0
            best = _best(one)
            for k in best:
                prompt, response = response_of(self.tokenizer, preferences, i, k, self.options.max_tokens)
                found.append(_Demonstration(prompt, response, weight / len(best)))
        return found

    def _rows(self, data: Sequence[_Demonstration]) -> list[Row]:
        return make_rows(
            [one.prompt for one in data],
            [one.response for one in data],
            share=self.policy.share,
            max_tokens=self.options.micro_batch_tokens,
            max_members=len(data),
        )

    def _pass(self, batch: Experience, context: StepContext, *, learn: bool) -> dict[str, float]:
        """The mean over the response tokens of the whole batch, each counting by its example's weight."""
        data = self._demonstrations(batch.preferences)
        limit, width = self.options.micro_batch_tokens, max(len(one.response) for one in data)
        rows = self._rows(data)
        temperature_B = torch.ones(len(data))
        weight_B = torch.tensor([one.weight for one in data])
        length_B = torch.tensor([float(len(one.response)) for one in data])
        total = float((weight_B * length_B).sum())
        lower = self.policy.lower(rows, limit, context.check_stopped) if self.world.size == 1 else {}
        means, odd = Means(), False
        for turn in even_rounds(buckets(rows, limit), self.world):
            context.check_stopped()
            out = self.policy.outputs(turn.items, temperature_B, width, lower)
            loss = -(out.logprobs_BR.sum(1) * weight_B[out.members]).sum()
            if learn:
                (loss * (turn.counts / total)).backward()  # type: ignore[no-untyped-call]
            counted = float((weight_B * length_B)[out.members].sum()) * turn.counts
            means.add("loss", float(loss.detach()) * turn.counts, counted)
            odd = odd or not bool(torch.isfinite(loss))
        if self.world.max(float(odd)):
            raise not_finite("the loss")
        found = means.result(self.world)
        perplexity = float(torch.tensor(found["loss"]).clamp(max=80.0).exp())
        return {**found, "perplexity": perplexity, "samples": float(len(data)), "tokens": float(length_B.sum())}


def _best(example: trainer_v1.PreferenceExample) -> list[int]:
    """Indices of the best responses."""
    if example.HasField("ratings"):
        values = list(example.ratings.values)
        return [k for k, value in enumerate(values) if value == max(values)]
    ranks = list(example.ranks.values)
    return [k for k, rank in enumerate(ranks) if rank == min(ranks)]
