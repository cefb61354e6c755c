"""The common part of algorithms that train a policy: the policy, its optimizer, their state, the model to publish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from accord.errors import InvalidArgument
from accord_trainer.algorithm import AlgorithmState, Experience, Start
from accord_trainer.distributed.world import World
from accord_trainer.model.optimizer import Group, Optimizer
from accord_trainer.model.packing import Row, buckets
from accord_trainer.model.policy import Policy, ValueHead, logits_bytes


class PolicyTraining:
    """A policy under training. A subclass is an Algorithm: it provides `check`, `step` and `evaluate`."""

    # Whether there is a critic (a head on the policy's trunk or a separate model), and a reference.
    critic: ClassVar[bool] = False
    reference: ClassVar[bool] = True
    policy_type: ClassVar[type[Policy]] = Policy

    def __init__(self, start: Start, options: Any) -> None:
        for name, given, wanted in (
            ("critic_init", start.critic, self.critic),
            ("reference", start.reference, self.reference),
        ):
            if given is not None and not wanted:
                what = name.removesuffix("_init")
                raise InvalidArgument.at(f"training.{name}", f"this algorithm has no {what}; leave it unset")
        self.options = options
        self.world = start.world
        self.policy = self.policy_type(
            start, options, critic=self.critic, reference=self.reference, value_head=self.value_head(options)
        )
        self.tokenizer = self.policy.tokenizer
        self.vocabulary_size = self.policy.head.out_features
        self.publish_dtype = start.compute_dtype if options.publish_dtype == "auto" else options.publish_dtype
        self.optimizer = Optimizer(self.groups(), options, start.world)

    @staticmethod
    def value_head(options: Any) -> ValueHead:
        """The initialisation of a new value head on the trunk."""
        return "zeros"

    def groups(self) -> dict[str, Group]:
        """The parameter groups."""
        return {"policy": Group(self.options.learning_rate, self.policy.parameters())}

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        """The parts that do not depend on the batch."""
        return {"weights": self.state().update_bytes()}

    def passes_bytes(self, rows: Sequence[Row]) -> dict[str, int]:
        """The memory of passes through the policy over these rows, in addition to the parts of any batch."""
        options, trunk = self.options, self.policy.trunk
        groups = buckets(rows, options.micro_batch_tokens)
        most = max(sum(len(response) for row in group for response in row.responses) for group in groups)
        kept = sum(map(len, rows)) * trunk.width * 4 if trunk.frozen and self.world.size == 1 else 0
        return {
            "activations": trunk.activation_bytes(groups, options, self.policy.compute_dtype),
            "logits": logits_bytes(most, self.vocabulary_size, options),
            "batch": kept,
        }

    def flops(self) -> float:
        return float(self.world.sum(torch.tensor(self.policy.flops(), dtype=torch.float64)))

    def state(self) -> AlgorithmState:
        return AlgorithmState(self.optimizer.weights(), self.optimizer.tensors(), {"updates": self.optimizer.updates})

    def load_state(self, state: AlgorithmState) -> None:
        self.optimizer.load(state.weights, state.optimizer, state.scalars["updates"])

    def merged(self) -> PreTrainedModel:
        return self.policy.trainable.merged()

    def save_adapter(self, folder: Path) -> None:
        self.policy.trainable.save_adapter(folder)


class Means:
    """Running means and maxima of a step's metrics; a name that was never added is not in the result."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._largest: dict[str, float] = {}

    def add(self, name: str, total: float, count: float) -> None:
        """`total` is the sum over `count` entries."""
        before, seen = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (before + total, seen + count)

    def largest(self, name: str, value: float) -> None:
        """Keeps the largest value under `name`."""
        self._largest[name] = max(value, self._largest.get(name, value))

    def result(self, world: World) -> dict[str, float]:
        """Means and maxima by name, over all ranks; every rank must have the same names."""
        names = sorted(self._sums)
        sums = world.sum(torch.tensor([self._sums[name] for name in names], dtype=torch.float64).reshape(-1, 2))
        means = {name: float(total / count) for name, (total, count) in zip(names, sums, strict=True) if count}
        return means | {name: world.max(self._largest[name]) for name in sorted(self._largest)}
