"""A database of the first release: what is in it is there after the migration to annotators, and back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from accord_preference.storage.opening import open_store
from accord_preference.storage.store import Filter
from accord_runtime.database.migrate import downgrade, migrate

pytestmark = pytest.mark.process

PACKAGE = "accord_preference"


async def test_feedback_of_the_first_schema_is_kept_and_its_annotators_are_known(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/old.db"
    await migrate(url, PACKAGE, revision="0001")
    with sqlite3.connect(tmp_path / "old.db") as old:
        old.execute("INSERT INTO prompts VALUES (1, 'p', '[]', 's', 1, 'r')")
        old.execute("INSERT INTO tasks VALUES (1, 't', 1, 'p', '[\"a\",\"b\"]', 1, 'q', 2, 1)")
        columns = "feedback_id, prompt_id, annotator_id, annotator_kind, kind, judgement, completion_ids, task_id"
        more = "queue, source, label, created_us, late, split, record_digest"
        for number, (who, kind) in enumerate([("ann", 1), ("ann", 1), ("bot", 2)]):
            old.execute(
                f"INSERT INTO feedback ({columns}, {more}) "
                "VALUES (?, 'p', ?, ?, 1, '{}', '[]', ?, 'q', '', 's', ?, 0, 1, ?)",
                (f"f{number}", who, kind, "t" if number == 0 else None, 5 + number, f"d{number}"),
            )
        old.execute("INSERT INTO snapshots VALUES (1, 'snap', 2, 3, 0, 9, X'')")
        old.executemany("INSERT INTO snapshot_members VALUES (1, ?, ?, 1)", [(0, 1), (1, 2), (2, 3)])
    store = await open_store(url)
    async with store.writing() as tx:
        known = await tx.list_annotators(("", 0), 9, 0, 0)
        assert [(row.annotator_id, row.kind, row.state, row.created_us) for row in known] == [
            ("ann", 1, 1, 5),
            ("bot", 2, 1, 7),
        ]
        snapshot = await tx.snapshot("snap")
        assert snapshot is not None
        page = await tx.snapshot_page(snapshot, (), 9, 0)
        assert [row.feedback.feedback_id for row in page if row.feedback] == ["f0", "f1", "f2"]
        assert [row.elapsed_us async for row in tx.judged(Filter())] == [None] * 3
        await tx.supersede("f0", "")
    await store.close()
    await downgrade(url, PACKAGE, revision="0001")
    with sqlite3.connect(tmp_path / "old.db") as old:
        assert old.execute("SELECT count(*), count(task_id) FROM feedback").fetchone() == (3, 0)
        assert old.execute("SELECT answers FROM tasks").fetchone() == (1,)
    await (await open_store(url)).close()
