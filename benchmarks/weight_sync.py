"""The speed of weight transfer and the length of the pause, compared with this machine's limits in the same run.

    python benchmarks/weight_sync.py --gigabytes 0.1 0.5 --replicas 1 2 --json FILE

A model of that size (float32, one large embedding and small layers) is published twice, with different numbers.
For each transport it is prepared on each replica during serving, then activated. Limits: `memcpy` of the same bytes,
`loopback` a plain TCP socket on 127.0.0.1, `sha256` the digest that every transfer is verified with. All replicas, the
publisher and the limits share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import accord
from accord.artifact import v1 as artifact_v1
from accord.digest import weights_digest
from accord.types import v1 as types_v1
from accord_models.delta import write_delta
from accord_rollout.service import build
from accord_rollout.settings import RolloutSettings
from accord_runtime.artifacts.servicer import ArtifactServicer
from accord_runtime.artifacts.store import ArtifactStore
from accord_runtime.serving.server import serving
from accord_runtime.serving.settings import ServiceSettings

HIDDEN = 512


def make_models(root: Path, gigabytes: float) -> tuple[Path, Path]:
    """Two models of one architecture and about this size. One element in a hundred differs in the second."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={letter: number for number, letter in enumerate(["<end>", *letters])}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<end>",
        bos_token="<end>",
        eos_token="<end>",
        chat_template="{{ messages }}",
    )
    layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * 4 * HIDDEN
    layers = max(1, round(gigabytes * 1e9 / 4 / layer))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    folders = root / "v0", root / "v1"
    for folder in folders:
        model.save_pretrained(folder, max_shard_size="100GB")
        tokenizer.save_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.view(-1)[::100] += 0.01
    return folders


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of some timings."""
    return min(_timed(work) for _ in range(repeats))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def limits(size: int) -> dict[str, float]:
    """Seconds for `size` bytes by each limit of the machine."""
    source, target = torch.ones(size // 4), torch.empty(size // 4)
    view = memoryview(source.numpy()).cast("B")
    return {
        "memcpy": seconds(lambda: target.copy_(source)),
        "sha256": seconds(lambda: hashlib.sha256(view), 1),
        "loopback": seconds(lambda: _loopback(view)),
    }


def _loopback(data: memoryview) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            with socket.create_connection(server.getsockname()) as out:
                out.sendall(data)

        thread = threading.Thread(target=send)
        thread.start()
        with server.accept()[0] as source:
            buffer = bytearray(2**22)
            while source.recv_into(buffer):
                pass
        thread.join()


class Publisher:
    """The trainer's artifact service without the trainer."""

    service_names = ("accord.artifact.v1.ArtifactService",)

    def __init__(self, root: Path) -> None:
        self._servicer = ArtifactServicer(ArtifactStore(root))

    def register(self, server: Any) -> None:
        artifact_v1.add_ArtifactServiceServicer_to_server(self._servicer, server)

    async def close(self) -> None:
        """No GPUs are held."""


@contextlib.asynccontextmanager
async def replicas(count: int, model: Path, root: Path) -> AsyncIterator[list[accord.Client]]:
    """Rollout services that serve `model`, each with its own cache."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            settings = RolloutSettings(
                state_dir=root / f"replica{number}", model=model, dtype="float32", threads=1, device="cpu"
            )
            address = await stack.enter_async_context(serving(await build(settings), settings))
            clients.append(await stack.enter_async_context(accord.Client(rollout=address)))
        yield clients


async def measure(root: Path, gigabytes: float, counts: list[int]) -> list[dict[str, Any]]:
    """A row for each transport and number of replicas."""
    old, new = make_models(root / "published", gigabytes)
    size = sum(file.stat().st_size for file in new.glob("*.safetensors"))
    write_delta(old, new, root / "published" / "delta")
    digest, base = weights_digest(new), weights_digest(old)
    bound = limits(size)
    rows = []
    async with serving(Publisher(root / "published"), ServiceSettings()) as publisher:
        uris = {
            "file": (new.as_uri(), "merged"),
            "grpc": (f"grpc://{publisher}/v1", "merged"),
            "delta": (f"grpc://{publisher}/delta", "delta"),
        }
        for name, (uri, format) in uris.items():
            for count in counts:
                async with replicas(count, old, root / f"{name}{count}") as clients:
                    ref = types_v1.WeightsRef(uri=uri, version=1, digest=digest, format=format, base_digest=base)
                    start = time.perf_counter()
                    await asyncio.gather(*(client.rollout.prepare_weights(ref) for client in clients))
                    fetch = time.perf_counter() - start
                    answers = await asyncio.gather(*(client.rollout.activate_weights(1) for client in clients))
                    assert {answer.resident_weights.digest for answer in answers} == {digest}
                rows.append(row(name, count, size, fetch, max(answer.activate_seconds for answer in answers), bound))
                shutil.rmtree(root / f"{name}{count}", ignore_errors=True)
    return rows


def row(name: str, count: int, size: int, fetch: float, pause: float, bound: dict[str, float]) -> dict[str, Any]:
    """The measured times, and their ratio to the machine's limit: a file is hashed in place and copied once to memory,
    a stream also passes through a socket."""
    ways = {"file": ("sha256", "memcpy"), "grpc": ("loopback", "sha256", "memcpy"), "delta": ("sha256", "memcpy")}[name]
    least = count * sum(bound[way] for way in ways)
    return {
        "transport": name,
        "replicas": count,
        "gigabytes": size / 1e9,
        "fetch_seconds": fetch,
        "gigabytes_per_second": count * size / 1e9 / fetch,
        "of_limit": least / fetch,
        "limit": "+".join(ways),
        "pause_seconds": pause,
        "pause_of_fetch": pause / fetch,
        "pause_of_copy": pause / bound["memcpy"],
        **{f"{way}_gigabytes_per_second": size / 1e9 / bound[way] for way in bound},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.1], help="sizes of the model")
    parser.add_argument(
        "--replicas", type=int, nargs="+", default=[1, 2], help="number of replicas that fetch concurrently"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for gigabytes in arguments.gigabytes:
        with tempfile.TemporaryDirectory(prefix="weight-sync-") as folder:
            rows += asyncio.run(measure(Path(folder), gigabytes, arguments.replicas))
        shown = rows[-1]
        print(
            f"limits at {shown['gigabytes']:.2f} GB, GB/s: "
            + ", ".join(f"{way} {shown[f'{way}_gigabytes_per_second']:.2f}" for way in ("memcpy", "loopback", "sha256"))
        )
    print("transport  GB    replicas  fetch s  GB/s   of limit              pause ms  of fetch  of memcpy")
    for one in rows:
        print(
            f"{one['transport']:9}  {one['gigabytes']:.2f}  {one['replicas']:8}  {one['fetch_seconds']:7.2f}  "
            f"{one['gigabytes_per_second']:5.2f}  {one['of_limit']:4.2f} ({one['limit']:22}) "
            f"{one['pause_seconds'] * 1e3:7.1f}  {one['pause_of_fetch']:8.2%}  {one['pause_of_copy']:8.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
