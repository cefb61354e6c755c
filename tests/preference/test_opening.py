"""Stores are found by the scheme of their URL, and a third party adds one by an entry point alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from accord.errors import InvalidArgument
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_preference.storage.opening import open_store
from accord_preference.storage.sql.store import SqlStore, open_sqlite
from accord_runtime.database.dialects.dialect import parse
from accord_runtime.serving.settings import DatabaseSettings

pytestmark = pytest.mark.process


@pytest.mark.parametrize("url", ["mongodb://somewhere", "postgresql+asyncpg://host/name"])
async def test_an_unknown_store_is_refused_with_the_available_ones(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await build(PreferenceSettings(state_dir=tmp_path, database_url=url))
    assert refused.value.reason == "UNKNOWN_STORE"
    assert refused.value.violations[0].field == "database_url"
    if url.startswith("mongodb"):
        assert "available: postgres, postgresql, sqlite" in refused.value.message


@pytest.mark.parametrize("url", ["", "nonsense", "data.db"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="database_url"):
        await open_store(url)


def test_an_unknown_dialect_is_refused_with_the_available_ones() -> None:
    with pytest.raises(InvalidArgument, match="available: postgres, postgresql, sqlite") as refused:
        parse("mysql://host/name")
    assert refused.value.reason == "UNKNOWN_STORE"


async def open_elsewhere(url: str, settings: DatabaseSettings | None) -> SqlStore:
    """The store of another package: SQLite under another scheme."""
    return await open_sqlite(url.replace("elsewhere", "sqlite"), settings)


async def test_the_service_runs_on_a_third_partys_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "elsewhere-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[accord.stores]\nelsewhere = elsewhere_store:open_elsewhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "elsewhere_store", sys.modules[__name__])
    settings = PreferenceSettings(state_dir=tmp_path, database_url=f"elsewhere:///{tmp_path / 'data.db'}")
    service = await build(settings)
    await service.close()
    assert (tmp_path / "data.db").exists()
