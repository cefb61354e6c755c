"""Direct preference optimisation: Rafailov et al. 2023, arXiv 2305.18290. Offline, on preferences; no reward model.

Each pair of answers that an annotator ranked pulls apart the policy's log-ratios to the reference; rankings and ratings
count as all their ordered pairs, which share the example's weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from accord.errors import InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_trainer.algorithm import AlgorithmOptions, Experience, StepContext
from accord_trainer.algorithms.policy_training import PolicyTraining
from accord_trainer.data.demonstrations import response_of
from accord_trainer.distributed.world import even_rounds
from accord_trainer.metrics.preferences import ordered_pairs
from accord_trainer.model.optimizer import not_finite
from accord_trainer.model.packing import Row, buckets, make_rows
from accord_trainer.objectives.dpo import dpo_loss

Loss = Literal["sigmoid", "ipo", "hinge"]


class DpoOptions(AlgorithmOptions):
    """Options of `dpo`, in addition to those of every algorithm."""

    learning_rate: float = Field(5e-6, gt=0, description="AdamW's learning rate, reached after the warm-up.")
    beta: float = Field(0.1, gt=0, description="How strongly the policy is kept close to the reference.")
    loss: Loss = Field("sigmoid", description="sigmoid (DPO), ipo or hinge (SLiC).")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Fraction of pairs that is assumed to be labelled wrongly (sigmoid)."
    )
    length_normalised: bool = Field(False, description="Use log-probabilities per token instead of per response.")
    max_tokens: int = Field(1024, ge=8, description="Longer conversations lose the beginning of their prompt.")


@dataclass(frozen=True)
class _Example:
    """The answers of one example as tokens, and the (better, worse) pairs among them."""

    rows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    pairs: tuple[tuple[int, int], ...]
    weight: float
    source: str

    def __len__(self) -> int:
        return sum(len(prompt) + len(response) for prompt, response in self.rows)


class DPO(PolicyTraining):
    """The algorithm `dpo`. Learns from preferences."""

    learns_from: Literal["preferences"] = "preferences"
    options_type = DpoOptions
    options: DpoOptions

    def check(self, batch: Experience) -> None:
        """Refuses answers that are too long, and batches in which no pair counts."""
        if not any(example.pairs and example.weight > 0 for example in self._examples(batch.preferences)):
            raise InvalidArgument.at(
                "chunk.preferences", "has no pair of differently ranked answers with a weight above 0"
            )

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        """Each example is one row, so that its answers are in one graph."""
        rows = [
            Row(prompt, tuple(response for _, response in example.rows), ())
            for example in self._examples(batch.preferences)
            for prompt, _ in example.rows[:1]
        ]
        return {**super().step_bytes(batch), **self.passes_bytes(rows)}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        examples = self._examples(batch.preferences)
        figures = self._pass(examples, context, learn=True)
        rate = self.options.learning_rate * self.optimizer.rate_factor()
        norms = self.optimizer.update()
        return {**figures, "lr": rate, "grad_norm": norms["policy"]}

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        with torch.no_grad():
            return self._pass(self._examples(batch.preferences), context, learn=False)

    def _examples(self, preferences: Sequence[trainer_v1.PreferenceExample]) -> list[_Example]:
        limit = self.options.max_tokens
        return [
            _Example(
                rows=tuple(response_of(self.tokenizer, preferences, i, k, limit) for k in range(len(one.responses))),
                pairs=tuple(ordered_pairs(one)),
                weight=one.weight if one.HasField("weight") else 1.0,
                source=one.source,
            )
            for i, one in enumerate(preferences)
        ]

    def _pass(self, examples: list[_Example], context: StepContext, *, learn: bool) -> dict[str, float]:
        """The metrics of all pairs; with `learn` also the gradient of the mean loss."""
        total = sum(example.weight for example in examples if example.pairs)
        # (policy, reference) log-probability of each answer; every rank fills in its own.
        starts = [0]
        for example in examples:
            starts.append(starts[-1] + len(example.rows))
        found_B2 = torch.zeros(starts[-1], 2)
        for turn in even_rounds(self._groups(examples), self.world):
            context.check_stopped()
            here = [examples[index] for index in turn.items]
            policy_B, reference_B = self._logprobs(here)
            loss, at = torch.zeros(()), 0
            for index, example in zip(turn.items, here, strict=True):
                size = len(example.rows)
                own_K, reference_K = policy_B[at : at + size], reference_B[at : at + size]
                at += size
                if turn.counts:
                    found_B2[starts[index] : starts[index + 1]] = torch.stack([own_K.detach(), reference_K], 1)
                if turn.counts and example.pairs:
                    loss = loss + example.weight * self._losses(own_K - reference_K, example).mean()
            if learn:
                (loss / total + policy_B.sum() * 0.0).backward()  # type: ignore[no-untyped-call]
        found_B2 = self.world.sum(found_B2)
        if not bool(torch.isfinite(found_B2).all()):
            raise not_finite("a log-probability")
        return self._metrics(examples, [found_B2[a:b] for a, b in pairwise(starts)], total)

    def _groups(self, examples: list[_Example]) -> list[list[int]]:
        """Indices of the examples of each pass; both answers of a pair are in one graph."""
        rows = [Row((0,) * len(example), (), (index,)) for index, example in enumerate(examples)]
        return [[row.members[0] for row in group] for group in buckets(rows, self.options.micro_batch_tokens)]

    def _logprobs(self, examples: list[_Example]) -> tuple[Tensor, Tensor]:
        """log policy and log reference of every answer, (B,) each, in order: a response's sum, or its mean per
        token."""
        prompts = [prompt for example in examples for prompt, _ in example.rows]
        responses = [response for example in examples for _, response in example.rows]
        limit = self.options.micro_batch_tokens
        rows = make_rows(
            prompts, responses, share=self.policy.share, max_tokens=limit, max_members=max(len(responses), 1)
        )
        width, temperature_B = max(map(len, responses)), torch.ones(len(responses))
        lower = self.policy.lower(rows, limit, lambda: None) if self.world.size == 1 else {}
        out = self.policy.outputs(rows, temperature_B, width, lower)
        members, reference_BR = self.policy.reference_logprobs(rows, temperature_B, width, lower)
        order = torch.argsort(out.members)
        policy_B, reference_B = out.logprobs_BR.sum(1)[order], reference_BR.sum(1)[torch.argsort(members)]
        if not self.options.length_normalised:
            return policy_B, reference_B
        length_B = torch.tensor([float(len(response)) for response in responses])
        return policy_B / length_B, reference_B / length_B

    def _losses(self, ratio_K: Tensor, example: _Example) -> Tensor:
        """The loss of each pair, (N,)."""
        better, worse = (torch.tensor(side) for side in zip(*example.pairs, strict=True))
        options = self.options
        difference_N = ratio_K[better] - ratio_K[worse]
        return dpo_loss(difference_N, beta=options.beta, kind=options.loss, label_smoothing=options.label_smoothing)

    def _metrics(self, examples: list[_Example], logprobs: list[Tensor], total: float) -> dict[str, float]:
        """Rewards are implicit, beta * log(policy / reference): of the better and the worse answers of all pairs."""
        rewards: dict[str, list[tuple[float, float]]] = defaultdict(list)
        sides: list[tuple[float, float]] = []
        loss = 0.0
        for example, both_K2 in zip(examples, logprobs, strict=True):
            if not example.pairs:
                continue
            ratio_K = both_K2[:, 0] - both_K2[:, 1]
            loss += example.weight * float(self._losses(ratio_K, example).mean())
            for better, worse in example.pairs:
                rewards[example.source].append(tuple((self.options.beta * ratio_K[[better, worse]]).tolist()))
                sides.append((float(both_K2[better, 0]), float(both_K2[worse, 0])))
        every = [pair for group in rewards.values() for pair in group]
        found = {"loss": loss / total if total else 0.0, "pairs": float(len(every))}
        found["tokens"] = float(sum(map(len, examples)))
        if every:
            found |= {
                "accuracy": _accuracy(every),
                "chosen_reward": sum(chosen for chosen, _ in every) / len(every),
                "rejected_reward": sum(rejected for _, rejected in every) / len(every),
                "reward_margin": sum(chosen - rejected for chosen, rejected in every) / len(every),
                "chosen_logprob": sum(chosen for chosen, _ in sides) / len(every),
                "rejected_logprob": sum(rejected for _, rejected in sides) / len(every),
            }
        return found | {f"accuracy/{source}": _accuracy(group) for source, group in rewards.items() if source}


def _accuracy(rewards: Sequence[tuple[float, float]]) -> float:
    return sum(0.5 if a == b else float(a > b) for a, b in rewards) / len(rewards)
