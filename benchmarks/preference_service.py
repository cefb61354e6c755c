"""A preference service under measurement, and the figures: for benchmarks/preferences.py."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accord.channel import open_channel
from accord.preference import v1 as preference_v1

HUMAN = preference_v1.ANNOTATOR_KIND_HUMAN


@dataclass
class Measured:
    """The figures of one database: rates in records per second, latencies in milliseconds."""

    database: str
    records: int = 0
    ingest: dict[str, float] = field(default_factory=dict)
    export: dict[str, float] = field(default_factory=dict)
    comparisons: int = 0
    annotators: int = 0
    leases: int = 0
    leases_a_second: float = 0.0
    lease_ms: dict[str, float] = field(default_factory=dict)
    answer_ms: dict[str, float] = field(default_factory=dict)
    # Calls that ended in an error, for instance because too many waited for the database.
    failed: int = 0

    def moved(self, rates: dict[str, float], way: str, seconds: float) -> None:
        """Records the time to move all records one way. The best of several rounds counts."""
        rates[way] = max(rates.get(way, 0.0), self.records / seconds)


@asynccontextmanager
async def service(url: str, folder: Path) -> AsyncIterator[preference_v1.PreferenceServiceAsyncStub]:
    """A service process on `url`."""
    command = [sys.executable, "-m", "accord_preference", "--state-dir", str(folder), "--database-url", url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        async with open_channel(line.split()[-1]) as channel:
            yield preference_v1.PreferenceServiceStub(channel)
    finally:
        process.terminate()
        await process.wait()
