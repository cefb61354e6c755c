"""Fixtures of the preference service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.preference_service import Desk

from accord_preference.settings import PreferenceSettings


@pytest.fixture(params=["sqlite", "postgresql"])
async def desk(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """A service on a fresh database, of either kind."""
    url = request.getfixturevalue("postgres").fresh() if request.param == "postgresql" else ""
    running = await Desk(PreferenceSettings(state_dir=tmp_path, database_url=url)).start()
    yield running
    await running.stop()


@pytest.fixture
async def other_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A second service on a database of its own, at another time."""
    running = await Desk(PreferenceSettings(state_dir=tmp_path / "other"), now=2_000_000.0).start()
    yield running
    await running.stop()
