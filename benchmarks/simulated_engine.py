"""Rollout services on simulated engines, for `rollout.py`: everything is real except the model, which only waits.

    python benchmarks/simulated_engine.py --services 4 --batch 32 --batch-seconds 1

prints the addresses, one per line, and serves until standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from accord.types import v1 as types_v1
from accord_rollout.engine import (
    Activate,
    Completion,
    Failed,
    Finish,
    Job,
    ModelInfo,
    ResidentWeights,
    Sampling,
    Weights,
)
from accord_rollout.handler import RolloutHandler
from accord_rollout.service import RolloutService
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.server import serving

FINGERPRINT = "simulated"


class SimulatedEngine:
    """Generates `batch` samples at a time, in `batch_seconds`, one request after the other; each has max_new_tokens."""

    compute_dtype = "float32"
    compute_threads = 1
    max_concurrent_requests = 1
    updates_in_flight = False

    def __init__(self, batch: int, batch_seconds: float) -> None:
        self._batch = batch
        self._seconds = batch_seconds

    async def prepare(self, folder: Path, weights: Weights) -> Activate:
        """Reads nothing."""

        async def activate() -> ModelInfo:
            return ModelInfo(FINGERPRINT, 1 << 20, 1 << 16)

        return activate

    async def resident_weights(self) -> ResidentWeights:
        """Nothing is."""
        return ResidentWeights()

    def render(self, conversation: types_v1.Conversation) -> list[int]:
        """Thirty tokens."""
        return list(range(100, 130))

    def decode(self, token_ids: Sequence[int]) -> str:
        """A text with this number of tokens."""
        return "word " * len(token_ids)

    async def generate(self, jobs: Sequence[Job], sampling: Sampling) -> AsyncGenerator[Completion | Failed, None]:
        """Batch after batch; the samples of a batch are returned together when its time is over."""
        tokens = tuple(range(1000, 1000 + sampling.max_new_tokens))
        logprobs = (-1.25,) * sampling.max_new_tokens
        loop = asyncio.get_running_loop()
        over = loop.time()
        for start in range(0, len(jobs), self._batch):
            over += self._seconds
            await asyncio.sleep(max(0.0, over - loop.time()))
            for job in jobs[start : start + self._batch]:
                yield Completion(job.index, tokens, logprobs, Finish.LENGTH)

    async def close(self) -> None:
        """Does nothing."""


async def serve(services: int, batch: int, batch_seconds: float) -> None:
    """Waits until standard input ends."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number in range(services):
            settings = RolloutSettings(state_dir=folder / str(number), max_pending_samples=1 << 20)
            handler = RolloutHandler(
                SimulatedEngine(batch, batch_seconds),
                engine_name="simulated",
                cache=settings.state_dir / "cache",
                max_pending_samples=settings.max_pending_samples,
            )
            await handler.install(folder, 0, "simulated")
            print(await stack.enter_async_context(serving(RolloutService(handler), settings)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batch-seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.services, arguments.batch, arguments.batch_seconds))


if __name__ == "__main__":
    main()
