"""`client.annotators`: annotators and the quality of their feedback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from accord import _calls
from accord.preference import v1 as preference_v1


class Annotators:
    """The annotators of a preference service.

    Every method raises `accord.errors`; `timeout` is seconds for the whole call, retries included.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = preference_v1.AnnotatorServiceStub(channel)
        self._caller = caller

    async def register(
        self,
        annotator: preference_v1.Annotator,
        *,
        display_name: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.AnnotatorProfile:
        """Registers an annotator, or updates their name."""
        request = preference_v1.RegisterAnnotatorRequest(
            request_id=_calls.new_request_id(request_id),
            profile=preference_v1.AnnotatorProfile(annotator=annotator, display_name=display_name),
        )
        response = await self._caller.call(
            lambda seconds: self._stub.RegisterAnnotator(request, timeout=seconds), timeout
        )
        return response.profile

    async def get(
        self, annotator: preference_v1.Annotator, *, timeout: float = _calls.QUICK
    ) -> preference_v1.AnnotatorProfile:
        """The annotator. NotFound if there is none."""
        request = preference_v1.GetAnnotatorRequest(annotator=annotator)
        response = await self._caller.call(lambda seconds: self._stub.GetAnnotator(request, timeout=seconds), timeout)
        return response.profile

    async def list(
        self,
        *,
        kind: preference_v1.AnnotatorKind.ValueType | None = None,
        state: preference_v1.AnnotatorState.ValueType | None = None,
        timeout: float = _calls.QUICK,
    ) -> AsyncIterator[preference_v1.AnnotatorProfile]:
        """All annotators, ordered by id; optionally of one kind or state. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[preference_v1.ListAnnotatorsResponse]:
            request = preference_v1.ListAnnotatorsRequest(page_token=token)
            if kind is not None:
                request.kind = kind
            if state is not None:
                request.state = state
            return self._caller.call(lambda seconds: self._stub.ListAnnotators(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for profile in page.profiles:
                yield profile

    async def exclude(
        self,
        annotator: preference_v1.Annotator,
        *,
        reason: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> preference_v1.AnnotatorProfile:
        """Stops giving an annotator tasks and leaves their feedback out of new snapshots; `reinstate` undoes this."""
        request = preference_v1.ExcludeAnnotatorRequest(
            request_id=_calls.new_request_id(request_id), annotator=annotator, reason=reason
        )
        response = await self._caller.call(
            lambda seconds: self._stub.ExcludeAnnotator(request, timeout=seconds), timeout
        )
        return response.profile

    async def reinstate(
        self, annotator: preference_v1.Annotator, *, request_id: str | None = None, timeout: float = _calls.QUICK
    ) -> preference_v1.AnnotatorProfile:
        """Undoes `exclude`. FailedPrecondition, ANNOTATOR_WITHDRAWN, if the annotator was withdrawn."""
        request = preference_v1.ReinstateAnnotatorRequest(
            request_id=_calls.new_request_id(request_id), annotator=annotator
        )
        response = await self._caller.call(
            lambda seconds: self._stub.ReinstateAnnotator(request, timeout=seconds), timeout
        )
        return response.profile

    async def withdraw(
        self,
        annotator: preference_v1.Annotator,
        *,
        reason: str = "",
        request_id: str | None = None,
        timeout: float = _calls.SCORE,
    ) -> preference_v1.WithdrawAnnotatorResponse:
        """Withdraws an annotator's consent permanently; the response names the snapshots with their feedback."""
        request = preference_v1.WithdrawAnnotatorRequest(
            request_id=_calls.new_request_id(request_id), annotator=annotator, reason=reason
        )
        return await self._caller.call(lambda seconds: self._stub.WithdrawAnnotator(request, timeout=seconds), timeout)

    async def quality(
        self,
        *,
        queues: Sequence[str] = (),
        sources: Sequence[str] = (),
        kinds: Sequence[preference_v1.AnnotatorKind.ValueType] = (),
        window_seconds: float | None = None,
        timeout: float = _calls.SCORE,
    ) -> Sequence[preference_v1.KindQuality]:
        """Agreement, gold accuracy, speed, drift and reliability, separately for each kind of annotator."""
        window = None
        if window_seconds is not None:
            window = Duration()
            window.FromMilliseconds(round(window_seconds * 1000))
        request = preference_v1.GetQualityRequest(queues=queues, sources=sources, annotator_kinds=kinds, window=window)
        response = await self._caller.call(lambda seconds: self._stub.GetQuality(request, timeout=seconds), timeout)
        return tuple(response.kinds)
