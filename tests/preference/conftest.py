"""Fixtures of the preference service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.preference_service import ServedPreferences

from accord_preference.settings import PreferenceSettings


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ServedPreferences]:
    """A service on a fresh database, of either kind."""
    url = request.getfixturevalue("postgres").fresh() if request.param == "postgresql" else ""
    running = await ServedPreferences(PreferenceSettings(state_dir=tmp_path, database_url=url)).start()
    yield running
    await running.stop()


@pytest.fixture
async def other_service(tmp_path: Path) -> AsyncIterator[ServedPreferences]:
    """A second service with another database and another clock."""
    running = await ServedPreferences(PreferenceSettings(state_dir=tmp_path / "other"), now=2_000_000.0).start()
    yield running
    await running.stop()
