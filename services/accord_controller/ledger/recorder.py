"""Makes a run's progress durable and visible: facts, status and events are committed together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from accord.controller import v1 as controller_v1
from accord.names import stage_name
from accord_controller.ledger.ledger import Ledger, M
from accord_controller.store.store import Commit, Entry, Store


@dataclass(frozen=True)
class NewEvent:
    """The content of an event. Iteration, stage and step are those of the run at the commit."""

    kind: str
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class RunRecorder:
    """The status and ledger of one run, and the only way to change them."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        run: controller_v1.Run,
        *,
        stage_seconds: float,
        stage_usage: controller_v1.StageUsage,
        on_commit: Callable[[], None],
        check: Callable[[], None],
        serving: Callable[[], int] = lambda: 0,
        ticking: bool = True,
    ) -> None:
        """`on_commit` is called after each commit. `check` is called after each fact, and raises if the run should stop
        there. `serving`: the number of rollout services that serve. `ticking`: whether elapsed time counts as the
        stage's."""
        self.run_id = run.run_id
        self.ledger = ledger
        self.status = controller_v1.RunStatus()
        self.status.CopyFrom(run.status)
        # The spec as requested.
        self.requested = controller_v1.RunSpec()
        self.requested.CopyFrom(run.spec)
        # The facts that this recorder has recorded; they show that a recovery made progress.
        self.facts = 0
        # The current stage's usage so far, over all controller processes; the usage meter adds to it.
        self.stage_usage = stage_usage
        self._store = store
        self._on_commit = on_commit
        self._check = check
        self._serving = serving
        self._earlier_seconds = stage_seconds
        self._since = time.monotonic()
        self._ticking = ticking

    @property
    def spec(self) -> controller_v1.RunSpec:
        """The resolved spec."""
        return self.status.resolved_spec

    def stage_seconds(self) -> float:
        """The recorded wall-clock time of the current stage so far, over all controller processes."""
        return self._earlier_seconds + (time.monotonic() - self._since if self._ticking else 0.0)

    async def enter(self, iteration: int, stage: controller_v1.Stage.ValueType) -> None:
        """Enters a stage. If the stage is entered again, its clock continues."""
        again = (self.status.iteration, self.status.stage) == (iteration, stage)
        if not again:
            self._earlier_seconds, self._since = 0.0, time.monotonic()
            self.stage_usage.Clear()
            self.status.iteration, self.status.stage = iteration, stage
            self.status.step = self.status.total_steps = 0
        self.status.message = ""
        await self._commit(events=[] if again else [NewEvent("stage_started", stage_name(stage))])

    async def record(self, key: str, message: Message, *events: NewEvent) -> None:
        """Records a small fact once."""
        await self.record_entries([self.ledger.message_entry(key, message)], *events)

    async def record_all(self, key: str, kind: type[M], messages: Sequence[M]) -> None:
        """Records many messages as one fact: a file that is written and synced before the ledger names it."""
        await self.record_entries([await self.ledger.file_entry(key, kind, messages)])

    async def record_entries(
        self,
        entries: Sequence[Entry],
        *events: NewEvent,
        forget: Sequence[str] = (),
        model: controller_v1.Model | None = None,
    ) -> None:
        """Records facts, removes others, and registers a model in one transaction; then stops here if the run should
        stop."""
        await self._commit(entries, events, forget, model)
        self.facts += len(entries)
        self._check()

    async def record_beside(
        self, entries: Sequence[Entry], *events: NewEvent, spec: controller_v1.RunSpec | None = None
    ) -> None:
        """Records facts, and `spec` as the requested spec, beside the running stage. They do not count as the stage's
        progress and do not stop it."""
        await self._commit(entries, events, spec=spec)
        if spec is not None:
            self.requested.CopyFrom(spec)

    async def progress(self, step: int, total: int, message: str = "") -> None:
        """Updates the stage's progress without an event."""
        self.status.step, self.status.total_steps, self.status.message = step, total, message
        await self._commit()
        self._check()

    async def emit(self, kind: str, message: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Appends an event."""
        await self._commit(events=[NewEvent(kind, message, metrics or {})])

    async def change_state(
        self, state: controller_v1.RunState.ValueType, kind: str, message: str = "", *, interrupted: bool = False
    ) -> None:
        """Changes the run's state. `interrupted`: the run stops without a request from the user."""
        self.status.state, self.status.message, self.status.interrupted = state, message, interrupted
        await self._commit(events=[NewEvent(kind, message)])

    async def _commit(
        self,
        entries: Sequence[Entry] = (),
        events: Sequence[NewEvent] = (),
        forget: Sequence[str] = (),
        model: controller_v1.Model | None = None,
        spec: controller_v1.RunSpec | None = None,
    ) -> None:
        self.status.serving_replicas = self.status.drawing = self._serving()
        change = Commit(
            status=self.status,
            spec=spec,
            stage_seconds=self.stage_seconds(),
            stage_usage=self.stage_usage,
            events=[self._event(event) for event in events],
            entries=entries,
            forget=forget,
            model=model,
        )
        await self._store.commit(self.run_id, change)
        self.ledger.added(entries, forget)
        self._on_commit()

    def _event(self, event: NewEvent) -> controller_v1.RunEvent:
        return controller_v1.RunEvent(
            iteration=self.status.iteration,
            stage=self.status.stage,
            step=self.status.step,
            total_steps=self.status.total_steps,
            kind=event.kind,
            message=event.message,
            metrics=dict(event.metrics),
        )
