"""The step that on-policy policy-gradient algorithms share (Schulman et al. 2017; Ziegler et al. 2019 on language).

Old and reference log-probabilities (and values) of the batch, frozen; rewards: a KL penalty at each token, the score at
the last; advantages, which is where the algorithms differ; then epochs over shuffled minibatches of the clipped loss.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from accord.errors import FailedPrecondition, InvalidArgument
from accord_trainer.algorithm import AlgorithmState, Experience, Start, StepContext
from accord_trainer.algorithms.policy_gradient_options import PolicyGradientOptions
from accord_trainer.algorithms.policy_training import PolicyTraining
from accord_trainer.algorithms.step_targets import (
    AdvantageInputs,
    Advantages,
    OldPolicy,
    StepTargets,
    penalised_score,
    target_metrics,
)
from accord_trainer.data.trajectories import Trajectories, temperature, trajectories
from accord_trainer.distributed.rounds import rounds
from accord_trainer.metrics.running import Means
from accord_trainer.model.optimizer import not_finite
from accord_trainer.model.packing import Row, buckets, make_rows
from accord_trainer.model.policy import Lower, Outputs
from accord_trainer.objectives.advantages import token_rewards
from accord_trainer.objectives.aggregation import token_weights
from accord_trainer.objectives.kl import KlController, k1, k2, k3
from accord_trainer.objectives.off_policy import accepted, importance_weights
from accord_trainer.objectives.ppo_loss import ppo_policy_terms
from accord_trainer.objectives.whitening import masked_mean, masked_sum

# Float tensors of (B, R) that a step holds: old, reference, entropy, values, rewards, advantages, importance, returns.
TARGETS = 8
LOSS_KL = {"k2": k2, "k3": k3}


class PolicyGradient(PolicyTraining):
    """What ppo, grpo, rloo, reinforce++ and dapo have in common. A subclass gives `estimate` and its options."""

    learns_from: ClassVar[Literal["samples", "preferences"]] = "samples"
    options_type: ClassVar[type[PolicyGradientOptions]] = PolicyGradientOptions
    # The fewest responses to one prompt that the advantages can be made from.
    least_group: ClassVar[int] = 1

    def __init__(self, start: Start, options: Any) -> None:
        super().__init__(start, options)
        self.kl = KlController(options.kl_coefficient, options.kl_target, options.kl_horizon)
        if options.importance_bound == "mask" and options.importance_cap is not None and options.importance_cap <= 1:
            raise InvalidArgument.at(
                "training.options.importance_cap", "must be above 1 where weights outside 1 / cap .. cap are masked"
            )

    def estimate(self, data: Trajectories, draft: AdvantageInputs) -> Advantages:
        """The advantages of a batch."""
        raise NotImplementedError

    def score(self, data: Trajectories) -> Tensor:
        """The scores that count, (B,)."""
        return penalised_score(data, self.options.missing_eos_penalty, self.options.missing_eos_score)

    def value_loss(self, out: Outputs, targets: StepTargets, mask_BR: Tensor) -> Tensor | None:
        """The weighted sum of the critic's loss over the tokens of `mask_BR`; None without a critic."""
        return None

    def warming(self, context: StepContext) -> bool:
        """Whether only the critic learns in this step."""
        return False

    def check(self, batch: Experience) -> None:
        """Refuses samples whose log-probabilities are not those of softmax(logits / temperature), temperature above 0,
        and batches without a group of responses to one prompt."""
        sizes: dict[tuple[int, ...], int] = {}
        for scored in batch.samples:
            prompt = tuple(scored.sample.prompt_token_ids)
            sizes[prompt] = sizes.get(prompt, 0) + 1
        for i, scored in enumerate(batch.samples):
            at, sampling = f"chunk.samples[{i}].sample", scored.sample.sampling
            if temperature(scored.sample) <= 0:
                raise InvalidArgument.at(f"{at}.sampling.temperature", "is greedy; training rollouts are sampled")
            if (sampling.HasField("top_p") and sampling.top_p < 1) or (
                sampling.HasField("top_k") and sampling.top_k > 0
            ):
                raise InvalidArgument.at(f"{at}.sampling", "training rollouts leave top_p and top_k off")
            length = len(scored.sample.prompt_token_ids) + len(scored.sample.response_token_ids)
            if length > self.policy.positions:
                raise InvalidArgument.at(
                    f"{at}.response_token_ids",
                    f"makes {length} tokens with the prompt; the model reads {self.policy.positions}",
                )
        # A group that lost its other responses on the way has no advantage, and does not keep the rest from learning.
        if max(sizes.values(), default=0) < self.least_group:
            raise InvalidArgument.at(
                "chunk.samples",
                "hold one response to each prompt; the baseline comes from the others: take "
                f"{self.least_group} or more samples a prompt",
            )

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        data = trajectories(batch.samples)
        found = {**super().step_bytes(batch), **self.passes_bytes(self._rows(data))}
        return {**found, "batch": found["batch"] + TARGETS * data.mask_BR.numel() * 4}

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        data = trajectories(batch.samples)
        rows = self._rows(data)
        lower = self._lower(rows, context)
        targets = self._targets(data, rows, lower, context)
        if targets.accepted_B is not None and not bool(targets.accepted_B.any()):
            raise FailedPrecondition(
                f"every response is rejected: what sampled them and the policy differ by more than a factor of "
                f"{self.options.rejection_cap} ({self.options.rejection_measure}). Raise rejection_cap, take another "
                "rejection_measure, or a smaller max_staleness",
                reason="ALL_REJECTED",
            )
        if not bool(targets.mask_BR.any()):
            raise FailedPrecondition(
                "the rewards are equal within each group of responses to one prompt: there is nothing to learn from. "
                "Take other prompts, more samples a prompt, or a finer score",
                reason="NO_SIGNAL",
            )
        means = Means()
        stopped = False
        for _ in range(self.options.epochs):
            for minibatch in self._minibatches(rows, context.generator):
                if not stopped:
                    approx_kl = self._update(data, targets, minibatch, lower, means, context)
                    stopped = self.options.kl_stop is not None and approx_kl > self.options.kl_stop
        metrics = {**self._metrics(data, targets), **means.result(self.world), "kl_coefficient": self.kl.coefficient}
        self.kl = self.kl.after(metrics["kl_k1"], len(data.responses))
        return metrics

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """The same figures of the batch, nothing learned."""
        data = trajectories(batch.samples)
        rows = self._rows(data)
        lower = self._lower(rows, context)
        return self._metrics(data, self._targets(data, rows, lower, context))

    def state(self) -> AlgorithmState:
        state = super().state()
        state.scalars["kl_coefficient"] = self.kl.coefficient
        return state

    def load_state(self, state: AlgorithmState) -> None:
        super().load_state(state)
        self.kl = KlController(state.scalars["kl_coefficient"], self.kl.target, self.kl.horizon)

    def _rows(self, data: Trajectories) -> list[Row]:
        return make_rows(
            data.prompts,
            data.responses,
            share=self.policy.share,
            max_tokens=self.options.max_row_tokens,
            max_members=self.options.minibatch_size,
        )

    def _lower(self, rows: list[Row], context: StepContext) -> Lower:
        """What the frozen blocks give for all rows, kept for the step; of several ranks none knows which rows it will
        work on, so there nothing is kept."""
        if self.world.size > 1:
            return {}
        return self.policy.lower(rows, self.options.micro_batch_tokens, context.check_stopped)

    def _metrics(self, data: Trajectories, targets: StepTargets) -> dict[str, float]:
        left_out = data.mask_BR.any(1) & ~targets.mask_BR.any(1)
        found = {**target_metrics(data, targets), "samples_dropped": float(left_out.sum())}
        if targets.accepted_B is not None:
            found["samples_rejected"] = float((~targets.accepted_B).sum())
        if targets.importance_BR is not None:
            bound = 0.0 if self.options.importance_bound == "mask" else self.options.importance_cap
            found["importance_bounded"] = float(masked_mean((targets.importance_BR == bound).float(), data.mask_BR))
        return found

    def _targets(self, data: Trajectories, rows: list[Row], lower: Lower, context: StepContext) -> StepTargets:
        """Everything that stays frozen over the epochs."""
        old = self._old(data, rows, lower, context)
        score_B, mask_BR = self.score(data), data.mask_BR
        penalty_BR = k1(old.logprobs_BR, old.reference_logprobs_BR)
        rewards_BR = token_rewards(score_B, penalty_BR, mask_BR, kl_coefficient=self.kl.coefficient)
        found = self.estimate(data, AdvantageInputs(score_B, rewards_BR, old))
        options, importance_BR, accepted_B = self.options, None, None
        both = old.logprobs_BR, data.rollout_logprobs_BR, mask_BR
        if options.importance_cap is not None:
            importance_BR = importance_weights(
                *both, options.importance_cap, bound=options.importance_bound, level=options.importance_level
            )
        if options.rejection_cap is not None:
            accepted_B = accepted(*both, options.rejection_cap, options.rejection_measure)
        for keep_B in (found.keep_B, accepted_B):
            if keep_B is not None:
                mask_BR = mask_BR & keep_B[:, None]
        return StepTargets(old, rewards_BR, found.advantages_BR, found.returns_BR, mask_BR, importance_BR, accepted_B)

    @torch.no_grad()
    def _old(self, data: Trajectories, rows: list[Row], lower: Lower, context: StepContext) -> OldPolicy:
        """Each rank fills in its own rows; the others' are 0 there, so that the sum over ranks is the whole."""
        old_BR, reference_BR, entropy_BR, values_BR = (torch.zeros(data.mask_BR.shape) for _ in range(4))
        final_value_B = torch.zeros(len(data.responses))
        for turn in rounds(buckets(rows, self.options.micro_batch_tokens), self.world):
            context.check_stopped()
            out = self.policy.outputs(turn.items, data.temperature_B, data.width, lower, entropy=True)
            members, reference = self.policy.reference_logprobs(turn.items, data.temperature_B, data.width, lower)
            if not turn.counts:
                continue
            old_BR[out.members], values_BR[out.members] = out.logprobs_BR, out.values_BR
            final_value_B[out.members] = out.final_value_B
            if out.entropy_BR is not None:
                entropy_BR[out.members] = out.entropy_BR
            reference_BR[members] = reference
        return OldPolicy(*map(self.world.sum, (old_BR, reference_BR, entropy_BR, values_BR, final_value_B)))

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
        targets: StepTargets,
        minibatch: list[Row],
        lower: Lower,
        means: Means,
        context: StepContext,
    ) -> float:
        """One optimizer update; gives its approx_kl. The loss is divided by the tokens of the whole minibatch, so that
        cutting it into micro-batches changes nothing."""
        options, warming = self.options, self.warming(context)
        everyone = [member for row in minibatch for member in row.members]
        tokens = int(targets.mask_BR[everyone].sum())
        if not tokens:
            return 0.0
        weights_B1 = torch.zeros(len(data.responses), 1)
        chosen_B1 = token_weights(targets.mask_BR[everyone], data.limit_B[everyone], options.loss_aggregation)
        weights_B1[everyone] = 1.0 if chosen_B1 is None else chosen_B1
        approx_kl, odd = 0.0, False
        for turn in rounds(buckets(minibatch, options.micro_batch_tokens), self.world):
            context.check_stopped()
            out = self.policy.outputs(
                turn.items,
                data.temperature_B,
                data.width,
                lower,
                entropy=options.entropy_coefficient > 0,
                detach_values=warming,
            )
            mask_BR, weight_B1 = targets.mask_BR[out.members] & turn.counts, weights_B1[out.members]
            importance_BR = weight_B1.expand(mask_BR.shape)
            if targets.importance_BR is not None:
                importance_BR = importance_BR * targets.importance_BR[out.members]
            terms = ppo_policy_terms(
                out.logprobs_BR,
                targets.old.logprobs_BR[out.members],
                targets.advantages_BR[out.members],
                mask_BR,
                clip_low=options.clip,
                clip_high=options.clip if options.clip_high is None else options.clip_high,
                dual_clip=options.dual_clip,
                importance_BR=importance_BR,
            )
            part = int(mask_BR.sum())
            value_loss = self.value_loss(out, targets, mask_BR)
            loss = torch.zeros(()) if warming else terms.loss
            if value_loss is not None:
                loss = loss + options.value_coefficient * value_loss
                means.add("value_loss", float(value_loss.detach()), part)
            if not warming and out.entropy_BR is not None:
                loss = loss - options.entropy_coefficient * masked_sum(out.entropy_BR * weight_B1, mask_BR)
            if not warming and options.kl_loss_coefficient:
                reference_BR = targets.old.reference_logprobs_BR[out.members]
                kl_BR = LOSS_KL[options.kl_loss_estimator](torch.where(mask_BR, out.logprobs_BR, 0.0), reference_BR)
                kl_loss = masked_sum(kl_BR * weight_B1, mask_BR)
                loss = loss + options.kl_loss_coefficient * kl_loss
                means.add("kl_loss", float(kl_loss.detach()), part)
            odd = odd or not bool(torch.isfinite(loss))
            (loss / tokens).backward()  # type: ignore[no-untyped-call]
            means.add("policy_loss", float(terms.loss.detach()), part)
            means.add("approx_kl", float(terms.approx_kl), part)
            means.add("clip_fraction", float(terms.clipped), part)
            means.add("ratio_mean", float(terms.ratio), part)
            means.largest("ratio_max", float(terms.ratio_max))
            approx_kl += float(terms.approx_kl) / tokens
        # After the passes, so that all ranks refuse together.
        if self.world.max(float(odd)):
            raise not_finite("the loss")
        means.add("lr", options.learning_rate * self.optimizer.rate_factor(), 1)
        norms = self.optimizer.update()
        means.add("grad_norm", norms["policy"], 1)
        if "value" in norms:
            means.add("value_grad_norm", norms["value"], 1)
        return float(self.world.sum(torch.tensor(approx_kl)))
