"""Fixtures of the preference service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from preference_desk import Desk

from accord_preference.settings import PreferenceSettings


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A service on a fresh database."""
    running = await Desk(PreferenceSettings(state_dir=tmp_path)).start()
    yield running
    await running.stop()


@pytest.fixture
async def other_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A second service on a database of its own, at another time."""
    running = await Desk(PreferenceSettings(state_dir=tmp_path / "other"), now=2_000_000.0).start()
    yield running
    await running.stop()
