"""`client.models`: the registry of promoted policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence

import grpc.aio

from accord import _calls
from accord.controller import v1 as controller_v1


class Models:
    """The models that runs promoted, and their base models."""

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = controller_v1.ModelServiceStub(channel)
        self._caller = caller

    async def list(self, *, timeout: float = _calls.QUICK) -> AsyncIterator[controller_v1.Model]:
        """All models, newest first. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[controller_v1.ListModelsResponse]:
            request = controller_v1.ListModelsRequest(page_token=token)
            return self._caller.call(lambda seconds: self._stub.ListModels(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for model in page.models:
                yield model

    async def get(self, name: str, *, timeout: float = _calls.QUICK) -> controller_v1.Model:
        """A model by its name, as in `list`, or `models/<name>`; for a run's name, its active policy. NotFound if there
        is none."""
        request = controller_v1.GetModelRequest(name=name)
        response = await self._caller.call(lambda seconds: self._stub.GetModel(request, timeout=seconds), timeout)
        return response.model

    async def lineage(
        self, name: str | None = None, *, weights_digest: str | None = None, timeout: float = _calls.QUICK
    ) -> controller_v1.GetModelLineageResponse:
        """The lineage of a model: of the registry by `name`, or any that a run trained by a prefix of its digest."""
        request = controller_v1.GetModelLineageRequest()
        if name is not None:
            request.name = name
        if weights_digest is not None:
            request.weights_digest = weights_digest
        return await self._caller.call(lambda seconds: self._stub.GetModelLineage(request, timeout=seconds), timeout)

    async def trained_on(
        self, snapshots: Sequence[str], *, timeout: float = _calls.QUICK
    ) -> Sequence[controller_v1.TrainedModel]:
        """The models that learned from any of these snapshots, oldest first."""
        request = controller_v1.ListTrainedModelsRequest(snapshots=snapshots)
        response = await self._caller.call(
            lambda seconds: self._stub.ListTrainedModels(request, timeout=seconds), timeout
        )
        return tuple(response.models)

    async def promote(
        self,
        name: str,
        *,
        reason: str = "",
        operator: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> controller_v1.Model:
        """Makes a model the active policy of its run; `operator` and `reason` are recorded in the history. NotFound;
        FailedPrecondition if its weights no longer exist."""
        request = controller_v1.PromoteModelRequest(
            request_id=_calls.new_request_id(request_id), name=name, reason=reason, operator=operator
        )
        response = await self._caller.call(lambda seconds: self._stub.PromoteModel(request, timeout=seconds), timeout)
        return response.model

    async def roll_back(
        self,
        run_id: str,
        *,
        in_force: str = "",
        reason: str = "",
        operator: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> controller_v1.Model:
        """Makes the run's previous active policy active again and returns it. FailedPrecondition if there is none.
        `in_force` is the name of the model that the caller believes is active: Aborted if a different one is active."""
        request = controller_v1.RollBackModelRequest(
            request_id=_calls.new_request_id(request_id),
            run_id=run_id,
            reason=reason,
            operator=operator,
            in_force=in_force,  # for controllers that are older than `active_model`
            active_model=in_force,
        )
        response = await self._caller.call(lambda seconds: self._stub.RollBackModel(request, timeout=seconds), timeout)
        return response.model

    async def changes(
        self, run_id: str = "", *, timeout: float = _calls.QUICK
    ) -> AsyncIterator[controller_v1.ModelChange]:
        """Changes of the active policy with operator and reason, newest first; of one run or all. `timeout` is seconds
        per page."""

        def fetch(token: str) -> Awaitable[controller_v1.ListModelChangesResponse]:
            request = controller_v1.ListModelChangesRequest(run_id=run_id, page_token=token)
            return self._caller.call(lambda seconds: self._stub.ListModelChanges(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for change in page.changes:
                yield change
