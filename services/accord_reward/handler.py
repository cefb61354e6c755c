"""The logic of the reward service, without gRPC: scores, loads and unloads models, lists scorers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from accord.reward import v1 as reward_v1
from accord_reward.batching import Admission, BatchLimits
from accord_reward.mixture import Mixed, Part, mix
from accord_reward.models import ModelLimits, Models
from accord_reward.scorer import Item, ItemFailure
from accord_reward.scorer_pool import PythonPolicy, ScorerDescription, ScorerPool, ScorerRequest
from accord_reward.settings import RewardSettings
from accord_runtime.serving.idempotency import OnceInMemory


@dataclass(frozen=True)
class MixturePart:
    """One scorer of a mixture, and its place in the sum."""

    scorer: ScorerRequest
    part: Part


class RewardHandler:
    """The behaviour of accord.reward.v1.RewardService. Create it inside a running event loop; close it once."""

    def __init__(self, settings: RewardSettings) -> None:
        # One thread: forward passes that share cores take longer than passes in sequence.
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="reward-compute")
        self._admission = Admission(settings.max_queued_items)
        self._once = OnceInMemory()
        self._models = Models(
            settings.state_dir / "cache",
            ModelLimits(settings.max_models, settings.model_idle_seconds, settings.dtype, settings.compute_threads),
            self._compute,
            on_unload=lambda digest: self._scorers.forget_model(digest),
        )
        self._scorers = ScorerPool(
            self._models,
            self._compute,
            BatchLimits(settings.batch_window_ms / 1000, settings.max_batch_items),
            settings.max_batch_tokens,
            PythonPolicy(settings.python_allowed, settings.python_root),
        )

    async def score(
        self, mixture: Sequence[MixturePart], items: Sequence[Item], isolated: bool = False
    ) -> list[Mixed | ItemFailure]:
        """The mixture's score of every item, in order, or the item's failure.

        `isolated`: in separate batches. Errors as `ScorerPool.get`; ResourceExhausted/OVERLOADED.
        """
        with self._admission.admit(len(items)):
            batchers = [await self._scorers.get(part.scorer) for part in mixture]
            columns = await asyncio.gather(*(batcher.score(items, isolated) for batcher in batchers))
        parts = [part.part for part in mixture]
        return [mix(parts, raws) for raws in zip(*columns, strict=True)]

    async def load_model(self, request: reward_v1.LoadModelRequest) -> str:
        """Loads a model and returns its digest. Errors as `Models.load`, and REQUEST_ID_REUSED."""
        await self._once.run(request.request_id, request, lambda: self._models.load(request.weights))
        # A repeated request may arrive after the model was unloaded; the model is then loaded again.
        return await self._models.load(request.weights)

    async def unload_model(self, request: reward_v1.UnloadModelRequest) -> None:
        """Unloads a model if it is loaded. A repeated request does not unload a model that was loaded since."""

        async def unload() -> None:
            self._models.unload(request.digest)

        await self._once.run(request.request_id, request, unload)

    def list_scorers(self) -> tuple[list[ScorerDescription], list[str]]:
        """The available scorers, and the digests of the loaded models."""
        return self._scorers.describe(), self._models.digests

    async def close(self) -> None:
        """Ends the waiting calls and releases the models."""
        await self._scorers.close()
        self._compute.shutdown(wait=False, cancel_futures=True)
