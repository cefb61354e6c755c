"""The active policy of a run and the history of its changes, within the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.controller import v1 as controller_v1
from accord.errors import AlreadyExists
from accord_controller.store import tables

GATE = controller_v1.MODEL_CHANGE_KIND_GATE
ROLLED_BACK = controller_v1.MODEL_CHANGE_KIND_ROLLED_BACK


@dataclass(frozen=True)
class ChangeRequest:
    """The cause of a change of the active policy: the gate or a person's request."""

    kind: controller_v1.ModelChangeKind.ValueType = GATE
    operator: str = ""
    reason: str = ""
    request_id: str | None = None


async def activate(connection: AsyncConnection, run_id: str, name: str, change: ChangeRequest) -> None:
    """Makes a model the current model of its run and adds the change to the history."""
    models = tables.models
    now = models.c.run_id == run_id, models.c.current
    previous = await connection.scalar(select(models.c.name).where(*now))
    await connection.execute(update(models).where(*now).values(current=False))
    await connection.execute(update(models).where(models.c.name == name).values(current=True))
    await connection.execute(
        insert(tables.model_changes).values(
            run_id=run_id,
            model=name,
            previous=previous or "",
            kind=change.kind,
            operator=change.operator,
            reason=change.reason,
            request_id=change.request_id,
            time=time.time(),
        )
    )


async def repeated(connection: AsyncConnection, run_id: str, name: str, change: ChangeRequest) -> str | None:
    """The model that a change with this request_id activated earlier, or None. `name` is empty if the request names
    none.

    AlreadyExists, REQUEST_ID_REUSED, if it was a different change.
    """
    table = tables.model_changes
    row = (await connection.execute(select(table).where(table.c.request_id == change.request_id))).first()
    if row is None:
        return None
    before = (row.run_id, row.kind, row.operator, row.reason)
    if before != (run_id, change.kind, change.operator, change.reason) or name not in ("", row.model):
        raise AlreadyExists(
            f"request_id {change.request_id} was already used for another request. Use a new one",
            reason="REQUEST_ID_REUSED",
        )
    return str(row.model)


async def lock_run(connection: AsyncConnection, run_id: str) -> None:
    """Blocks other changes of the run's active policy, including those by its gate, until the transaction ends."""
    await connection.execute(select(tables.runs.c.run_id).where(tables.runs.c.run_id == run_id).with_for_update())


async def before_current(connection: AsyncConnection, run_id: str) -> str | None:
    """The policy that was active before the run's active one, or None."""
    table = tables.model_changes
    query = select(table.c.model, table.c.kind).where(table.c.run_id == run_id).order_by(table.c.number)
    return one_back((row.model, row.kind) for row in (await connection.execute(query)).all())


def one_back(changes: Iterable[tuple[str, int]]) -> str | None:
    """The model to roll back to after these changes (model, kind), oldest first, or None.

    A stack: a promotion pushes and a rollback pops. Rolling back twice therefore goes back two policies and does not
    alternate.
    """
    stack: list[str] = []
    for model, kind in changes:
        if kind == ROLLED_BACK:
            stack.pop()
        elif stack[-1:] != [model]:
            stack.append(model)
    return stack[-2] if len(stack) > 1 else None


def to_change(row: Row[Any]) -> controller_v1.ModelChange:
    """An entry of the history."""
    change = controller_v1.ModelChange(
        run_id=row.run_id,
        model=row.model,
        previous=row.previous,
        kind=row.kind,
        operator=row.operator,
        reason=row.reason,
    )
    if row.time is not None:
        stamp = Timestamp()
        stamp.FromMicroseconds(int(row.time * 1e6))
        change.time.CopyFrom(stamp)
    return change
