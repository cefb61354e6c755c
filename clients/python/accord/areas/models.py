"""`client.models`: the registry of promoted policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

import grpc.aio

from accord import _calls
from accord.controller import v1 as controller_v1


class Models:
    """The models that runs have promoted, and the base models that they started from."""

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = controller_v1.ModelServiceStub(channel)
        self._caller = caller

    async def list(self, *, timeout: float = _calls.QUICK) -> AsyncIterator[controller_v1.Model]:
        """Every model, newest first. `timeout` is seconds a page."""

        def fetch(token: str) -> Awaitable[controller_v1.ListModelsResponse]:
            request = controller_v1.ListModelsRequest(page_token=token)
            return self._caller.call(lambda seconds: self._stub.ListModels(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for model in page.models:
                yield model

    async def get(self, name: str, *, timeout: float = _calls.QUICK) -> controller_v1.Model:
        """One model, by the name that `list` shows or `models/<name>`. NotFound otherwise."""
        request = controller_v1.GetModelRequest(name=name)
        response = await self._caller.call(lambda seconds: self._stub.GetModel(request, timeout=seconds), timeout)
        return response.model
