"""Starts and ends vLLM's processes."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import torch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from accord.errors import FailedPrecondition, InvalidArgument
from accord_rollout.engines.vllm.options import VllmOptions
from accord_rollout.engines.vllm.worker import SERVICE_PID, WeightsChecksum

_GIB = 2**30


def device(setting: str, options: VllmOptions) -> str:
    """`cuda` or `cpu`. FailedPrecondition/NO_DEVICE if the requested device is not available."""
    cuda = torch.cuda.is_available() and setting != "cpu"
    if not cuda and (setting == "cuda" or options.weight_transfer != "reload"):
        raise FailedPrecondition(
            f"device {setting} with weight_transfer {options.weight_transfer}: torch finds no GPU here",
            reason="NO_DEVICE",
        )
    return "cuda" if cuda else "cpu"


def engine_args(folder: Path, options: VllmOptions, *, cuda: bool, dtype: str, threads: int) -> AsyncEngineArgs:
    """vLLM's arguments. Also sets the environment variables that vLLM's processes read.

    InvalidArgument/BAD_ENGINE_OPTIONS for an argument that vLLM does not know.
    """
    os.environ[SERVICE_PID] = str(os.getpid())
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    given: dict[str, Any] = dict(options.engine_args)
    if not cuda:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        # If its threads were bound to cores, they would compete with those of the other services.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        given.setdefault("kv_cache_memory_bytes", int((options.kv_cache_gib or 1) * _GIB))
        # After a part of a prompt, vLLM rewinds the generator by its offset, which torch's CPU generator does not have:
        # a seeded prompt that is split into parts ends the whole engine.
        given.setdefault("enable_chunked_prefill", False)
    elif options.kv_cache_gib is not None:
        given["kv_cache_memory_bytes"] = int(options.kv_cache_gib * _GIB)
    eager = options.enforce_eager if options.enforce_eager is not None else not cuda
    if options.weight_transfer != "reload":
        given["weight_transfer_config"] = {"backend": options.weight_transfer}
    try:
        return AsyncEngineArgs(
            model=str(folder),
            skip_tokenizer_init=True,  # tokens in, tokens out
            dtype=dtype,
            logprobs_mode="processed_logprobs",  # of the sampled distribution
            generation_config="vllm",  # none of the model's own sampling defaults
            worker_extension_cls=f"{WeightsChecksum.__module__}.{WeightsChecksum.__qualname__}",
            enforce_eager=eager,
            **{"disable_log_stats": True, **given},
        )
    except TypeError as error:
        raise InvalidArgument.at("engine_options.engine_args", str(error), reason="BAD_ENGINE_OPTIONS") from error


async def start(args: AsyncEngineArgs, folder: Path) -> AsyncLLM:
    """The engine on the model in `folder`, ready. InvalidArgument/BAD_MODEL if vLLM cannot serve it."""
    try:
        return await asyncio.to_thread(AsyncLLM.from_engine_args, args)
    except Exception as error:  # vLLM raises many types, and RuntimeError if its processes ended
        raise InvalidArgument(
            f"vLLM cannot start on {folder}: {error} (its processes' output is in the service's log)",
            reason="BAD_MODEL",
        ) from error


def end(llm: AsyncLLM) -> None:
    """Ends vLLM's processes; another thread waits for them."""
    threading.Thread(target=llm.shutdown, name="end-vllm", daemon=True).start()
