"""The ranks of a process group, as torchrun starts them: gloo between CPUs, nccl between GPUs. Nothing is pickled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from accord.errors import AccordError, FailedPrecondition, InvalidArgument, Unavailable
from accord_trainer.distributed.fsdp import shard
from accord_trainer.distributed.world import Passes, unsharded

T = TypeVar("T")
# How long a rank waits for a command: as long as the connection to rank 0 holds.
IDLE = timedelta(days=3650)
# The most elements in one all-reduce of gradients.
BUCKET = 2**24


class ProcessGroup:
    """A World over torch.distributed. With `sharded`, weights are sharded (FSDP2); else each rank has them all
    (DDP)."""

    def __init__(self, *, sharded: bool, seconds: float) -> None:
        """Joins the other ranks, which must join within `seconds`; also the timeout of every later collective."""
        timeout = timedelta(seconds=seconds)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _lost():
            store, rank, size = next(rendezvous("env://", timeout=timeout))
            # torchrun keeps the store when it restarts the ranks, with the addresses of the dead processes in it.
            store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
            self._control = dist.new_group(backend="gloo", timeout=timeout)
            self._commands = dist.new_group(backend="gloo", timeout=IDLE)
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.sharded = sharded
        self._meshes: dict[str, DeviceMesh] = {}

    def mine(self, items: Sequence[T]) -> list[T]:
        # Alternate the direction, so that no rank always gets the longer of the items sorted by length.
        return [item for i, item in enumerate(items) if _turn(i, self.size) == self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        with _lost():
            dist.all_reduce(total)
        return total

    def max(self, value: float) -> float:
        largest = torch.tensor(value, dtype=torch.float64)
        with _lost():
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._control)
        return float(largest)

    def place(self, modules: Iterable[nn.Module], compute_dtype: str, blocks: Iterable[nn.Module] = ()) -> Passes:
        if not self.sharded:
            return unsharded
        modules = list(modules)
        if any("lora_" in name for module in modules for name, _ in module.named_parameters()):
            raise InvalidArgument.at(
                "training.options.lora_rank",
                "adapters are small and are not sharded; start the trainer with --parallel ddp",
            )
        kind = next(parameter.device.type for module in modules for parameter in module.parameters())
        if kind not in self._meshes:
            self._meshes[kind] = init_device_mesh(kind, (self.size,))
        return shard(modules, blocks, self._meshes[kind], compute_dtype)

    def add_gradients(self, parameters: Iterable[Parameter]) -> None:
        # Sharded gradients were summed during the backward pass.
        whole = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
        if not whole:
            return
        given = self.sum(torch.tensor([float(p.grad is not None) for p in whole]))
        for parameter, ranks in zip(whole, given.tolist(), strict=True):
            if ranks and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in whole if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with _lost():
                dist.all_reduce(flat)
            for gradient, total in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))

    def broadcast(self, data: bytes) -> bytes:
        return self._broadcast(data, self._control)

    def broadcast_command(self, data: bytes = b"") -> bytes:
        """Rank 0's next command, on every rank. The other ranks wait for it without a timeout; Unavailable, RANK_LOST,
        if rank 0 exited."""
        return self._broadcast(data, self._commands)

    def _broadcast(self, data: bytes, group: dist.ProcessGroup) -> bytes:
        with _lost():
            length = torch.tensor(len(data))
            dist.broadcast(length, 0, group=group)
            content = _bytes(data) if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
            if length:
                dist.broadcast(content, 0, group=group)
        return content.numpy().tobytes()

    def all_gather(self, data: bytes) -> list[bytes]:
        """The `data` of each rank, by rank."""
        with _lost():
            lengths = [torch.tensor(0) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor(len(data)), group=self._control)
            longest = max(1, *(int(length) for length in lengths))
            parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, _bytes(data.ljust(longest)), group=self._control)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]


def started_by_torchrun() -> bool:
    """Whether torchrun started this process, by the environment variables that it sets."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def local_device(choice: str) -> torch.device:
    """The device for `cpu`, `cuda` or `auto`: the GPU of this local rank, if there is one."""
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise FailedPrecondition("torch finds no GPU on this machine; set device to cpu or auto", reason="NO_GPU")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def rank_lost(error: Exception) -> Unavailable:
    """The error for a rank that exited or does not answer."""
    what = next(iter(str(error).splitlines()), repr(error))
    return Unavailable(
        f"a rank of the trainer was lost ({what}), so the trainer exits. Restart it, or use torchrun --max-restarts. "
        "It continues from its last checkpoint. Then repeat the steps since that checkpoint",
        reason="RANK_LOST",
    )


def breaks(error: Exception) -> bool:
    """Whether a rank cannot continue after `error`: torch's errors (a dead peer inside FSDP's collectives, no memory)
    may leave weights half gathered."""
    return isinstance(error, RuntimeError) or (isinstance(error, AccordError) and error.reason == "RANK_LOST")


@contextmanager
def _lost() -> Iterator[None]:
    """Turns torch.distributed's error for a dead or silent rank into RANK_LOST."""
    try:
        yield
    except RuntimeError as error:  # DistError among them
        raise rank_lost(error) from error


def _turn(index: int, size: int) -> int:
    turn, at = divmod(index, size)
    return size - 1 - at if turn % 2 else at


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type and device, in order, at most BUCKET elements together (a single one may be larger)."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        alike = bucket and (gradient.dtype, gradient.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or sum(g.numel() for g in bucket) + gradient.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
