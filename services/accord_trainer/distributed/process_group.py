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
from accord_trainer.distributed.world import Passes, straight

T = TypeVar("T")
# How long a rank waits for work: as long as the leader's connection stands.
IDLE = timedelta(days=3650)
# What a gradient's all-reduce takes at once, elements.
BUCKET = 2**24


class ProcessGroup:
    """A World over torch.distributed. With `sharded`, weights are spread (FSDP2); else each rank has them all (DDP)."""

    def __init__(self, *, sharded: bool, seconds: float) -> None:
        """Joins the others, who must do so too within `seconds`; also how long any exchange may then take."""
        timeout = timedelta(seconds=seconds)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _lost():
            store, rank, size = next(rendezvous("env://", timeout=timeout))
            # torchrun keeps the store when it starts the ranks again, with the addresses of the dead in it.
            store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
            self._words = dist.new_group(backend="gloo", timeout=timeout)
            self._orders = dist.new_group(backend="gloo", timeout=IDLE)
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.sharded = sharded
        self._meshes: dict[str, DeviceMesh] = {}

    def mine(self, items: Sequence[T]) -> list[T]:
        # There and back again: of items sorted by length no rank gets the longer one each time.
        return [item for i, item in enumerate(items) if _turn(i, self.size) == self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        with _lost():
            dist.all_reduce(total)
        return total

    def max(self, value: float) -> float:
        largest = torch.tensor(value, dtype=torch.float64)
        with _lost():
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._words)
        return float(largest)

    def place(self, modules: Iterable[nn.Module], compute_dtype: str) -> Passes:
        if not self.sharded:
            return straight
        modules = list(modules)
        if any("lora_" in name for module in modules for name, _ in module.named_parameters()):
            raise InvalidArgument.at(
                "training.options.lora_rank",
                "adapters are not spread over ranks (they are small): start the trainer with --parallel ddp",
            )
        kind = next(parameter.device.type for module in modules for parameter in module.parameters())
        if kind not in self._meshes:
            self._meshes[kind] = init_device_mesh(kind, (self.size,))
        return shard(modules, self._meshes[kind], compute_dtype)

    def add_gradients(self, parameters: Iterable[Parameter]) -> None:
        # Sharded ones were summed as the backward pass went by.
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

    def order(self, data: bytes = b"") -> bytes:
        """What rank 0 says next, to all; the others wait for it without end. RANK_LOST when it is gone."""
        with _lost():
            length = torch.tensor(len(data))
            dist.broadcast(length, 0, group=self._orders)
            content = _bytes(data) if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self._orders)
        return content.numpy().tobytes()

    def exchange(self, data: bytes) -> list[bytes]:
        """What each rank says, by rank."""
        with _lost():
            lengths = [torch.tensor(0) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor(len(data)), group=self._words)
            longest = max(1, *(int(length) for length in lengths))
            parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, _bytes(data.ljust(longest)), group=self._words)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]


def started_by_torchrun() -> bool:
    """Whether this process is one of a group: torchrun says so in the environment."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def local_device(choice: str) -> torch.device:
    """`cpu`, `cuda`, or `auto`: the GPU of this rank's turn on its machine where there is one."""
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise FailedPrecondition("torch finds no GPU here: set device to cpu or auto", reason="NO_GPU")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def rank_lost(error: Exception) -> Unavailable:
    """The error for a rank that is gone or does not answer."""
    what = next(iter(str(error).splitlines()), repr(error))
    return Unavailable(
        f"a rank of the trainer was lost ({what}): the trainer ends and is to be started again (torchrun "
        "--max-restarts does it); it goes on from its last checkpoint. Repeat the steps since then",
        reason="RANK_LOST",
    )


def breaks(error: Exception) -> bool:
    """Whether a rank cannot go on after it: torch's errors (a dead peer inside FSDP's exchanges, no memory) may leave
    weights half gathered."""
    return isinstance(error, RuntimeError) or (isinstance(error, AccordError) and error.reason == "RANK_LOST")


@contextmanager
def _lost() -> Iterator[None]:
    """Tells what torch.distributed says of a dead or silent rank as our error."""
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
