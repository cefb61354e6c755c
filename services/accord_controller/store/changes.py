"""What is in force for a run, and the history of it: on a connection, so that it is one transaction with the rest."""

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
class Asked:
    """Why what is in force changes: the gate, or what a person asked for."""

    kind: controller_v1.ModelChangeKind.ValueType = GATE
    operator: str = ""
    reason: str = ""
    request_id: str | None = None


async def put_in_force(connection: AsyncConnection, run_id: str, name: str, asked: Asked) -> None:
    """Makes a model the only current one of its run, and says so in the history."""
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
            kind=asked.kind,
            operator=asked.operator,
            reason=asked.reason,
            request_id=asked.request_id,
            time=time.time(),
        )
    )


async def answered(connection: AsyncConnection, run_id: str, name: str, asked: Asked) -> str | None:
    """The model that this request_id put in force before, or None. `name` is empty where the request names none.

    AlreadyExists, REQUEST_ID_REUSED, where it asked for something else.
    """
    table = tables.model_changes
    row = (await connection.execute(select(table).where(table.c.request_id == asked.request_id))).first()
    if row is None:
        return None
    before = (row.run_id, row.kind, row.operator, row.reason)
    if before != (run_id, asked.kind, asked.operator, asked.reason) or name not in ("", row.model):
        raise AlreadyExists(
            f"request_id {asked.request_id} was used for another request; use a new one", reason="REQUEST_ID_REUSED"
        )
    return str(row.model)


async def lock_run(connection: AsyncConnection, run_id: str) -> None:
    """Holds off whoever else would change what is in force for this run, its gate too, until the transaction ends."""
    await connection.execute(select(tables.runs.c.run_id).where(tables.runs.c.run_id == run_id).with_for_update())


async def before_current(connection: AsyncConnection, run_id: str) -> str | None:
    """What was in force before the run's policy in force, or None."""
    table = tables.model_changes
    query = select(table.c.model, table.c.kind).where(table.c.run_id == run_id).order_by(table.c.number)
    return one_back((row.model, row.kind) for row in (await connection.execute(query)).all())


def one_back(changes: Iterable[tuple[str, int]]) -> str | None:
    """The model to roll back to after these changes (model, kind), oldest first, or None.

    A promotion is put on a pile and rolling back takes the top away: twice back is two back, not to and fro.
    """
    pile: list[str] = []
    for model, kind in changes:
        if kind == ROLLED_BACK:
            pile.pop()
        elif pile[-1:] != [model]:
            pile.append(model)
    return pile[-2] if len(pile) > 1 else None


def to_change(row: Row[Any]) -> controller_v1.ModelChange:
    """A line of the history."""
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
