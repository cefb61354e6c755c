"""The controller's calls, without gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from accord.controller import v1 as controller_v1
from accord.errors import Aborted, InvalidArgument
from accord_controller.clients.rollout_services import initial_services
from accord_controller.engine_swap import records
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger import keys
from accord_controller.ledger.ledger import Ledger
from accord_controller.models.lineage import Lineage, lineage_of
from accord_controller.models.registry import ModelRegistry
from accord_controller.runs import spec_edits
from accord_controller.runs.garbage_collection import Garbage, collect_garbage
from accord_controller.runs.manager import ACTIVE, RunManager
from accord_controller.settings import ControllerSettings
from accord_controller.spec import files
from accord_controller.spec.catalog import SpecCatalog, model_names, pin_models
from accord_controller.spec.defaults import resolve
from accord_controller.spec.validation import check
from accord_controller.store.store import Store
from accord_runtime.serving.idempotency import OnceInMemory
from accord_runtime.serving.paging import page_size, read_page

MOST_A_PAGE = 1000
LONGEST_WAIT_SECONDS = 5.0


class ControllerHandler:
    """Runs and models."""

    def __init__(self, settings: ControllerSettings, store: Store, launcher: Launcher, runs: RunManager) -> None:
        self._settings = settings
        self._store = store
        self._launcher = launcher
        self._runs = runs
        self._registry = ModelRegistry(store)
        self._once = OnceInMemory()

    async def create_run(self, request: controller_v1.CreateRunRequest) -> controller_v1.Run:
        """Checks everything that can be checked now, then starts the run. InvalidArgument; AlreadyExists."""
        return await self._once.run(request.request_id, request, lambda: self._create(request))

    async def get_run(self, run_id: str) -> controller_v1.Run:
        """One run."""
        return await self._store.get_run(run_id)

    async def list_runs(self, request: controller_v1.ListRunsRequest) -> tuple[list[controller_v1.Run], str]:
        """A page of runs and the token of the next page."""
        page = read_page(request, 0, "runs", plain_numbers=True)
        runs, following = await self._store.list_runs(page.size, page.after or None)
        return runs, page.token(following) if following else ""

    async def watch_run(self, run_id: str, after: int) -> AsyncIterator[controller_v1.RunEvent]:
        """Events after `after`, followed by new ones until the run is no longer active."""
        while True:
            changed = self._runs.changed()
            # Read the state first, so that all events written before it are seen.
            state = (await self._store.get_run(run_id)).status.state
            events = await self._store.events(run_id, after, MOST_A_PAGE)
            for event in events:
                yield event
                after = event.sequence
            if events:
                continue
            if state not in ACTIVE:
                return
            try:
                async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                if run_id not in self._runs.active():
                    return  # the run could not record why it stopped

    async def list_events(self, run_id: str, after: int, limit: int) -> list[controller_v1.RunEvent]:
        """Past events."""
        await self._store.get_run(run_id)
        return await self._store.events(run_id, after, page_size(limit, MOST_A_PAGE, MOST_A_PAGE))

    async def cancel_run(self, request: controller_v1.CancelRunRequest) -> controller_v1.Run:
        """Ends a run for good. Aborted, ETAG_MISMATCH."""

        async def cancel() -> None:
            await self._runs.cancel(await self._as_read(request.run_id, request.etag))

        await self._once.run(request.request_id, request, cancel)
        return await self._store.get_run(request.run_id)

    async def pause_run(self, request: controller_v1.PauseRunRequest) -> controller_v1.Run:
        """Stops a run at its next durable point; returns at once."""
        self._runs.pause(await self._store.get_run(request.run_id))
        return await self._store.get_run(request.run_id)

    async def resume_run(self, request: controller_v1.ResumeRunRequest) -> controller_v1.Run:
        """Resumes a run."""

        async def resume() -> None:
            await self._runs.resume(await self._store.get_run(request.run_id))

        await self._once.run(request.request_id, request, resume)
        return await self._store.get_run(request.run_id)

    async def swap_engine(self, request: controller_v1.SwapEngineRequest) -> controller_v1.EngineSwap:
        """Replaces the rollout engine of an active run. InvalidArgument; FailedPrecondition, NO_LAUNCHER."""
        run = await self._store.get_run(request.run_id)
        self._check_swap(request.services, run.status.resolved_spec, "services")
        return await self._once.run(
            request.request_id,
            request,
            lambda: self._runs.record(
                request.run_id, lambda recorder: records.request(recorder, request.request_id, request.services)
            ),
        )

    async def update_run(self, request: controller_v1.UpdateRunRequest) -> controller_v1.Run:
        """Edits the spec of an active run. InvalidArgument names fields that cannot be edited; FailedPrecondition;
        Aborted, ETAG_MISMATCH."""

        async def edit() -> None:
            run = await self._as_read(request.run.run_id, request.etag)
            await self._runs.record(run.run_id, lambda recorder: spec_edits.edit(recorder, request, self._check_swap))

        await self._once.run(request.request_id, request, edit)
        return await self._store.get_run(request.run.run_id)

    async def collect_garbage(self, request: controller_v1.CollectGarbageRequest) -> Garbage:
        """Frees unreferenced data; a dry run only reports it."""
        return await self._once.run(
            request.request_id,
            request,
            lambda: collect_garbage(
                self._store, self._launcher, self._runs, self._settings.state_dir.absolute(), dry_run=request.dry_run
            ),
        )

    async def ensure_services(self, services: Sequence[str]) -> dict[str, str]:
        """The addresses of healthy services; starts those that are down."""
        return await self._launcher.ensure(services)

    async def list_models(self, request: controller_v1.ListModelsRequest) -> tuple[list[controller_v1.Model], str]:
        """A page of models and the token of the next page."""
        page = read_page(request, 0, "models", plain_numbers=True)
        models, following = await self._store.list_models(page.size, page.after or None)
        return models, page.token(following) if following else ""

    async def get_model(self, name: str) -> controller_v1.Model:
        """One model by name or `models/<name>`; for a run's name, its active policy."""
        return await self._registry.get(name)

    async def promote_model(self, request: controller_v1.PromoteModelRequest) -> controller_v1.Model:
        """Makes a model its run's active policy."""
        return await self._once.run(request.request_id, request, lambda: self._registry.promote(request))

    async def roll_back_model(self, request: controller_v1.RollBackModelRequest) -> controller_v1.Model:
        """Returns to the previous active policy."""
        return await self._once.run(request.request_id, request, lambda: self._registry.roll_back(request))

    async def model_changes(
        self, request: controller_v1.ListModelChangesRequest
    ) -> tuple[list[controller_v1.ModelChange], str]:
        """A page of the changes of active policies, and the token of the next page."""
        page = read_page(request, 0, "model_changes", request.run_id, plain_numbers=True)
        found, following = await self._store.model_changes(request.run_id, page.size, page.after or None)
        return found, page.token(following) if following else ""

    async def model_lineage(
        self, request: controller_v1.GetModelLineageRequest
    ) -> controller_v1.GetModelLineageResponse:
        """The steps that produced a model."""
        lineage = await self._lineage()
        match request.WhichOneof("subject"):
            case "name":
                return lineage.of_model(request.name.removeprefix(files.REGISTRY))
            case "weights_digest":
                return lineage.of_digest(request.weights_digest)
        raise InvalidArgument.at("subject", "set one of name, weights_digest")

    async def trained_models(self, snapshots: Sequence[str]) -> list[controller_v1.TrainedModel]:
        """The models that learnt from any of these snapshots."""
        return (await self._lineage()).trained_on(snapshots)

    async def _as_read(self, run_id: str, etag: str) -> controller_v1.Run:
        """The run. If an etag is given and the run has changed since: Aborted, ETAG_MISMATCH."""
        run = await self._store.get_run(run_id)
        if etag and etag != run.etag:
            raise Aborted(
                f"Run {run.run_id} has changed since it was read. Read it again and repeat the call",
                reason="ETAG_MISMATCH",
                metadata={"etag": run.etag},
            )
        return run

    def _check_swap(self, services: controller_v1.RolloutServices, spec: controller_v1.RunSpec, at: str) -> None:
        """Checks the rollout services requested in the field `at`. InvalidArgument; FailedPrecondition, NO_LAUNCHER."""
        engines = self._catalog({}).startable("accord.engines")
        records.check(services, spec, engines, startable=self._launcher.starts_services, at=at)

    def _catalog(self, models: Mapping[str, controller_v1.Model]) -> SpecCatalog:
        return SpecCatalog(self._settings, models, shares_plugins=self._launcher.shares_plugins)

    async def _lineage(self) -> Lineage:
        """The finished iterations of every run, and its current iteration so far."""
        runs: list[controller_v1.Run] = []
        before: int | None = None
        while True:
            page, before = await self._store.list_runs(MOST_A_PAGE, before)
            runs += page
            if before is None:
                break
        models: list[controller_v1.Model] = []
        while True:
            found, before = await self._store.list_models(MOST_A_PAGE, before)
            models += found
            if before is None:
                break
        return lineage_of(
            [(run.run_id, run.status.resolved_spec, await self._results(run)) for run in reversed(runs)], models
        )

    async def _results(self, run: controller_v1.Run) -> list[controller_v1.IterationResult]:
        results = list(run.status.iterations)
        current = run.status.iteration
        if current and all(result.iteration != current for result in results):
            ledger = await Ledger.load(self._store, run.run_id, self._settings.state_dir.absolute())
            results.append(keys.iteration_so_far(ledger, current))
        return results

    async def _create(self, request: controller_v1.CreateRunRequest) -> controller_v1.Run:
        requested = request.run
        resolved = resolve(requested.spec)
        found = {name: await self._registry.find(name) for name in model_names(resolved)}
        models = {name: model for name, model in found.items() if model is not None}
        await asyncio.to_thread(check, requested.run_id, resolved, self._catalog(models))
        # The run keeps the currently active models until its end.
        pin_models(resolved, models)
        run = controller_v1.Run(run_id=requested.run_id, spec=requested.spec)
        run.status.state = controller_v1.RUN_STATE_PENDING
        run.status.resolved_spec.CopyFrom(resolved)
        run.status.rollout.CopyFrom(initial_services(resolved))
        run.status.simulated_feedback = resolved.feedback.HasField("simulated")
        stored, new = await self._store.create_run(request.request_id, run)
        if new:
            self._runs.start(stored.run_id)
        return stored
