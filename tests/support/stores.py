"""The stores that the conformance suite holds to the seam, and rows for it. A new one joins by one entry in STORES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.postgresql import Postgres

from accord_preference.storage.store import (
    PREFERENCES,
    CompletionRow,
    FeedbackRow,
    Filter,
    PromptRow,
    Reader,
    RecordRow,
    Store,
    TaskRow,
)


def sqlite(folder: Path, _request: pytest.FixtureRequest) -> str:
    return f"sqlite:///{folder}/store.db"


def postgresql(_folder: Path, request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


STORES: dict[str, Callable[[Path, pytest.FixtureRequest], str]] = {"sqlite": sqlite, "postgresql": postgresql}
OPEN, DONE, CANCELLED, FLAGGED_STATE = 1, 2, 3, 4
TRAIN, HELDOUT = 1, 2


def name(kind: str, number: int) -> str:
    return f"{kind}{number:063d}"


def a_prompt(number: int, split: int = TRAIN, source: str = "s") -> PromptRow:
    # Canonical order is the reverse of the order of ids.
    return PromptRow(name("p", number), f'[["user","{number}"]]', source, split, name("r", 999 - number))


def an_answer(number: int, prompt: int) -> CompletionRow:
    return CompletionRow(name("c", number), name("p", prompt), f"text \0 {number} é 🎉", None)


def a_judgement(
    number: int, prompt: int = 0, *, annotator: str = "ann", task: int | None = None, label: str = "s", queue: str = ""
) -> FeedbackRow:
    return FeedbackRow(
        feedback_id=name("f", number),
        prompt_id=name("p", prompt),
        annotator_id=annotator,
        annotator_kind=1,
        kind=1,
        judgement="{}",
        completion_ids=(name("c", 1), name("c", 0)),
        task_id=None if task is None else name("t", task),
        queue=queue,
        source="",
        label=label,
        created_us=5,
        late=False,
        split=TRAIN,
        record_digest=name("r", 999 - number),
    )


def a_task(number: int, redundancy: int = 1, queue: str = "q") -> TaskRow:
    return TaskRow(name("t", number), 1, name("p", 0), (name("c", 0), name("c", 1)), redundancy, queue, OPEN)


async def fill(store: Store) -> None:
    async with store.writing() as tx:
        await tx.add_prompts([a_prompt(0)])
        await tx.add_completions([an_answer(0, 0), an_answer(1, 0)])


async def live(tx: Reader, filter_: Filter = Filter()) -> list[RecordRow]:  # noqa: B008  frozen
    """Every preference that matches now."""
    return await tx.records(PREFERENCES, await tx.record_numbers(PREFERENCES, filter_))
