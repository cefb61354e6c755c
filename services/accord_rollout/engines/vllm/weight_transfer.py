"""Transfers verified weights from a folder into vLLM's running workers.

reload: each worker reads the folder itself. ipc and nccl: this process reads it once, onto a GPU, and acts as the
trainer of vLLM's weight-transfer interface: CUDA IPC handles to a worker on the same GPU, or an NCCL broadcast to all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerWeightTransferEngine,
    WeightSource,
    WeightTransferInitRequest,
    WeightTransferUpdateRequest,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.utils.network_utils import get_open_port
from vllm.v1.engine.async_llm import AsyncLLM

from accord_models.streaming import TYPES


class Transfer(Protocol):
    """Loads the weights of a folder into the workers of one engine, which is paused during the transfer."""

    async def send(self, folder: Path) -> None:
        """Returns when every worker has them."""
        ...


class Reload:
    """Each worker reads the folder, on any device. The folder must be on a disk that they share with this process."""

    def __init__(self, llm: AsyncLLM, seconds: float) -> None:
        self._llm, self._seconds = llm, seconds

    async def send(self, folder: Path) -> None:
        """One call to all workers."""
        await self._llm.collective_rpc("reload_weights", timeout=self._seconds, kwargs={"weights_path": str(folder)})


class Push:
    """This process sends from its GPU. `backend`: ipc (the only worker's GPU) or nccl (a GPU that no worker uses)."""

    def __init__(self, llm: AsyncLLM, backend: str, seconds: float) -> None:
        self._llm, self._backend, self._seconds = llm, backend, seconds
        self._world_size: int = llm.vllm_config.parallel_config.world_size
        self._sender: TrainerWeightTransferEngine[Any] | None = None
        self._source = FolderSource(torch.device("cuda", self._world_size if backend == "nccl" else 0))

    async def send(self, folder: Path) -> None:
        """Runs the synchronous sender in a thread; it calls back into this loop."""
        self._source.folder = folder
        await asyncio.to_thread(self._send, _Client(self._llm, asyncio.get_running_loop(), self._seconds))

    def _send(self, client: _Client) -> None:
        torch.cuda.set_device(self._source.device)  # per thread; senders use the current device
        if self._sender is None:
            self._sender = WeightTransferTrainerFactory.trainer_init(
                self._init_info(), client=client, source=self._source
            )
        self._sender.send_weights()

    def _init_info(self) -> Any:
        if self._backend == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=0, packed=True)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        return NCCLTrainerInitInfo("127.0.0.1", get_open_port(), self._world_size + 1, rank=0)


class FolderSource(WeightSource):  # type: ignore[misc]  # typed only if vLLM is installed
    """The tensors of `folder`/*.safetensors, sorted by name, read onto `device` one at a time."""

    def __init__(self, device: torch.device, folder: Path = Path()) -> None:
        self.device = device
        self.folder = folder

    def metadata(self) -> list[ParamMeta]:
        """Name, type and shape of each tensor, from the headers only."""
        found = []
        for name, file in self._files():
            with safe_open(file, framework="pt") as reader:
                part = reader.get_slice(name)
                found.append(ParamMeta(name, TYPES[part.get_dtype()], tuple(part.get_shape())))
        return found

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, file in self._files():
            with safe_open(file, framework="pt", device=str(self.device)) as reader:
                yield name, reader.get_tensor(name)

    def _files(self) -> list[tuple[str, Path]]:
        pairs: list[tuple[str, Path]] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as reader:
                pairs.extend((name, path) for name in reader.keys())  # noqa: SIM118
        return sorted(pairs)


class _Client:
    """vLLM's VLLMWeightSyncClient for an AsyncLLM in this process; every call has a deadline."""

    def __init__(self, llm: AsyncLLM, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._llm, self._loop, self._seconds = llm, loop, seconds

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._run(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info)))

    def start_weight_update(self) -> None:
        self._run(self._llm.start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        self._run(self._llm.update_weights(WeightTransferUpdateRequest(update_info=update_info)))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._run(self._llm.finish_weight_update(weight_version))

    def _run(self, call: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(call, self._loop).result(self._seconds)
