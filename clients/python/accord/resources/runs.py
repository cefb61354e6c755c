"""`client.runs`: runs of the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

import grpc.aio

from accord import _calls
from accord.controller import v1 as controller_v1


class Runs:
    """Creates, watches, edits, pauses, resumes and cancels runs.

    Every method raises `accord.errors`; `timeout` is seconds for the whole call, retries included.
    """

    def __init__(self, channel: grpc.aio.Channel, caller: _calls.Caller) -> None:
        self._stub = controller_v1.RunServiceStub(channel)
        self._caller = caller

    async def create(
        self, run: controller_v1.Run, *, request_id: str | None = None, timeout: float = _calls.QUICK
    ) -> controller_v1.Run:
        """Starts a run. AlreadyExists if one with this name exists with a different spec."""
        request = controller_v1.CreateRunRequest(request_id=_calls.new_request_id(request_id), run=run)
        response = await self._caller.call(lambda seconds: self._stub.CreateRun(request, timeout=seconds), timeout)
        return response.run

    async def get(self, run_id: str, *, timeout: float = _calls.QUICK) -> controller_v1.Run:
        """The run with its status. NotFound if there is none."""
        request = controller_v1.GetRunRequest(run_id=run_id)
        response = await self._caller.call(lambda seconds: self._stub.GetRun(request, timeout=seconds), timeout)
        return response.run

    async def list(self, *, timeout: float = _calls.QUICK) -> AsyncIterator[controller_v1.Run]:
        """All runs, newest first. `timeout` is seconds per page."""

        def fetch(token: str) -> Awaitable[controller_v1.ListRunsResponse]:
            request = controller_v1.ListRunsRequest(page_token=token)
            return self._caller.call(lambda seconds: self._stub.ListRuns(request, timeout=seconds), timeout)

        async for page in _calls.pages(fetch):
            for run in page.runs:
                yield run

    async def watch(
        self, run_id: str, *, after_sequence: int = 0, timeout: float | None = None
    ) -> AsyncIterator[controller_v1.RunEvent]:
        """A run's events after `after_sequence`, then new ones as they happen, until it ends or is paused.

        A broken stream is resumed, and each event is yielded once. Unavailable if the controller stays unreachable.
        `timeout`: seconds for the whole watch; None: no limit.
        """
        seen = after_sequence

        async def follow(seconds: float) -> AsyncIterator[controller_v1.RunEvent]:
            nonlocal seen
            request = controller_v1.WatchRunRequest(run_id=run_id, after_sequence=seen)
            async for response in self._stub.WatchRun(request, timeout=seconds):
                if response.event.sequence > seen:
                    seen = response.event.sequence
                    yield response.event

        async for event in self._caller.resumed(follow, timeout):
            yield event

    async def events(
        self, run_id: str, *, after_sequence: int = 0, timeout: float = _calls.QUICK
    ) -> AsyncIterator[controller_v1.RunEvent]:
        """A run's past events after `after_sequence`, in order. `timeout` is seconds per page."""
        seen = after_sequence
        while True:
            request = controller_v1.ListEventsRequest(run_id=run_id, after_sequence=seen)
            page = await self._list_events(request, timeout)
            for event in page.events:
                seen = event.sequence
                yield event
            if not page.events:
                return

    async def _list_events(
        self, request: controller_v1.ListEventsRequest, timeout: float
    ) -> controller_v1.ListEventsResponse:
        return await self._caller.call(lambda seconds: self._stub.ListEvents(request, timeout=seconds), timeout)

    async def cancel(
        self, run_id: str, *, etag: str = "", request_id: str | None = None, timeout: float = _calls.QUICK
    ) -> controller_v1.Run:
        """Cancels a run permanently; its promoted policies stay. With `etag`: Aborted if the run has changed since."""
        request = controller_v1.CancelRunRequest(request_id=_calls.new_request_id(request_id), run_id=run_id, etag=etag)
        response = await self._caller.call(lambda seconds: self._stub.CancelRun(request, timeout=seconds), timeout)
        return response.run

    async def pause(
        self, run_id: str, *, request_id: str | None = None, timeout: float = _calls.QUICK
    ) -> controller_v1.Run:
        """Pauses a run after its current step."""
        request = controller_v1.PauseRunRequest(request_id=_calls.new_request_id(request_id), run_id=run_id)
        response = await self._caller.call(lambda seconds: self._stub.PauseRun(request, timeout=seconds), timeout)
        return response.run

    async def resume(
        self, run_id: str, *, request_id: str | None = None, timeout: float = _calls.QUICK
    ) -> controller_v1.Run:
        """Resumes a paused, failed or interrupted run."""
        request = controller_v1.ResumeRunRequest(request_id=_calls.new_request_id(request_id), run_id=run_id)
        response = await self._caller.call(lambda seconds: self._stub.ResumeRun(request, timeout=seconds), timeout)
        return response.run

    async def swap_engine(
        self,
        run_id: str,
        engine: str = "",
        *,
        replicas: int = 0,
        engine_options: Mapping[str, Any] | None = None,
        addresses: Sequence[str] = (),
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> controller_v1.EngineSwap:
        """Replaces the rollout engine of an active run: by replicas of `engine` that the controller's launcher starts,
        or by the running services at `addresses` (`host:port`).

        Returns at once; `get(run_id).status.swaps` has the progress, and why candidates were refused.
        FailedPrecondition: RUN_ENDED, SWAP_UNDER_WAY, NO_LAUNCHER.
        """
        services = controller_v1.RolloutServices(engine=engine, replicas=replicas, addresses=addresses)
        if engine_options:
            services.engine_options.update(dict(engine_options))
        request = controller_v1.SwapEngineRequest(
            request_id=_calls.new_request_id(request_id), run_id=run_id, services=services
        )
        response = await self._caller.call(lambda seconds: self._stub.SwapEngine(request, timeout=seconds), timeout)
        return response.swap

    async def update(
        self,
        run: controller_v1.Run,
        fields: Sequence[str] = (),
        *,
        etag: str = "",
        request_id: str | None = None,
        timeout: float = _calls.QUICK,
    ) -> controller_v1.Run:
        """Edits the spec of an active run: `rollout.engine`, `rollout.replicas`, `rollout.engine_options`.

        `run`: its name and its new spec; with `fields` only these are taken from it (`("rollout.engine",)`). With
        `etag`: Aborted if the run has changed since. A different engine takes over as in `swap_engine`; the swap is the
        last of `status.swaps` in the result. Repeating an edit changes nothing.
        InvalidArgument names fields that cannot be edited; FailedPrecondition: RUN_ENDED, SWAP_UNDER_WAY, NO_LAUNCHER.
        """
        request = controller_v1.UpdateRunRequest(
            request_id=_calls.new_request_id(request_id),
            run=controller_v1.Run(run_id=run.run_id, spec=run.spec),
            etag=etag,
        )
        request.update_mask.paths.extend(f"spec.{field.removeprefix('spec.')}" for field in fields)
        response = await self._caller.call(lambda seconds: self._stub.UpdateRun(request, timeout=seconds), timeout)
        return response.run

    async def collect_garbage(
        self, dry_run: bool = False, *, request_id: str | None = None, timeout: float = _calls.STREAM
    ) -> controller_v1.CollectGarbageResponse:
        """Deletes weights and checkpoints that no run, snapshot or promoted model references. `dry_run`: only list."""
        request = controller_v1.CollectGarbageRequest(request_id=_calls.new_request_id(request_id), dry_run=dry_run)
        return await self._caller.call(lambda seconds: self._stub.CollectGarbage(request, timeout=seconds), timeout)

    async def ensure_services(self, names: Sequence[str] = (), *, timeout: float = _calls.SCORE) -> dict[str, str]:
        """Starts services that are not up and returns the addresses (`host:port`) by name. `names`: `rollout`,
        `reward`, `preference`, `trainer`; empty: all."""
        request = controller_v1.EnsureServicesRequest(services=names)
        response = await self._caller.call(lambda seconds: self._stub.EnsureServices(request, timeout=seconds), timeout)
        return dict(response.addresses)
