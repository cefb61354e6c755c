"""Options of algorithms: frozen models whose errors name the field of the request."""

from __future__ import annotations

from typing import Literal, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from accord.errors import FieldViolation, InvalidArgument

PATH = "training.options"


class AlgorithmOptions(BaseModel):
    """What every gradient-based algorithm can be told. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(3e-5, gt=0, description="AdamW's, reached after the warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    adam_epsilon: float = Field(1e-5, gt=0, description="AdamW's; 1e-5 as in every PPO that works, not 1e-8.")
    warmup_updates: int = Field(10, ge=0, description="Optimizer updates over which the learning rates rise from 0.")
    decay_updates: int = Field(
        0, ge=0, description="Updates after which the rates have fallen to 0 linearly; 0: never."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Each parameter group's gradient is clipped to this norm.")
    micro_batch_tokens: int = Field(1024, ge=1, description="Tokens, padding included, that go through at once.")
    logits_chunk: int = Field(
        0, ge=0, description="Response tokens whose logits are held at once, computed again for the gradient; 0: all."
    )
    activation_checkpointing: bool = Field(
        False, description="Keep only the blocks' inputs, and run each again for the gradient: less memory, more work."
    )
    compile: bool = Field(False, description="Compile the transformer blocks by torch.compile; needs a compiler.")
    trainable_layers: int = Field(0, ge=0, description="Train only this many upper blocks, norm and heads; 0: all.")
    share_prefixes: bool = Field(True, description="Compute a prompt once for all its responses, where the model can.")
    lora_rank: int = Field(0, ge=0, description="Rank of LoRA adapters; 0: full fine-tuning.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA's scale: alpha / rank.")
    lora_targets: tuple[str, ...] = Field((), description="Modules that get an adapter; empty: every linear one.")
    publish_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Type of published weights; auto: the compute type, so that engine and trainer agree."
    )


Options = TypeVar("Options", bound=BaseModel)


def parse_options(options: Struct, into: type[Options]) -> Options:
    """`options` as a model; InvalidArgument names every field that is unknown or wrong."""
    try:
        return into.model_validate(MessageToDict(options))
    except ValidationError as error:
        violations = [
            FieldViolation(
                ".".join([PATH, *map(str, problem["loc"])]),
                f"unknown option; there is: {', '.join(sorted(into.model_fields))}"
                if problem["type"] == "extra_forbidden"
                else f"{problem['msg']}; got {problem['input']!r}",
            )
            for problem in error.errors()
        ]
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(named, reason="BAD_OPTIONS", violations=violations) from error
