"""The seam of the trainer: the interface of a training algorithm, its inputs, and the declaration of its options.

An algorithm is a class under an entry point of group `accord.algorithms`. It owns its models and optimizer and is
independent of gRPC, files and versions: the training around it (`trainings/training.py`) verifies, checkpoints and
publishes. Options are frozen models whose errors name the field of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.errors import FieldViolation, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord_trainer.distributed.world import Alone, World

Kind = Literal["samples", "preferences"]
Options = TypeVar("Options", bound=BaseModel)
# The field of a request that contains the options.
PATH = "training.options"


@dataclass(frozen=True)
class Start:
    """The inputs of a new algorithm: verified model folders on the local disk, and the resolved settings."""

    init: Path
    reference: Path | None
    critic: Path | None
    # Whether the reference is the initial model.
    reference_is_init: bool
    seed: int
    # `float32` or `bfloat16`: the type of matrix products. Master weights are float32.
    compute_dtype: str
    # The ranks that train together.
    world: World = field(default_factory=Alone)
    # The device that computes.
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Experience:
    """A verified batch: samples for policy algorithms or preferences for reward models; the other list is empty."""

    samples: list[trainer_v1.ScoredSample]
    preferences: list[trainer_v1.PreferenceExample]


@dataclass
class StepContext:
    """The context of a step: everything that it may use from outside the algorithm."""

    # The version in training; initially 0.
    version: int
    # The only source of randomness; saved with the checkpoint and restored when a step fails.
    generator: torch.Generator
    # Raises when the service is shutting down; call it between passes.
    check_stopped: Callable[[], None]


@dataclass
class AlgorithmState:
    """Everything that training changes: tensors by name (weights, optimizer) and JSON values."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)

    def copy_bytes(self) -> int:
        """The bytes of a copy on this rank."""
        return sum(map(_local_bytes, [*self.weights.values(), *self.optimizer.values()]))

    def update_bytes(self) -> int:
        """The bytes that a step allocates for trained weights on this rank: gradients and missing moments."""
        weights = sum(map(_local_bytes, self.weights.values()))
        moments = sum(map(_local_bytes, self.optimizer.values()))
        return weights + max(2 * weights - moments, 0)

    def clone(self) -> AlgorithmState:
        """A copy that later training does not touch."""
        return AlgorithmState(
            {name: tensor.detach().clone() for name, tensor in self.weights.items()},
            {name: tensor.detach().clone() for name, tensor in self.optimizer.items()},
            dict(self.scalars),
        )


class Algorithm(Protocol):
    """One training. Calls never overlap. Equal state, batch and generator give bit-equal results."""

    # The content of its batches.
    learns_from: ClassVar[Kind]
    # A frozen pydantic model of its options; it must refuse unknown keys.
    options_type: ClassVar[type[BaseModel]]

    tokenizer: PreTrainedTokenizerBase
    # Token ids are below this.
    vocabulary_size: int
    # `float32` or `bfloat16`: the type of published weights.
    publish_dtype: str

    def __init__(self, start: Start, options: Any) -> None:
        """Loads models; InvalidArgument or FailedPrecondition if they do not fit together."""
        ...

    def check(self, batch: Experience) -> None:
        """Raises if the algorithm cannot learn from the batch; changes nothing."""
        ...

    def step_bytes(self, batch: Experience) -> dict[str, int]:
        """A lower bound of the memory that a step takes in addition to current allocations, by part (the keys of
        `trainings.memory_budget.ADVICE`)."""
        ...

    def step(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """Learns from a batch and returns metrics. May raise anywhere: the caller restores the state."""
        ...

    def flops(self) -> float:
        """Floating-point operations of all passes through models so far, on all ranks; see `model.trunk.Costs`."""
        ...

    def evaluate(self, batch: Experience, context: StepContext) -> dict[str, float]:
        """Metrics of a batch under the current weights; changes nothing."""
        ...

    def state(self) -> AlgorithmState:
        """The live state, not a copy."""
        ...

    def load_state(self, state: AlgorithmState) -> None:
        """Copies a state into the algorithm; optimizer entries that it does not contain are dropped."""
        ...

    def merged(self) -> PreTrainedModel:
        """The model to publish, adapters merged in float32. May be the live model: callers only read it."""
        ...

    def save_adapter(self, folder: Path) -> None:
        """Writes only the adapter; FailedPrecondition if there is none."""
        ...


def _local_bytes(tensor: Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


class AlgorithmOptions(BaseModel):
    """Options of every gradient-based algorithm. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(3e-5, gt=0, description="AdamW's learning rate, reached after the warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    adam_epsilon: float = Field(
        1e-5, gt=0, description="AdamW's epsilon; 1e-5 as in PPO implementations that work, not 1e-8."
    )
    warmup_updates: int = Field(10, ge=0, description="Optimizer updates over which the learning rates rise from 0.")
    decay_updates: int = Field(
        0, ge=0, description="Updates over which the learning rates decay linearly to 0; 0: no decay."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Each parameter group's gradient is clipped to this norm.")
    micro_batch_tokens: int = Field(1024, ge=1, description="Tokens in one pass, padding included.")
    logits_chunk: int = Field(
        0, ge=0, description="Response tokens whose logits exist at the same time, recomputed for the gradient; 0: all."
    )
    activation_checkpointing: bool = Field(
        False,
        description="Keep only the blocks' inputs and recompute each block for the gradient: less memory, more work.",
    )
    compile: bool = Field(False, description="Compile the transformer blocks with torch.compile; needs a compiler.")
    trainable_layers: int = Field(
        0, ge=0, description="Train only this many upper blocks, the norm and the heads; 0: all."
    )
    share_prefixes: bool = Field(
        True, description="Compute a prompt once for all its responses, if the model supports it."
    )
    lora_rank: int = Field(0, ge=0, description="Rank of LoRA adapters; 0: full fine-tuning.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA's scale: alpha / rank.")
    lora_targets: tuple[str, ...] = Field((), description="Modules that get an adapter; empty: every linear layer.")
    publish_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Type of published weights; auto: the compute type, so that engine and trainer agree."
    )


def parse_options(options: Struct, into: type[Options]) -> Options:
    """`options` as a model; InvalidArgument names every unknown or invalid field."""
    try:
        return into.model_validate(MessageToDict(options))
    except ValidationError as error:
        violations = [
            FieldViolation(
                ".".join([PATH, *map(str, problem["loc"])]),
                f"unknown option; available: {', '.join(sorted(into.model_fields))}"
                if problem["type"] == "extra_forbidden"
                else f"{problem['msg']}; got {problem['input']!r}",
            )
            for problem in error.errors()
        ]
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(named, reason="BAD_OPTIONS", violations=violations) from error
