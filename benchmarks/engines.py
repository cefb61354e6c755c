"""Tokens per CPU-second of the rollout engines, and the cost of a change of weights.

    python benchmarks/engines.py --model DIR [--engines transformers] [--json FILE]
    .venv-vllm/bin/python benchmarks/engines.py --model DIR --engines transformers vllm

DIR is a causal language model in Hugging Face layout. Each engine gets the same prompts, through the seam, in one
request; the rounds of the engines alternate. CPU seconds are those of this process and its children, during generation
only; on a shared machine they are more reliable than wall-clock time. The change of weights is from the model to
itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from accord import plugins
from accord.digest import weights_digest
from accord.types import v1 as types_v1
from accord_rollout.engine import Completion, Engine, Job, Sampling, Weights
from accord_rollout.settings import RolloutSettings

TOPICS = ("the sea", "a dog", "the moon", "bread", "a friend", "music", "rain", "a train", "the sun", "a book")


@dataclass
class Figures:
    """The figures of one engine: a number for each round."""

    engine: str
    dtype: str
    tokens: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    activate_seconds: list[float] = field(default_factory=list)

    @property
    def tokens_per_cpu_second(self) -> float:
        """The median of the rounds."""
        return statistics.median(t / c for t, c in zip(self.tokens, self.cpu_seconds, strict=True))


def cpu_seconds() -> float:
    """CPU-seconds of this process and all its descendants since they began."""
    own = psutil.Process()
    spent = (process.cpu_times() for process in [own, *own.children(recursive=True)])
    return sum(times.user + times.system for times in spent)


async def change(engine: Engine, model: Path, version: int) -> float:
    """Seconds of the change itself, without its preparation."""
    activate = await engine.prepare(model, Weights(version, f"{version}"))
    begun = time.perf_counter()
    await activate()
    return time.perf_counter() - begun


async def draw(engine: Engine, prompts: int, tokens: int, seed: int) -> int:
    """Tokens generated for `prompts` prompts of a few words."""
    jobs = []
    for index in range(prompts):
        turn = types_v1.ChatMessage(role="user", content=f"Tell me about {TOPICS[index % len(TOPICS)]}.")
        jobs.append(Job(index, tuple(engine.render(types_v1.Conversation(messages=[turn]))), seed + index))
    drawn = 0
    async with aclosing(engine.generate(jobs, Sampling(max_new_tokens=tokens))) as results:
        async for result in results:
            assert isinstance(result, Completion), result
            drawn += len(result.response_token_ids)
    return drawn


async def measure(arguments: argparse.Namespace) -> list[Figures]:
    """All engines, round by round."""
    async with AsyncExitStack() as stack:
        engines: list[tuple[Figures, Engine]] = []
        for name in arguments.engines:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = RolloutSettings(
                engine=name, dtype=arguments.dtype, threads=arguments.threads, max_batch_size=arguments.prompts,
                state_dir=state, device="cpu",
            )  # fmt: skip
            engine: Engine = plugins.load("accord.engines", name)(settings)
            stack.push_async_callback(engine.close)
            await (await engine.prepare(arguments.model, Weights(0, weights_digest(arguments.model))))()
            await draw(engine, 2, 4, seed=0)  # one-time work
            engines.append((Figures(name, engine.compute_dtype), engine))
        for number in range(1, arguments.rounds + 1):
            for figures, engine in engines:
                before, begun = cpu_seconds(), time.perf_counter()
                figures.tokens.append(await draw(engine, arguments.prompts, arguments.tokens, seed=1000 * number))
                figures.seconds.append(time.perf_counter() - begun)
                figures.cpu_seconds.append(cpu_seconds() - before)
                figures.activate_seconds.append(await change(engine, arguments.model, number))
        return [figures for figures, _ in engines]


def show(found: list[Figures]) -> None:
    """A table for people."""
    table = Table("engine", "number type")
    for name in ("tokens a round", "CPU seconds", "tokens per CPU-second", "change of weights, s"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            one.engine,
            one.dtype,
            f"{statistics.median(one.tokens):.0f}",
            f"{statistics.median(one.cpu_seconds):.1f}",
            f"{one.tokens_per_cpu_second:.0f}",
            f"{statistics.median(one.activate_seconds):.2f}",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a causal language model in Hugging Face layout")
    parser.add_argument("--engines", nargs="+", default=["transformers"], help="entry points of accord.engines")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="maximum of new tokens per sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments))
    show(found)
    if arguments.json:
        figures = [{**asdict(one), "tokens_per_cpu_second": one.tokens_per_cpu_second} for one in found]
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
