"""Implicit language Q-learning: Snell et al. 2022, arXiv 2206.11871. Offline, on rated or ranked answers.

Each token of an answer is an action. The answer's reward comes with its last token; V and two heads of Q, on the trunk
of the policy, learn the value of each token (objectives/q_learning.py), and the language model learns the likelihood of
the data. The published model is the language model guided by Q (model/ilql_export.py): a plain language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from accord.errors import FailedPrecondition, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_trainer.algorithm import AlgorithmOptions, AlgorithmState, Experience, Start, StepContext
from accord_trainer.algorithms.policy_training import Means, PolicyTraining
from accord_trainer.data.demonstrations import cut_off, response_of
from accord_trainer.distributed.world import even_rounds
from accord_trainer.metrics.preferences import pair_accuracy
from accord_trainer.model.ilql_export import guided
from accord_trainer.model.optimizer import Group, not_finite
from accord_trainer.model.packing import Row, buckets, make_rows
from accord_trainer.model.q_policy import QOutputs, QPolicy
from accord_trainer.objectives.advantages import masked_sum
from accord_trainer.objectives.q_learning import bellman_targets, q_loss_sum, v_loss_sum

TARGET = "target."


class IlqlOptions(AlgorithmOptions):
    """Options of `ilql`, in addition to those of every algorithm."""

    beta: float = Field(1.0, ge=0, description="How strongly Q guides the published policy; 0: not at all.")
    gamma: float = Field(0.99, gt=0, le=1, description="Discount of a later token's reward.")
    expectile: float = Field(
        0.7, gt=0, lt=1, description="Expectile of Q that V estimates; above 0.5, V leans towards the better answers."
    )
    polyak: float = Field(0.05, gt=0, le=1, description="Fraction by which Q's targets approach Q in each update.")
    cql_coefficient: float = Field(
        0.1, ge=0, description="Weight of the term that keeps Q of tokens outside the data low."
    )
    bc_coefficient: float = Field(1.0, ge=0, description="Weight of the likelihood of the data; 0: not computed.")
    value_learning_rate: float = Field(1e-3, gt=0, description="Learning rate of the heads of V and Q.")
    detach_values: bool = Field(
        False, description="Do not propagate the losses of V and Q into the trunk: only their heads learn."
    )
    bootstrap_truncated: bool = Field(
        False,
        description="End an answer that was cut off with its value instead of 0. For ratings of the text so far; a "
        "rating that already judges the whole answer would be counted twice.",
    )
    max_tokens: int = Field(1024, ge=8, description="Longer conversations lose the beginning of their prompt.")


@dataclass(frozen=True)
class _Answers:
    """The answers of a batch, flat: B responses, and the number of responses of each example."""

    prompts: list[tuple[int, ...]]
    responses: list[tuple[int, ...]]
    reward_B: Tensor
    weight_B: Tensor
    truncated_B: Tensor
    sizes: list[int]

    @property
    def length_B(self) -> Tensor:
        return torch.tensor([len(response) for response in self.responses])


class ILQL(PolicyTraining):
    """The algorithm `ilql`. Learns from preferences: rated or ranked answers, also single ones."""

    learns_from: Literal["preferences"] = "preferences"
    options_type = IlqlOptions
    critic = True
    reference = False
    policy_type = QPolicy
    policy: QPolicy
    options: IlqlOptions

    def __init__(self, start: Start, options: IlqlOptions) -> None:
        if start.critic is not None:
            raise InvalidArgument.at("training.critic_init", "V and Q are heads on the policy's trunk; leave it unset")
        super().__init__(start, options)

    def groups(self) -> dict[str, Group]:
        return {**super().groups(), "value": Group(self.options.value_learning_rate, self.policy.value_parameters())}

    def check(self, batch: Experience) -> None:
        """Refuses answers that are too long, and batches without a weight above 0."""
        if not float(self._answers(batch.preferences).weight_B.sum()) > 0:
            raise InvalidArgument.at("chunk.preferences", "has no answer with a weight above 0")

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        """The logits are those of the model and of both heads of Q."""
        found = {**super().step_bytes(batch), **self.passes_bytes(self._rows(self._answers(batch.preferences)))}
        return {**found, "logits": found["logits"] * (3 if self.options.bc_coefficient else 2)}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        figures = self._pass(batch, context, learn=True)
        rate = self.options.learning_rate * self.optimizer.rate_factor()
        norms = self.optimizer.update()
        self.policy.q.follow(self.options.polyak)
        return {**figures, "lr": rate, "grad_norm": norms["policy"], "value_grad_norm": norms["value"]}

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        with torch.no_grad():
            return self._pass(batch, context, learn=False)

    def state(self) -> AlgorithmState:
        state = super().state()
        state.weights |= {f"{TARGET}{name}": tensor for name, tensor in self.policy.q.targets().items()}
        return state

    def load_state(self, state: AlgorithmState) -> None:
        targets = {f"{TARGET}{name}": tensor for name, tensor in self.policy.q.targets().items()}
        trained = {name: tensor for name, tensor in state.weights.items() if name not in targets}
        super().load_state(AlgorithmState(trained, state.optimizer, state.scalars))
        for name, tensor in targets.items():
            tensor.copy_(state.weights[name])

    def merged(self) -> PreTrainedModel:
        """The language model guided by the mean of both heads of Q."""
        return guided(super().merged(), self.policy.q.mean_weight(), self.options.beta)

    def save_adapter(self, folder: Path) -> None:
        raise FailedPrecondition(
            "an adapter alone would sample without Q; publish the merged model", reason="NO_ADAPTER"
        )

    def _answers(self, examples: Sequence[trainer_v1.PreferenceExample]) -> _Answers:
        each = [(i, k) for i, one in enumerate(examples) for k in range(len(one.responses))]
        texts = [response_of(self.tokenizer, examples, i, k, self.options.max_tokens) for i, k in each]
        weights = [one.weight if one.HasField("weight") else 1.0 for one in examples]
        return _Answers(
            prompts=[prompt for prompt, _ in texts],
            responses=[response for _, response in texts],
            reward_B=torch.tensor([reward for one in examples for reward in rewards(one)]),
            weight_B=torch.tensor([weights[i] for i, _ in each]),
            truncated_B=torch.tensor([cut_off(examples[i], k) for i, k in each]),
            sizes=[len(one.responses) for one in examples],
        )

    def _rows(self, data: _Answers) -> list[Row]:
        return make_rows(
            data.prompts,
            data.responses,
            share=self.policy.share,
            max_tokens=self.options.micro_batch_tokens,
            max_members=len(data.responses),
        )

    def _pass(self, batch: Experience, context: StepContext, *, learn: bool) -> dict[str, float]:
        """Means over the tokens of all answers, each counting by its example's weight."""
        data, options, limit = self._answers(batch.preferences), self.options, self.options.micro_batch_tokens
        rows = self._rows(data)
        width, total = int(data.length_B.max()), float((data.weight_B * data.length_B).sum())
        lower = self.policy.lower(rows, limit, context.check_stopped) if self.world.size == 1 else {}
        # The mean advantage of each answer's tokens; every rank fills in its own.
        means, advantage_B, odd = Means(), torch.zeros(len(data.responses)), False
        for turn in even_rounds(buckets(rows, limit), self.world):
            context.check_stopped()
            out = self.policy.q_outputs(
                turn.items, width, lower, logprobs=options.bc_coefficient > 0, detach=options.detach_values
            )
            losses, figures = self._losses(out, data)
            loss = sum((weight * losses[name] for name, weight in self._coefficients().items()), torch.zeros(()))
            if learn:
                (loss * (turn.counts / total)).backward()  # type: ignore[no-untyped-call]
            odd = odd or not bool(torch.isfinite(loss))
            counted = float((data.weight_B * data.length_B)[out.members].sum()) * turn.counts
            for name, value in {**losses, **figures, "loss": loss}.items():
                means.add(name, float(value.detach()) * turn.counts, counted)
            if turn.counts:
                advantage_B[out.members] = _advantage(out).sum(1) / data.length_B[out.members]
        if self.world.max(float(odd)):
            raise not_finite("the loss")
        by_example = torch.split(self.world.sum(advantage_B), data.sizes)
        return {
            **means.result(self.world),
            **pair_accuracy(by_example, batch.preferences),
            "reward_mean": float(data.reward_B.mean()),
            "samples": float(len(data.responses)),
            "tokens": float(data.length_B.sum()),
        }

    def _coefficients(self) -> dict[str, float]:
        found = {"q_loss": 1.0, "v_loss": 1.0, "cql_loss": self.options.cql_coefficient}
        return found | ({"bc_loss": self.options.bc_coefficient} if self.options.bc_coefficient else {})

    def _losses(self, out: QOutputs, data: _Answers) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted sums over the rows' tokens: the losses, and metrics that are only reported."""
        weight_B, length_B = data.weight_B[out.members], data.length_B[out.members]
        places_R = torch.arange(out.values_BR.shape[1])
        mask_BR = places_R < length_B[:, None]
        last_BR = places_R == length_B[:, None] - 1
        rewards_BR = torch.where(last_BR, data.reward_B[out.members][:, None], 0.0)
        bootstrap_B = data.truncated_B[out.members] & self.options.bootstrap_truncated
        final_B = torch.where(bootstrap_B, out.final_value_B, 0.0)
        targets_BR = bellman_targets(rewards_BR, out.values_BR, final_B, mask_BR, gamma=self.options.gamma)

        def total(values_BR: Tensor) -> Tensor:
            return masked_sum(values_BR * weight_B[:, None], mask_BR)

        losses = {
            "q_loss": q_loss_sum(out.q_HBR, targets_BR, mask_BR, weight_B=weight_B),
            "v_loss": v_loss_sum(
                out.values_BR, out.target_q_BR, mask_BR, expectile=self.options.expectile, weight_B=weight_B
            ),
            "cql_loss": total(-out.q_logprobs_HBR.sum(0)),
        }
        if self.options.bc_coefficient:
            losses["bc_loss"] = total(-out.logprobs_BR)
        figures = {
            "q_mean": total(out.q_HBR.mean(0)),
            "q_gap": total((out.q_HBR[0] - out.q_HBR[1]).abs()),
            "target_mean": total(targets_BR),
            "v_mean": total(out.values_BR),
            "advantage_mean": total(_advantage(out)),
        }
        return losses, figures


def rewards(example: trainer_v1.PreferenceExample) -> list[float]:
    """The reward of each response, on 0..1: its rating, or its rank, the best 1 and the worst 0, evenly between; 0.5
    if all tie."""
    if example.HasField("ratings"):
        return list(example.ratings.values)
    levels = sorted(set(example.ranks.values))
    if len(levels) == 1:
        return [0.5] * len(example.responses)
    return [1.0 - levels.index(rank) / (len(levels) - 1) for rank in example.ranks.values]


def _advantage(out: QOutputs) -> Tensor:
    """Q - V of each token, the mean of both heads, (B, R); without gradient, 0 at the pads."""
    return (out.q_HBR.mean(0) - out.values_BR).detach()
