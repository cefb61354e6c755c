"""Reads and writes the controller's tables. Related changes are committed together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from accord.controller import v1 as controller_v1
from accord.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound
from accord_controller.store import changes, tables
from accord_runtime.database.transactions import reading, writing


@dataclass(frozen=True)
class Entry:
    """One entry of a run's ledger: a message (`payload`) or a file of messages (`path`, below the run's folder)."""

    key: str
    kind: str
    payload: bytes
    path: str | None
    digest: str


@dataclass(frozen=True)
class Commit:
    """Changes to a run that become durable together or not at all."""

    status: controller_v1.RunStatus | None = None
    # The requested spec, if it changes.
    spec: controller_v1.RunSpec | None = None
    stage_seconds: float | None = None
    stage_usage: controller_v1.StageUsage | None = None
    events: Sequence[controller_v1.RunEvent] = ()
    entries: Sequence[Entry] = ()
    forget: Sequence[str] = ()
    model: controller_v1.Model | None = None


class Store:
    """The controller's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def close(self) -> None:
        """Closes the database."""
        await self._engine.dispose()

    async def create_run(self, request_id: str, run: controller_v1.Run) -> tuple[controller_v1.Run, bool]:
        """Adds a run, or returns the existing one if the same run was requested before; True if it is new.

        AlreadyExists, RUN_EXISTS: a run of this name with a different spec.
        """
        content = _content(run.spec)
        async with writing(self._engine) as connection:
            row = (await connection.execute(select(tables.runs).where(tables.runs.c.run_id == run.run_id))).first()
            if row is not None:
                if content != row.content:
                    raise AlreadyExists(
                        f"A run named {run.run_id} already exists with a different spec. Choose another metadata.name, "
                        f"or continue the existing run: accord run --resume {run.run_id}",
                        reason="RUN_EXISTS",
                        metadata={"run_id": run.run_id},
                    )
                return _run(row), False
            await connection.execute(
                insert(tables.runs).values(
                    run_id=run.run_id,
                    request_id=request_id,
                    content=content,
                    spec=run.spec.SerializeToString(),
                    status=run.status.SerializeToString(),
                    state=run.status.state,
                    etag=1,
                    stage_seconds=0.0,
                    create_time=time.time(),
                )
            )
            row = (await connection.execute(select(tables.runs).where(tables.runs.c.run_id == run.run_id))).one()
            return _run(row), True

    async def get_run(self, run_id: str) -> controller_v1.Run:
        """One run. NotFound, RUN_NOT_FOUND."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(tables.runs).where(tables.runs.c.run_id == run_id))).first()
        if row is None:
            raise _no_run(run_id)
        return _run(row)

    async def stage_seconds(self, run_id: str) -> float:
        """Wall-clock time of the run's current stage so far."""
        async with reading(self._engine) as connection:
            found = await connection.scalar(select(tables.runs.c.stage_seconds).where(tables.runs.c.run_id == run_id))
        if found is None:
            raise _no_run(run_id)
        return float(found)

    async def stage_usage(self, run_id: str) -> controller_v1.StageUsage:
        """Usage of the run's current stage so far."""
        async with reading(self._engine) as connection:
            found = await connection.scalar(select(tables.runs.c.stage_usage).where(tables.runs.c.run_id == run_id))
        return controller_v1.StageUsage.FromString(found or b"")

    async def list_runs(self, limit: int, before: int | None = None) -> tuple[list[controller_v1.Run], int | None]:
        """A page of runs, newest first, and where the next page starts."""
        query = select(tables.runs).order_by(tables.runs.c.number.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(tables.runs.c.number < before)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [_run(row) for row in rows[:limit]], rows[limit - 1].number if len(rows) > limit else None

    async def runs_in(self, states: Sequence[int]) -> list[controller_v1.Run]:
        """Every run in one of these states, oldest first."""
        query = select(tables.runs).where(tables.runs.c.state.in_(states)).order_by(tables.runs.c.number)
        async with reading(self._engine) as connection:
            return [_run(row) for row in (await connection.execute(query)).all()]

    async def commit(self, run_id: str, change: Commit) -> list[controller_v1.RunEvent]:
        """Makes `change` durable as a whole; returns its events with their sequence numbers and times.

        AlreadyExists, LEDGER_CONFLICT, if a ledger key exists, because a fact is recorded once. NotFound.
        """
        async with writing(self._engine) as connection:
            values: dict[str, object] = {"etag": tables.runs.c.etag + 1}
            if change.status is not None:
                values |= {"status": change.status.SerializeToString(), "state": change.status.state}
            if change.spec is not None:
                values |= {"spec": change.spec.SerializeToString(), "content": _content(change.spec)}
            if change.stage_seconds is not None:
                values["stage_seconds"] = change.stage_seconds
            if change.stage_usage is not None:
                values["stage_usage"] = change.stage_usage.SerializeToString()
            done = await connection.execute(update(tables.runs).where(tables.runs.c.run_id == run_id).values(**values))
            if done.rowcount != 1:
                raise _no_run(run_id)
            await _change_ledger(connection, run_id, change)
            if change.model is not None:
                await _put_model(connection, change.model)
            return await _append_events(connection, run_id, change.events)

    async def entries(self, run_id: str) -> list[Entry]:
        """The run's whole ledger; files are named, not read."""
        query = select(tables.ledger).where(tables.ledger.c.run_id == run_id).order_by(tables.ledger.c.key)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [Entry(row.key, row.kind, row.payload, row.path, row.digest) for row in rows]

    async def events(self, run_id: str, after: int, limit: int) -> list[controller_v1.RunEvent]:
        """Events after sequence number `after`, in order, at most `limit`."""
        query = (
            select(tables.events.c.event)
            .where(tables.events.c.run_id == run_id, tables.events.c.sequence > after)
            .order_by(tables.events.c.sequence)
            .limit(limit)
        )
        async with reading(self._engine) as connection:
            found = (await connection.execute(query)).scalars().all()
        return [controller_v1.RunEvent.FromString(event) for event in found]

    async def list_models(self, limit: int, before: int | None = None) -> tuple[list[controller_v1.Model], int | None]:
        """A page of models, newest first, and where the next page starts."""
        query = select(tables.models).order_by(tables.models.c.number.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(tables.models.c.number < before)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [_model(row) for row in rows[:limit]], rows[limit - 1].number if len(rows) > limit else None

    async def get_model(self, name: str) -> controller_v1.Model | None:
        """One model, or None."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(tables.models).where(tables.models.c.name == name))).first()
        return _model(row) if row is not None else None

    async def active_model(self, run_id: str) -> controller_v1.Model | None:
        """The run's active policy, or None if the run does not exist or has none yet."""
        query = select(tables.models).where(tables.models.c.run_id == run_id, tables.models.c.current)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).first()
        return _model(row) if row is not None else None

    async def promote(self, model: controller_v1.Model, change: changes.ChangeRequest) -> None:
        """Makes a model its run's active policy. Does nothing if it is active already or the request_id is known."""
        async with writing(self._engine) as connection:
            await changes.lock_run(connection, model.run_id)
            if await changes.repeated(connection, model.run_id, model.name, change) is not None:
                return
            current = await connection.scalar(select(tables.models.c.current).where(tables.models.c.name == model.name))
            if not current:
                await changes.activate(connection, model.run_id, model.name, change)

    async def roll_back(self, run_id: str, expected: str, change: changes.ChangeRequest) -> str:
        """Returns to the previous active policy, once for each request_id, and returns its name. FailedPrecondition,
        NOTHING_TO_ROLL_BACK; Aborted, MODEL_CHANGED, if a policy other than `expected` is active ("" accepts any)."""
        models = tables.models
        async with writing(self._engine) as connection:
            await changes.lock_run(connection, run_id)
            done = await changes.repeated(connection, run_id, "", change)
            if done is not None:
                return done
            query = select(models.c.name).where(models.c.run_id == run_id, models.c.current)
            current = await connection.scalar(query)
            if expected not in ("", current):
                raise Aborted(
                    f"The active policy of run {run_id} is now {current}, not {expected}. Check it and repeat the call",
                    reason="MODEL_CHANGED",
                    metadata={"in_force": current or ""},
                )
            before = await changes.before_current(connection, run_id)
            if before is None:
                raise FailedPrecondition(
                    f"Run {run_id} has no policy before the active one", reason="NOTHING_TO_ROLL_BACK"
                )
            await changes.activate(connection, run_id, before, change)
            return before

    async def model_changes(
        self, run_id: str, limit: int, before: int | None = None
    ) -> tuple[list[controller_v1.ModelChange], int | None]:
        """A page of a run's history (of all runs with ""), newest first, and where the next page starts."""
        table = tables.model_changes
        query = select(table).order_by(table.c.number.desc()).limit(limit + 1)
        if run_id:
            query = query.where(table.c.run_id == run_id)
        if before is not None:
            query = query.where(table.c.number < before)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [changes.to_change(row) for row in rows[:limit]], rows[limit - 1].number if len(rows) > limit else None


async def _change_ledger(connection: AsyncConnection, run_id: str, change: Commit) -> None:
    if change.forget:
        await connection.execute(
            delete(tables.ledger).where(tables.ledger.c.run_id == run_id, tables.ledger.c.key.in_(change.forget))
        )
    for entry in change.entries:
        existing = await connection.scalar(
            select(tables.ledger.c.key).where(tables.ledger.c.run_id == run_id, tables.ledger.c.key == entry.key)
        )
        if existing is not None:
            raise AlreadyExists(
                f"{entry.key} of run {run_id} is already recorded. Is another controller driving the same run?",
                reason="LEDGER_CONFLICT",
                metadata={"run_id": run_id, "key": entry.key},
            )
        await connection.execute(
            insert(tables.ledger).values(
                run_id=run_id,
                key=entry.key,
                kind=entry.kind,
                payload=entry.payload,
                path=entry.path,
                digest=entry.digest,
            )
        )


async def _append_events(
    connection: AsyncConnection, run_id: str, events: Sequence[controller_v1.RunEvent]
) -> list[controller_v1.RunEvent]:
    last = await connection.scalar(select(func.max(tables.events.c.sequence)).where(tables.events.c.run_id == run_id))
    numbered = []
    for sequence, event in enumerate(events, start=(last or 0) + 1):
        stored = controller_v1.RunEvent()
        stored.CopyFrom(event)
        stored.run_id, stored.sequence = run_id, sequence
        stored.time.GetCurrentTime()
        await connection.execute(
            insert(tables.events).values(run_id=run_id, sequence=sequence, event=stored.SerializeToString())
        )
        numbered.append(stored)
    return numbered


async def _put_model(connection: AsyncConnection, model: controller_v1.Model) -> None:
    """Adds a model and activates it."""
    await connection.execute(delete(tables.models).where(tables.models.c.name == model.name))
    await connection.execute(
        insert(tables.models).values(
            name=model.name, run_id=model.run_id, current=False, model=model.SerializeToString()
        )
    )
    await changes.activate(connection, model.run_id, model.name, changes.ChangeRequest())


def _content(spec: controller_v1.RunSpec) -> str:
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def _run(row: Row[Any]) -> controller_v1.Run:
    run = controller_v1.Run(
        run_id=row.run_id,
        spec=controller_v1.RunSpec.FromString(row.spec),
        status=controller_v1.RunStatus.FromString(row.status),
        etag=str(row.etag),
    )
    run.create_time.CopyFrom(_timestamp(row.create_time))
    return run


def _model(row: Row[Any]) -> controller_v1.Model:
    model = controller_v1.Model.FromString(row.model)
    model.current = row.current
    return model


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(int(seconds * 1e6))
    return stamp


def _no_run(run_id: str) -> NotFound:
    return NotFound(
        f"No run named {run_id} exists. List the runs with: accord runs list",
        reason="RUN_NOT_FOUND",
        metadata={"run_id": run_id},
    )
