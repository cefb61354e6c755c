"""The cost of the rollout contract: compared with the engine in process, with vLLM's HTTP server, and over many
replicas.

    make model
    python benchmarks/rollout.py [--only contract replicas engine vllm] [--json FILE]

- `contract`: processor time per sample of the contract itself, at both ends, on a simulated engine that uses none.
- `replicas`: samples per second over 1 to 64 simulated replicas (services whose engine waits) through
  `accord.Replicas`, each with the same work; 1 is linear, the target .95.
- `engine`: tokens per second of the transformers engine through a service, relative to the same engine in this process;
  the same prompts, seeds and batches, alternating; the tokens are compared. The target: .98.
- `vllm`: the vLLM engine through a service, relative to `vllm serve` over HTTP with the same prompts, all at once. It
  needs an environment with vLLM (`make install-vllm`) and is skipped without one.

A quick look: `--samples 8 --tokens 16 --rounds 1 --replicas 1 4 --batch-seconds 0.3`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx2
import psutil
from rich.console import Console
from rich.table import Table

import accord
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LONG = 3600.0
TOPICS = ("the sea", "a dog", "the moon", "bread", "a friend", "music", "rain", "a train", "the sun", "a book")
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Side:
    """One way to generate; a number for each round."""

    name: str
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Tokens per second."""
        return [tokens / seconds for tokens, seconds in zip(self.tokens, self.seconds, strict=True)]

    @property
    def rate(self) -> float:
        """The median of them."""
        return statistics.median(self.rates)

    @property
    def cpu_rate(self) -> float:
        """Tokens per CPU-second, of all processes that work; the median."""
        return statistics.median(t / c for t, c in zip(self.tokens, self.cpu_seconds, strict=True))


def ratio(one: Side, other: Side) -> float:
    """Rate of `one` over that of `other`: the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(one.rates, other.rates, strict=True))


@asynccontextmanager
async def process(*command: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with pipes; terminated, then killed."""
    started = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **QUIET, **env},
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        try:
            await asyncio.wait_for(started.wait(), 30)
        except TimeoutError:
            started.kill()
            await started.wait()


async def line_of(started: asyncio.subprocess.Process) -> str:
    """The next line that the process prints. SystemExit if it ended instead."""
    assert started.stdout is not None
    line = (await started.stdout.readline()).decode().strip()
    if not line:
        raise SystemExit("a measured process ended; its message is above")
    return line


async def address_of(started: asyncio.subprocess.Process) -> str:
    """The address that a service prints."""
    return (await line_of(started)).split()[-1]


def cpu_of(pid: int) -> float:
    """CPU-seconds of a process and its children."""
    own = psutil.Process(pid)
    spent = (one.cpu_times() for one in [own, *own.children(recursive=True)])
    return sum(times.user + times.system for times in spent)


@asynccontextmanager
async def service(*command: str, **env: str) -> AsyncIterator[tuple[accord.Client, int]]:
    """A client of the rollout service that a command starts, and its process."""
    async with process(*command, **env) as started, accord.Client(rollout=await address_of(started)) as client:
        yield client, started.pid


@asynccontextmanager
async def simulated(services: int, batch: int, batch_seconds: float) -> AsyncIterator[tuple[list[str], int]]:
    """Addresses of simulated services, and the process that serves them."""
    async with process(
        sys.executable, str(HERE / "simulated_engine.py"), "--services", str(services), "--batch", str(batch),
        "--batch-seconds", str(batch_seconds),
    ) as started:  # fmt: skip
        yield [await line_of(started) for _ in range(services)], started.pid


def questions(count: int) -> list[rollout_v1.Prompt]:
    """Prompts of a few words, each with a seed."""
    return [
        rollout_v1.Prompt(
            prompt_id=f"p{i}", conversation=accord.conversation(f"Tell me about {TOPICS[i % 10]}."), seed=1000 + i
        )
        for i in range(count)
    ]


