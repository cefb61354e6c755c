"""`client.reward`: scores for responses."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from accord import _calls
from accord.errors import Internal
from accord.reward import v1 as reward_v1
from accord.types import v1 as types_v1


class Reward:
    """A reward service: scores (prompt, response) pairs with reward models, rules and mixtures of them.

    Every method raises `accord.errors`; `timeout` is seconds for the whole call, retries included.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = reward_v1.RewardServiceStub(channel)
        self._caller = caller

    async def score(
        self,
        items: Sequence[reward_v1.ScoreItem],
        *,
        scorers: Sequence[reward_v1.ScorerSpec],
        isolated: bool = False,
        timeout: float = _calls.SCORE,
    ) -> list[reward_v1.ScoreResult]:
        """One result per item, in order: a score with its parts, or a failure of that item alone.

        `isolated` scores these items in a separate batch, so that repeats are bit-equal.
        """
        request = reward_v1.ScoreRequest(items=items, scorers=scorers, isolated=isolated)
        response = await self._caller.call(lambda seconds: self._stub.Score(request, timeout=seconds), timeout)
        if len(response.results) != len(items):
            raise Internal(f"The reward service returned {len(response.results)} results for {len(items)} items")
        return list(response.results)

    async def load_model(
        self, weights: types_v1.WeightsRef, *, request_id: str | None = None, timeout: float = _calls.WEIGHTS
    ) -> str:
        """Loads a reward model and returns its digest, for ScorerSpec.model_digest."""
        request = reward_v1.LoadModelRequest(request_id=_calls.new_request_id(request_id), weights=weights)
        response = await self._caller.call(lambda seconds: self._stub.LoadModel(request, timeout=seconds), timeout)
        return response.digest

    async def unload_model(self, digest: str, *, request_id: str | None = None, timeout: float = _calls.QUICK) -> None:
        """Unloads a model; does nothing if it is not loaded."""
        request = reward_v1.UnloadModelRequest(request_id=_calls.new_request_id(request_id), digest=digest)
        await self._caller.call(lambda seconds: self._stub.UnloadModel(request, timeout=seconds), timeout)

    async def scorers(self, *, timeout: float = _calls.QUICK) -> reward_v1.ListScorersResponse:
        """The available scorers with the schemas of their options, and the digests of the loaded models."""
        request = reward_v1.ListScorersRequest()
        return await self._caller.call(lambda seconds: self._stub.ListScorers(request, timeout=seconds), timeout)
