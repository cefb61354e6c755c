"""Options of the vLLM engine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from accord_rollout.engines.options import EngineOptions

# Set by the contract or by the service's settings.
OURS = (
    "model",
    "tokenizer",
    "skip_tokenizer_init",
    "dtype",
    "logprobs_mode",
    "generation_config",
    "worker_extension_cls",
    "weight_transfer_config",
)


class VllmOptions(EngineOptions):
    """`engine_options` of `--engine vllm`."""

    weight_transfer: Literal["reload", "ipc", "nccl"] = Field(
        "reload",
        description="How new weights reach the workers: reload (each reads the folder), ipc (the service shares its "
        "only GPU with the worker), nccl (the service uses the GPU after the workers').",
    )
    enforce_eager: bool | None = Field(
        None, description="No compilation and no CUDA graphs; unset: true on a CPU, vLLM's default on GPUs."
    )
    kv_cache_gib: float | None = Field(
        None, gt=0, description="Memory for keys and values, GiB; unset: 1 on a CPU, vLLM's choice on GPUs."
    )
    update_seconds: float = Field(300, gt=0, description="Deadline of one weight update, seconds.")
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Any other field of vLLM's AsyncEngineArgs: tensor_parallel_size, ..."
    )

    @field_validator("engine_args")
    @classmethod
    def _not_ours(cls, given: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(given) & set(OURS))
        if taken:
            raise ValueError(f"{', '.join(taken)} cannot be set here: the service decides")
        return given
