"""Proximal policy optimisation on single responses: Schulman et al. 2017, as Ziegler et al. 2019 use it on language.

A step: old and reference log-probabilities and values of the batch, frozen; rewards (KL penalty at each token, score
at the last); GAE; then epochs over shuffled minibatches of clipped policy and value losses.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from accord.errors import InvalidArgument
from accord_trainer.algorithm import AlgorithmState, Experience, Start, StepContext
from accord_trainer.algorithms.ppo_options import PpoOptions
from accord_trainer.algorithms.ppo_targets import Targets, make_targets, target_metrics
from accord_trainer.metrics import Means
from accord_trainer.objectives.kl import KlController
from accord_trainer.objectives.ppo_loss import ppo_policy_terms
from accord_trainer.objectives.value_loss import value_loss_sum
from accord_trainer.objectives.whitening import masked_sum
from accord_trainer.optimizer import Group, Optimizer, not_finite
from accord_trainer.policy import Lower, Policy
from accord_trainer.prefix import Row, buckets, make_rows
from accord_trainer.trajectories import Trajectories, temperature, trajectories


class PPO:
    """The algorithm `ppo`. Learns from scored samples of the current version."""

    learns_from = "samples"
    options_type = PpoOptions

    def __init__(self, start: Start, options: PpoOptions) -> None:
        self.options = options
        self.policy = Policy(start, options)
        self.tokenizer = self.policy.tokenizer
        self.vocabulary_size = self.policy.head.out_features
        self.publish_dtype = start.compute_dtype if options.publish_dtype == "auto" else options.publish_dtype
        value_rate = options.critic_learning_rate if self.policy.critic else options.value_learning_rate
        self.optimizer = Optimizer(
            {
                "policy": Group(options.learning_rate, self.policy.parameters()),
                "value": Group(value_rate, self.policy.value_parameters()),
            },
            options,
        )
        self.kl = KlController(options.kl_coefficient, options.kl_target, options.kl_horizon)

    def check(self, batch: Experience) -> None:
        """Refuses samples whose log-probabilities are not those of softmax(logits / temperature), temperature above 0,
        and samples made by more than one version."""
        for i, scored in enumerate(batch.samples):
            at, sampling = f"chunk.samples[{i}].sample", scored.sample.sampling
            if temperature(scored.sample) <= 0:
                raise InvalidArgument.at(f"{at}.sampling.temperature", "is greedy; training rollouts are sampled")
            if (sampling.HasField("top_p") and sampling.top_p < 1) or (
                sampling.HasField("top_k") and sampling.top_k > 0
            ):
                raise InvalidArgument.at(f"{at}.sampling", "training rollouts leave top_p and top_k off")
            if len(scored.sample.segments) != 1:
                raise InvalidArgument.at(f"{at}.segments", "one version makes a sample (max_staleness 0)")

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        data = trajectories(batch.samples)
        rows = self._rows(data)
        lower = self.policy.lower(rows, self.options.micro_batch_tokens, context.check_stopped)
        targets = self._targets(data, rows, lower, context)
        means = Means()
        stopped = False
        for _ in range(self.options.epochs):
            for minibatch in self._minibatches(rows, context.generator):
                if not stopped:
                    approx_kl = self._update(data, targets, minibatch, lower, means, context)
                    stopped = self.options.kl_stop is not None and approx_kl > self.options.kl_stop
        metrics = {**target_metrics(data, targets), **means.result(), "kl_coefficient": self.kl.coefficient}
        self.kl = self.kl.after(metrics["kl_k1"], len(data.responses))
        return metrics

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """The same figures of the batch, nothing learned."""
        data = trajectories(batch.samples)
        rows = self._rows(data)
        lower = self.policy.lower(rows, self.options.micro_batch_tokens, context.check_stopped)
        return target_metrics(data, self._targets(data, rows, lower, context))

    def state(self) -> AlgorithmState:
        scalars = {"updates": self.optimizer.updates, "kl_coefficient": self.kl.coefficient}
        return AlgorithmState(self.optimizer.weights(), self.optimizer.tensors(), scalars)

    def load_state(self, state: AlgorithmState) -> None:
        self.optimizer.load(state.weights, state.optimizer, state.scalars["updates"])
        self.kl = KlController(state.scalars["kl_coefficient"], self.kl.target, self.kl.horizon)

    def merged(self) -> PreTrainedModel:
        return self.policy.adaptable.merged()

    def save_adapter(self, folder: Path) -> None:
        self.policy.adaptable.save_adapter(folder)

    def _rows(self, data: Trajectories) -> list[Row]:
        return make_rows(
            data.prompts,
            data.responses,
            share=self.policy.share,
            max_tokens=self.options.max_row_tokens,
            max_members=self.options.minibatch_size,
        )

    @torch.no_grad()
    def _targets(self, data: Trajectories, rows: list[Row], lower: Lower, context: StepContext) -> Targets:
        """Everything that stays frozen over the epochs."""
        old_BR, reference_BR, entropy_BR, values_BR = (torch.zeros(data.mask_BR.shape) for _ in range(4))
        final_value_B = torch.zeros(len(data.responses))
        for group in buckets(rows, self.options.micro_batch_tokens):
            context.check_stopped()
            out = self.policy.outputs(group, data.temperature_B, data.width, lower, entropy=True)
            old_BR[out.members], values_BR[out.members] = out.logprobs_BR, out.values_BR
            final_value_B[out.members] = out.final_value_B
            if out.entropy_BR is not None:
                entropy_BR[out.members] = out.entropy_BR
            members, reference_BR[members] = self.policy.reference_logprobs(
                group, data.temperature_B, data.width, lower
            )
        return make_targets(
            data, old_BR, reference_BR, entropy_BR, values_BR, final_value_B, self.kl.coefficient, self.options
        )

    def _minibatches(self, rows: list[Row], generator: torch.Generator) -> list[list[Row]]:
        """The rows shuffled and cut into parts of about `minibatch_size` samples; prompts stay whole."""
        total = sum(len(row.members) for row in rows)
        parts: list[list[Row]] = [[] for _ in range(min(len(rows), max(1, round(total / self.options.minibatch_size))))]
        seen = 0
        for index in torch.randperm(len(rows), generator=generator).tolist():
            parts[min(seen * len(parts) // total, len(parts) - 1)].append(rows[index])
            seen += len(rows[index].members)
        return [part for part in parts if part]

    def _update(
        self,
        data: Trajectories,
        targets: Targets,
        minibatch: list[Row],
        lower: Lower,
        means: Means,
        context: StepContext,
    ) -> float:
        """One optimizer update; gives its approx_kl. The loss is divided by the tokens of the whole minibatch, so that
        cutting it into micro-batches changes nothing."""
        options = self.options
        warming = context.version < options.critic_warmup_steps
        tokens = int(data.mask_BR[[member for row in minibatch for member in row.members]].sum())
        approx_kl = 0.0
        for group in buckets(minibatch, options.micro_batch_tokens):
            context.check_stopped()
            out = self.policy.outputs(
                group,
                data.temperature_B,
                data.width,
                lower,
                entropy=options.entropy_coefficient > 0,
                detach_values=warming,
            )
            mask_BR = data.mask_BR[out.members]
            terms = ppo_policy_terms(
                out.logprobs_BR,
                targets.old_logprobs_BR[out.members],
                targets.advantages_BR[out.members],
                mask_BR,
                clip_low=options.clip,
                clip_high=options.clip if options.clip_high is None else options.clip_high,
                dual_clip=options.dual_clip,
                importance_BR=None if targets.importance_BR is None else targets.importance_BR[out.members],
            )
            value_loss = value_loss_sum(
                out.values_BR,
                targets.values_BR[out.members],
                targets.returns_BR[out.members],
                mask_BR,
                clip=options.value_clip,
            )
            loss: Tensor = options.value_coefficient * value_loss
            if not warming:
                loss = loss + terms.loss
                if out.entropy_BR is not None:
                    loss = loss - options.entropy_coefficient * masked_sum(out.entropy_BR, mask_BR)
            if not bool(torch.isfinite(loss)):
                raise not_finite("the loss")
            (loss / tokens).backward()  # type: ignore[no-untyped-call]
            part = int(mask_BR.sum())
            means.add("policy_loss", float(terms.loss.detach()), part)
            means.add("value_loss", float(value_loss.detach()), part)
            means.add("approx_kl", float(terms.approx_kl), part)
            means.add("clip_fraction", float(terms.clipped), part)
            means.add("ratio_mean", float(terms.ratio), part)
            means.largest("ratio_max", float(terms.ratio_max))
            approx_kl += float(terms.approx_kl) / tokens
        means.add("lr", options.learning_rate * self.optimizer.rate_factor(), 1)
        norms = self.optimizer.update()
        means.add("grad_norm", norms["policy"], 1)
        means.add("value_grad_norm", norms["value"], 1)
        return approx_kl
