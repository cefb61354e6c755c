"""The seam of the trainer: what a training algorithm is, and what is handed to it.

An algorithm is a class under an entry point of group `accord.algorithms`. It owns its models and optimizer and knows
nothing of gRPC, files or versions: the training around it (`training.py`) checks, snapshots, checkpoints and publishes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.trainer import v1 as trainer_v1
from accord_trainer.distributed.world import Alone, World

Kind = Literal["samples", "preferences"]


@dataclass(frozen=True)
class Start:
    """What an algorithm is built from: model folders on this machine's disk, verified, and the resolved settings."""

    init: Path
    reference: Path | None
    critic: Path | None
    # Whether the reference is the very model that training starts from.
    reference_is_init: bool
    seed: int
    # `float32` or `bfloat16`: what is multiplied in. Master weights are float32.
    compute_dtype: str
    # The ranks that train together.
    world: World = field(default_factory=Alone)
    # Where models and batches live while they are computed with.
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Experience:
    """A batch, verified: samples for policy algorithms or preferences for reward models; the other list is empty."""

    samples: list[trainer_v1.ScoredSample]
    preferences: list[trainer_v1.PreferenceExample]


@dataclass
class StepContext:
    """What a step may use from outside."""

    # The version trained from; 0 at first.
    version: int
    # The only source of randomness; saved with the checkpoint and put back when a step fails.
    generator: torch.Generator
    # Raises when the service is shutting down; call it between pieces of work.
    check_stopped: Callable[[], None]


@dataclass
class AlgorithmState:
    """Everything that changes while training: tensors by name (weights, optimizer) and what JSON can hold."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)

    def clone(self) -> AlgorithmState:
        """A copy that later training does not touch."""
        return AlgorithmState(
            {name: tensor.detach().clone() for name, tensor in self.weights.items()},
            {name: tensor.detach().clone() for name, tensor in self.optimizer.items()},
            dict(self.scalars),
        )


class Algorithm(Protocol):
    """One training. Calls never overlap. Equal state, batch and generator give bit-equal results."""

    # What its batches hold.
    learns_from: ClassVar[Kind]
    # A frozen pydantic model of its options; unknown keys are refused.
    options_type: ClassVar[type[BaseModel]]

    tokenizer: PreTrainedTokenizerBase
    # Token ids are below this.
    vocabulary_size: int
    # `float32` or `bfloat16`: the type of published weights.
    publish_dtype: str

    def __init__(self, start: Start, options: Any) -> None:
        """Loads models; InvalidArgument or FailedPrecondition where they do not fit together."""
        ...

    def check(self, batch: Experience) -> None:
        """Raises where the batch cannot be learned from, before anything is touched."""
        ...

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        """A lower bound of the memory that a step takes beyond what is held now, by part (`memory.ADVICE`)."""
        ...

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """Learns from a batch and gives metrics. May raise anywhere: the caller puts the state back."""
        ...

    def flops(self) -> float:
        """Floating-point operations of all passes through models so far, on all ranks; see flops.py."""
        ...

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """Metrics of a batch under the current weights; changes nothing."""
        ...

    def state(self) -> AlgorithmState:
        """The live state, not a copy."""
        ...

    def load_state(self, state: AlgorithmState) -> None:
        """Takes a state over, copying it; what the optimizer has not in it is forgotten."""
        ...

    def merged(self) -> PreTrainedModel:
        """The model to publish, adapters merged in float32. May be the live one: it is only read."""
        ...

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter alone; FailedPrecondition where there is none."""
        ...
