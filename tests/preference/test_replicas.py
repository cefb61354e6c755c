"""Several preference services on one Postgres: no place is given twice, and a crash of one loses nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.support.postgresql import Postgres
from tests.support.preference_service import Desk

from accord.channel import open_channel
from accord.preference import v1 as preference_v1
from accord_preference.settings import PreferenceSettings

pytestmark = pytest.mark.process

Replica = tuple[Desk, asyncio.subprocess.Process]


@asynccontextmanager
async def replica(folder: Path, url: str) -> AsyncIterator[Replica]:
    """A real process, and a desk that speaks with it."""
    command = [sys.executable, "-m", "accord_preference", "--state-dir", str(folder), "--database-url", url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        async with open_channel(line.split()[-1]) as channel:
            desk = Desk(PreferenceSettings(state_dir=folder, database_url=url))
            desk.stub = preference_v1.PreferenceServiceStub(channel)
            yield desk, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_two_services_share_the_work_and_one_may_be_killed(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.fresh()
    async with AsyncExitStack() as stack:
        # Both make the schema at the same time.
        (one, process), (other, _) = await asyncio.gather(
            *(stack.enter_async_context(replica(tmp_path / name, url)) for name in ("one", "other"))
        )
        for number in range(5):
            await one.task(f"task {number}", redundancy=3)
        await one.task("short", queue="short")
        desks = [one, other] * 10
        leases = await asyncio.gather(*(desk.lease(f"ann-{n}", seconds=3600) for n, desk in enumerate(desks)))
        held = Counter(lease.task.task_id for lease in leases if lease is not None)
        assert set(held.values()) == {3}, "a place was given twice, or not at all"
        assert len(held) == 5
        lost = await one.lease("gone", seconds=1, queue="short")
        assert lost is not None

        process.send_signal(signal.SIGKILL)
        await process.wait()
        # What was leased from the dead service is answered to the other.
        mine = next(lease for lease in leases[::2] if lease is not None)
        answer = await other.answer(mine, f"ann-{leases.index(mine)}")
        assert (answer.task_id, answer.late) == (mine.task.task_id, False)
        # And whose annotator is gone too goes to the next when the lease is over.
        async with asyncio.timeout(60):
            while (lease := await other.lease("next", queue="short")) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert lease.task.task_id == lost.task.task_id