async def draw(stream: AsyncIterator[rollout_v1.GenerateResponse]) -> list[types_v1.Sample]:
    """Every sample of a stream, by index."""
    found = []
    async for response in stream:
        if response.HasField("failure"):
            raise SystemExit(f"a sample failed: {response.failure.failure.message}")
        found.append(response.sample)
    return sorted(found, key=lambda sample: sample.index)


async def contract(arguments: argparse.Namespace) -> dict[str, float]:
    """Microseconds of processor time per sample, at the client and at the service."""
    sampling = types_v1.SamplingParams(max_new_tokens=arguments.tokens, temperature=1.0)
    prompts = questions(arguments.samples)
    async with simulated(1, arguments.samples, 0.0) as ([address], pid), accord.Client(rollout=address) as client:
        await draw(client.rollout.generate(prompts, sampling=sampling, timeout=LONG))
        ours, theirs, begun, drawn = time.process_time(), cpu_of(pid), time.perf_counter(), 0
        while drawn < arguments.contract_samples:
            drawn += len(await draw(client.rollout.generate(prompts, sampling=sampling, timeout=LONG)))
        return {
            "samples": drawn,
            "tokens_a_sample": arguments.tokens,
            "client_us": 1e6 * (time.process_time() - ours) / drawn,
            "service_us": 1e6 * (cpu_of(pid) - theirs) / drawn,
            "samples_a_second": drawn / (time.perf_counter() - begun),
        }


