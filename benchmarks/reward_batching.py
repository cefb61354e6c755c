"""The gain of batching concurrent callers: items per second of the reward service, batched and one at a time.

    python benchmarks/reward_batching.py --model DIR [--items 64] [--repeats 3] [--json FILE]

DIR is a causal language model or encoder in Hugging Face layout; a reward model with a fresh head is made from it
(speed does not depend on the weights of the head). The service runs as a separate process. It scores the same items in
three ways, one item per call, alternating so that a busy machine affects all alike. CPU seconds are those of the
service; on a shared machine they are more reliable than wall-clock time:

- `one at a time`: one caller waits for each score;
- `concurrent, isolated`: all callers at once, each in a separate batch (as in a service without batching);
- `concurrent, batched`: all callers at once, joined by the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

import accord
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "my",
    "lazy",
    "dog",
    "and",
    "then",
    "we",
    "talk",
    "about",
    "it",
]
WAYS = ("one at a time", "concurrent, isolated", "concurrent, batched")


def make_items(count: int, seed: int = 0) -> list[reward_v1.ScoreItem]:
    """Responses of 5 to 60 words to prompts of 5 to 20."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return [
        reward_v1.ScoreItem(
            prompt=types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=words(5, 20))]),
            response=words(5, 60),
        )
        for _ in range(count)
    ]


def make_reward_model(trunk: Path, folder: Path) -> types_v1.WeightsRef:
    """A reward model with a fresh head on the trunk in `trunk`."""
    from accord_models.loading import new_reward_model
    from accord_models.publishing import save_model
    from accord_models.tokenizer import load_tokenizer

    digest = save_model(new_reward_model(trunk, seed=0), load_tokenizer(trunk), folder, "float32")
    return types_v1.WeightsRef(uri=folder.resolve().as_uri(), digest=digest)


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[tuple[str, psutil.Process]]:
    """A reward service: its address and its process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "accord_reward", "--state-dir", str(folder / "state"), "--log-level", "warning",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line:
            raise SystemExit("the reward service did not start; its message is above")
        yield line.split()[-1], psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def run(way: str, client: accord.Client, items: list[reward_v1.ScoreItem], spec: reward_v1.ScorerSpec) -> float:
    """Seconds to score all items, one item per call. Exits if an item fails, since failures must not count as speed."""
    isolated = way == "concurrent, isolated"
    calls = [client.reward.score([item], scorers=[spec], isolated=isolated, timeout=600) for item in items]
    started = time.perf_counter()
    answers = [await call for call in calls] if way == "one at a time" else await asyncio.gather(*calls)
    seconds = time.perf_counter() - started
    if failed := [result.failure.message for answer in answers for result in answer if result.HasField("failure")]:
        raise SystemExit(f"{len(failed)} items failed: {failed[0]}")
    return seconds


@dataclass(frozen=True)
class Cost:
    """Wall-clock and CPU seconds of each repeat."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def cpu_seconds(process: psutil.Process) -> float:
    """CPU-seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(weights: types_v1.WeightsRef, folder: Path, count: int, repeats: int) -> dict[str, Cost]:
    """The cost of each way, after one unmeasured call."""
    items = make_items(count)
    costs = {way: Cost() for way in WAYS}
    async with service(folder) as (address, process), accord.Client(reward=address) as client:
        spec = reward_v1.ScorerSpec(name="model", model_digest=await client.reward.load_model(weights, timeout=600))
        await client.reward.score(items[:8], scorers=[spec], timeout=600)
        for repeat in range(repeats):
            for way in WAYS:
                used = cpu_seconds(process)
                costs[way].seconds.append(await run(way, client, items, spec))
                costs[way].cpu_seconds.append(cpu_seconds(process) - used)
                print(f"repeat {repeat + 1}/{repeats}: {way}: {costs[way].seconds[-1]:.2f} s", file=sys.stderr)
    return costs


def main() -> None:
    """Measures, prints a table, writes JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trunk")
    parser.add_argument("--items", type=int, default=64, help="items, and concurrent callers")
    parser.add_argument("--repeats", type=int, default=3, help="measured rounds; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = make_reward_model(options.model, folder / "model")
        costs = asyncio.run(measure(weights, folder, options.items, options.repeats))
    clock = {way: statistics.median(cost.seconds) for way, cost in costs.items()}
    cpu = {way: statistics.median(cost.cpu_seconds) for way, cost in costs.items()}
    alone, batched = WAYS[0], WAYS[-1]
    table = Table("way", "seconds", "items/s", "times alone", "CPU s", "times alone", title=f"{options.items} items")
    for way in WAYS:
        ratios = (f"{clock[alone] / clock[way]:.2f}", f"{cpu[alone] / cpu[way]:.2f}")
        rate = f"{options.items / clock[way]:.1f}"
        table.add_row(way, f"{clock[way]:.2f}", rate, ratios[0], f"{cpu[way]:.2f}", ratios[1])
    Console().print(table)
    if options.json:
        figures = {
            "items": options.items,
            "cpus": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "model": options.model.name,
            "ways": {way: asdict(cost) for way, cost in costs.items()},
            "items_per_second": {way: options.items / clock[way] for way in WAYS},
            "ratio_batched_to_one_at_a_time": clock[alone] / clock[batched],
            "cpu_ratio_batched_to_one_at_a_time": cpu[alone] / cpu[batched],
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
