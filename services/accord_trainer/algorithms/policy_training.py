"""What every algorithm that trains a policy has: the policy, its optimizer, their state, the model to publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from accord.errors import InvalidArgument
from accord_trainer.algorithm import AlgorithmState, Start
from accord_trainer.optimizer import Group, Optimizer
from accord_trainer.policy import Policy


class PolicyTraining:
    """A policy under training. A subclass is an Algorithm: it gives `check`, `step` and `evaluate`."""

    # Whether there is a critic (a head on the policy's trunk or a model of its own), and a reference.
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
        self.policy = self.policy_type(start, options, critic=self.critic, reference=self.reference)
        self.tokenizer = self.policy.tokenizer
        self.vocabulary_size = self.policy.head.out_features
        self.publish_dtype = start.compute_dtype if options.publish_dtype == "auto" else options.publish_dtype
        self.optimizer = Optimizer(self.groups(), options, start.world)

    def groups(self) -> dict[str, Group]:
        """The parameter groups."""
        return {"policy": Group(self.options.learning_rate, self.policy.parameters())}

    def state(self) -> AlgorithmState:
        return AlgorithmState(self.optimizer.weights(), self.optimizer.tensors(), {"updates": self.optimizer.updates})

    def load_state(self, state: AlgorithmState) -> None:
        self.optimizer.load(state.weights, state.optimizer, state.scalars["updates"])

    def merged(self) -> PreTrainedModel:
        return self.policy.adaptable.merged()

    def save_adapter(self, folder: Path) -> None:
        self.policy.adaptable.save_adapter(folder)