async def replicas(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Samples per second by number of replicas, each with the same work."""
    sampling = types_v1.SamplingParams(max_new_tokens=arguments.tokens, temperature=1.0)
    found: list[dict[str, float]] = []
    async with simulated(max(arguments.replicas), 32, arguments.batch_seconds) as (addresses, pid):
        for count in arguments.replicas:
            async with accord.Replicas(addresses[:count]) as group:
                await draw(group.generate(questions(count), sampling=sampling, timeout=LONG))  # connections
                prompts = questions(count * 32 * arguments.batches // 4)
                ours, theirs, begun = time.process_time(), cpu_of(pid), time.perf_counter()
                drawn = len(await draw(group.generate(prompts, sampling=sampling, n=4, timeout=LONG)))
                seconds = time.perf_counter() - begun
                found.append(
                    {
                        "replicas": count,
                        "samples": drawn,
                        "samples_a_second": drawn / seconds,
                        # The throughput of this number of engines without any waiting.
                        "linear": drawn / seconds / (count * 32 / arguments.batch_seconds),
                        "client_us": 1e6 * (time.process_time() - ours) / drawn,
                        "service_us": 1e6 * (cpu_of(pid) - theirs) / drawn,
                    }
                )
    return found


async def timed(side: Side, draw_all: Callable[[], Awaitable[int]], cpu: Callable[[], float]) -> None:
    """One round: tokens, seconds, CPU-seconds."""
    used, begun = cpu(), time.perf_counter()
    side.tokens.append(await draw_all())
    side.seconds.append(time.perf_counter() - begun)
    side.cpu_seconds.append(cpu() - used)


async def engine(arguments: argparse.Namespace) -> list[Side]:
    """The transformers engine through a service and directly, alternating."""
    from accord.digest import weights_digest
    from accord_rollout.engine import Completion, Job, Sampling, Weights
    from accord_rollout.engines.transformers.engine import TransformersEngine
    from accord_rollout.requests.plan import sample_seed
    from accord_rollout.settings import RolloutSettings

    prompts, direct, through = questions(arguments.samples), Side("engine, directly"), Side("through the contract")
    tokens: dict[str, list[list[int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        options = {"threads": arguments.threads, "dtype": arguments.dtype, "max_batch_size": arguments.samples}
        own = TransformersEngine(RolloutSettings(state_dir=Path(folder), **options))
        await (await own.prepare(arguments.model, Weights(0, weights_digest(arguments.model))))()

        async def draw_directly() -> int:
            jobs = [Job(i, tuple(own.render(p.conversation)), sample_seed(p.seed, 0)) for i, p in enumerate(prompts)]
            found: dict[int, list[int]] = {}
            async with aclosing(own.generate(jobs, Sampling(max_new_tokens=arguments.tokens))) as results:
                async for result in results:
                    assert isinstance(result, Completion), result
                    found[result.index] = list(result.response_token_ids)
                    own.decode(result.response_token_ids)
            tokens["directly"] = [found[index] for index in sorted(found)]
            return sum(map(len, found.values()))

        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        async with service(
            sys.executable, "-m", "accord_rollout", f"--state-dir={folder}", f"--model={arguments.model}",
            "--log-level=warning", *flags,
        ) as (client, pid):  # fmt: skip

            async def draw_through() -> int:
                sampling = types_v1.SamplingParams(max_new_tokens=arguments.tokens, temperature=1.0)
                found = await draw(client.rollout.generate(prompts, sampling=sampling, timeout=LONG))
                tokens["through"] = [list(one.response_token_ids) for one in found]
                return sum(len(one.response_token_ids) for one in found)

            await draw_directly()
            await draw_through()
            both = [
                (direct, draw_directly, time.process_time),
                (through, draw_through, lambda: time.process_time() + cpu_of(pid)),
            ]
            for number in range(arguments.rounds):
                for side, once, cpu in both if number % 2 else reversed(both):
                    await timed(side, once, cpu)
        await own.close()
    if tokens["directly"] != tokens["through"]:
        raise SystemExit("the two sides generated different tokens, so their times cannot be compared")
    return [direct, through]


async def vllm(arguments: argparse.Namespace, python: Path) -> list[Side]:
    """The vLLM engine through a service, then `vllm serve`: one after the other, each alone."""
    prompts = questions(arguments.samples)
    through, http = Side("vLLM through the contract"), Side("vllm serve, HTTP")
    env = {"OMP_NUM_THREADS": str(arguments.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    env |= {"TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    limits = {"max_num_seqs": arguments.samples, "enable_prefix_caching": False}
    options = json.dumps({"kv_cache_gib": 1, "enforce_eager": True, "engine_args": limits})
    path = os.pathsep.join([str(ROOT / "clients" / "python"), str(ROOT / "services")])
    with tempfile.TemporaryDirectory() as folder:
        async with service(
            str(python), "-m", "accord_rollout", "--engine=vllm", f"--engine-options={options}",
            f"--state-dir={folder}", f"--model={arguments.model}", f"--threads={arguments.threads}",
            f"--dtype={arguments.dtype}", "--log-level=warning", PYTHONPATH=path, **env,
        ) as (client, pid):  # fmt: skip
            rendered: list[list[int]] = []

            async def draw_through() -> int:
                sampling = types_v1.SamplingParams(max_new_tokens=arguments.tokens, temperature=1.0)
                found = await draw(client.rollout.generate(prompts, sampling=sampling, timeout=LONG))
                rendered[:] = [list(one.prompt_token_ids) for one in found]
                return sum(len(one.response_token_ids) for one in found)

            await draw_through()
            for _ in range(arguments.rounds):
                await timed(through, draw_through, lambda: time.process_time() + cpu_of(pid))
    port = free_port()
    async with process(
        str(python), "-m", "vllm.entrypoints.openai.api_server", f"--model={arguments.model}", f"--port={port}",
        "--host=127.0.0.1", f"--dtype={arguments.dtype}", "--enforce-eager", f"--max-num-seqs={arguments.samples}",
        "--no-enable-prefix-caching", "--no-enable-chunked-prefill", f"--kv-cache-memory-bytes={2**30}",
        "--generation-config=vllm", "--served-model-name=m", "--disable-log-stats", **env,
    ) as started:  # fmt: skip
        most = httpx2.Limits(max_connections=arguments.samples)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LONG, limits=most) as http_client:
            await answering(http_client, started)

            async def one(index: int) -> int:
                body = {
                    "model": "m", "prompt": rendered[index], "max_tokens": arguments.tokens, "temperature": 1.0,
                    "seed": 1000 + index, "logprobs": 0, "return_token_ids": True,
                }  # fmt: skip
                answer = (await http_client.post("/v1/completions", json=body)).raise_for_status().json()
                return int(answer["usage"]["completion_tokens"])

            async def draw_http() -> int:
                return sum(await asyncio.gather(*(one(index) for index in range(len(prompts)))))

            await draw_http()
            for _ in range(arguments.rounds):
                await timed(http, draw_http, lambda: time.process_time() + cpu_of(started.pid))
    return [http, through]


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def answering(client: httpx2.AsyncClient, started: asyncio.subprocess.Process) -> None:
    """Waits until the server answers."""
    end = time.monotonic() + 600
    while started.returncode is None and time.monotonic() < end:
        try:
            if (await client.get("/health", timeout=5)).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        await asyncio.sleep(1)
    raise SystemExit("vllm serve did not start; its message is above")


def show_sides(sides: Sequence[Side], console: Console, title: str) -> None:
    """The second over the first."""
    table = Table("", "tokens per round", "tokens per second", "ratio", "tokens per CPU-second", "ratio", title=title)
    for side in sides:
        clock = cpu = ""
        if side is not sides[0]:
            clock, cpu = f"{ratio(side, sides[0]):.3f}", f"{side.cpu_rate / sides[0].cpu_rate:.3f}"
        tokens = f"{statistics.median(side.tokens):.0f}"
        table.add_row(side.name, tokens, f"{side.rate:.1f}", clock, f"{side.cpu_rate:.1f}", cpu)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("contract", "replicas", "engine", "vllm")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--model", type=Path, default=ROOT / ".accord" / "models" / "smollm2-135m-instruct")
    parser.add_argument("--vllm-python", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python")
    parser.add_argument("--samples", type=int, default=64, help="samples that an engine generates concurrently")
    parser.add_argument("--tokens", type=int, default=64, help="maximum of new tokens per sample")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--contract-samples", type=int, default=8192)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--batches", type=int, default=4, help="batches of 32 samples for each replica")
    parser.add_argument("--batch-seconds", type=float, default=2.0, help="seconds per batch of a simulated engine")
    parser.add_argument("--json", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    os.environ.update(QUIET)  # the engine in this process then computes like the one in the service
    console, figures = Console(), {}
    if "contract" in arguments.only:
        found = figures["contract"] = asyncio.run(contract(arguments))
        console.print(
            f"the contract itself, {arguments.tokens} tokens per sample: {found['client_us']:.0f} us at the client and "
            f"{found['service_us']:.0f} us at the service, processor time per sample; "
            f"{found['samples_a_second']:.0f} samples per second",
            highlight=False,
        )
    if "replicas" in arguments.only:
        rows = figures["replicas"] = asyncio.run(replicas(arguments))
        table = Table("replicas", "samples per second", "of linear", "client us per sample", "services us per sample")
        for row in rows:
            table.add_row(
                f"{row['replicas']:.0f}", f"{row['samples_a_second']:.0f}", f"{row['linear']:.3f}",
                f"{row['client_us']:.0f}", f"{row['service_us']:.0f}",
            )  # fmt: skip
        console.print(table)
    if "engine" in arguments.only:
        sides = asyncio.run(engine(arguments))
        figures["engine"] = {"ratio": ratio(sides[1], sides[0]), "sides": [asdict(side) for side in sides]}
        show_sides(sides, console, f"transformers, {arguments.samples} x {arguments.tokens} tokens; the aim: .98")
    if "vllm" in arguments.only:
        if arguments.vllm_python.exists():
            sides = asyncio.run(vllm(arguments, arguments.vllm_python.absolute()))
            figures["vllm"] = {"ratio": ratio(sides[1], sides[0]), "sides": [asdict(side) for side in sides]}
            show_sides(sides, console, f"vLLM, {arguments.samples} x {arguments.tokens} tokens")
        else:
            console.print(f"no vLLM at {arguments.vllm_python}: left out (make install-vllm, or --vllm-python)")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
