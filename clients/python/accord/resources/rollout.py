"""`client.rollout`: samples from a policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from accord import _calls
from accord.conversations import conversation
from accord.errors import Internal, Unavailable
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1

_PLACEHOLDER = rollout_v1.Prompt()


class Rollout:
    """A rollout service: generates samples for prompts with the active weights.

    Every method raises `accord.errors`; `timeout` is seconds for the whole call, retries included.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = rollout_v1.RolloutServiceStub(channel)
        self._caller = caller

    async def generate(
        self,
        prompts: Sequence[rollout_v1.Prompt | types_v1.Conversation | str],
        *,
        sampling: types_v1.SamplingParams,
        n: int = 1,
        request_id: str | None = None,
        version: int | None = None,
        min_version: int | None = None,
        indices: Sequence[int] = (),
        lease_token: str = "",
        tokenizer_fingerprint: str = "",
        timeout: float = _calls.GENERATE,
    ) -> AsyncIterator[rollout_v1.GenerateResponse]:
        """Yields one response (a sample or a failure) for each index, in the order in which they finish.

        A text is one user turn. Sample j of prompt i has index i * n + j; `indices` requests only some of them.
        `version`: fail unless these weights are active; `min_version`: these or later ones. If the stream breaks, the
        missing indices are requested again with the same request_id, and duplicates are dropped. An index that failed
        is yielded as `failure` and not retried. Unavailable if the stream cannot be completed.
        """
        request_id = _calls.new_request_id(request_id)
        # A replica may generate for only a few of many prompts. Placeholders for the other prompts keep the indices
        # unchanged.
        needed = {index // max(n, 1) for index in indices} if indices else range(len(prompts))
        request = rollout_v1.GenerateRequest(
            request_id=request_id,
            prompts=[_prompt(prompt) if at in needed else _PLACEHOLDER for at, prompt in enumerate(prompts)],
            n=n,
            sampling=sampling,
            version=version,
            min_version=min_version,
            tokenizer_fingerprint=tokenizer_fingerprint,
            lease_token=lease_token,
        )
        wanted = list(indices) or list(range(len(prompts) * max(n, 1)))
        missing = dict.fromkeys(wanted)
        asked = frozenset(wanted)

        async def ask(seconds: float) -> AsyncIterator[rollout_v1.GenerateResponse]:
            del request.indices[:]
            if indices or len(missing) < len(asked):
                request.indices.extend(missing)
            async for response in self._stub.Generate(request, timeout=seconds):
                index = _index(response, request_id, asked)
                if index in missing:
                    del missing[index]
                    yield response
            if missing:
                raise Unavailable(
                    f"The engine ended the stream of {request_id} without {len(missing)} of {len(asked)} samples",
                    reason="STREAM_INCOMPLETE",
                )

        async for response in self._caller.resumed(ask, timeout):
            yield response

    async def update_weights(
        self,
        weights: types_v1.WeightsRef,
        *,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.WEIGHTS,
    ) -> rollout_v1.UpdateWeightsResponse:
        """Fetches, verifies and activates weights; on any error the previous ones stay active.

        FailedPrecondition, DIGEST_MISMATCH, if the weights at the URI do not have this digest.
        """
        request = rollout_v1.UpdateWeightsRequest(
            request_id=_calls.new_request_id(request_id), weights=weights, lease_token=lease_token
        )
        return await self._caller.call(lambda seconds: self._stub.UpdateWeights(request, timeout=seconds), timeout)

    async def prepare_weights(
        self,
        weights: types_v1.WeightsRef,
        *,
        request_id: str | None = None,
        lease_token: str = "",
        timeout: float = _calls.WEIGHTS,
    ) -> rollout_v1.PreparedWeights:
        """Fetches and verifies weights while the active ones serve; `activate_weights` is then fast.

        FailedPrecondition, DIGEST_MISMATCH, as in `update_weights`; ResourceExhausted, TOO_MANY_PREPARED.
        """
        request = rollout_v1.PrepareWeightsRequest(
            request_id=_calls.new_request_id(request_id), weights=weights, lease_token=lease_token
        )
        response = await self._caller.call(lambda seconds: self._stub.PrepareWeights(request, timeout=seconds), timeout)
        return response.prepared

    async def activate_weights(
        self, version: int, *, request_id: str | None = None, lease_token: str = "", timeout: float = _calls.WEIGHTS
    ) -> rollout_v1.ActivateWeightsResponse:
        """Activates a prepared version. FailedPrecondition, NOT_PREPARED."""
        request = rollout_v1.ActivateWeightsRequest(
            request_id=_calls.new_request_id(request_id), version=version, lease_token=lease_token
        )
        return await self._caller.call(lambda seconds: self._stub.ActivateWeights(request, timeout=seconds), timeout)

    async def discard_weights(
        self, version: int, *, request_id: str | None = None, lease_token: str = "", timeout: float = _calls.QUICK
    ) -> None:
        """Discards a prepared version; does nothing if it is not prepared."""
        request = rollout_v1.DiscardWeightsRequest(
            request_id=_calls.new_request_id(request_id), version=version, lease_token=lease_token
        )
        await self._caller.call(lambda seconds: self._stub.DiscardWeights(request, timeout=seconds), timeout)

    async def status(self, *, timeout: float = _calls.QUICK) -> rollout_v1.GetStatusResponse:
        """The engine, its weights, tokenizer, limits and load."""
        request = rollout_v1.GetStatusRequest()
        return await self._caller.call(lambda seconds: self._stub.GetStatus(request, timeout=seconds), timeout)

    async def acquire_lease(
        self, holder: str, *, ttl_seconds: float, token: str = "", timeout: float = _calls.QUICK
    ) -> types_v1.Lease:
        """Takes, or with `token` renews, the exclusive use of the service. FailedPrecondition, LEASE_HELD, names the
        holder. Without `token` the call is not retried: a lost answer would leave a lease whose token is unknown."""
        ttl = Duration()
        ttl.FromMilliseconds(round(ttl_seconds * 1000))
        request = rollout_v1.AcquireLeaseRequest(holder=holder, ttl=ttl, token=token)
        response = await self._caller.call(
            lambda seconds: self._stub.AcquireLease(request, timeout=seconds), timeout, repeatable=bool(token)
        )
        return response.lease

    async def release_lease(self, token: str, *, timeout: float = _calls.QUICK) -> None:
        """Releases the lease; does nothing if it has expired."""
        request = rollout_v1.ReleaseLeaseRequest(token=token)
        await self._caller.call(lambda seconds: self._stub.ReleaseLease(request, timeout=seconds), timeout)


def _prompt(prompt: rollout_v1.Prompt | types_v1.Conversation | str) -> rollout_v1.Prompt:
    return prompt if isinstance(prompt, rollout_v1.Prompt) else rollout_v1.Prompt(conversation=conversation(prompt))


def _index(response: rollout_v1.GenerateResponse, request_id: str, asked: frozenset[int]) -> int:
    """The response's index, after checking that it belongs to this request."""
    which = response.WhichOneof("result")
    result = response.failure if which == "failure" else response.sample
    if which is None or result.request_id != request_id or result.index not in asked:
        raise Internal(
            f"The engine answered request {request_id} with {which or 'nothing'} of request "
            f"{result.request_id!r}, index {result.index}, which was not requested",
            reason="UNEXPECTED_SAMPLE",
        )
    return result.index
