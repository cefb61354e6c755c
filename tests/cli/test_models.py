"""`accord models promote` and `rollback`, against a controller that the command starts itself."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest
from tests.support.command import accord_command
from tests.support.controller import add_model, add_run, controller_client, open_store

pytestmark = pytest.mark.process


async def test_models_are_promoted_and_rolled_back_and_listed_so(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await add_run(store)
        for iteration in range(3):
            await add_model(store, tmp_path, iteration)
    promoted = await accord_command(tmp_path, "models", "promote", "demo-0", "--reason", "calmer")
    assert (promoted.code, "demo-0 is in force for demo" in promoted.err) == (0, True), promoted.err
    for back in ("demo-2", "demo-1"):
        rolled = await accord_command(tmp_path, "models", "rollback")
        assert (rolled.code, f"{back} is in force" in rolled.err) == (0, True), rolled.err
    listed = await accord_command(tmp_path, "models", "list", "--format", "json")
    assert [row["name"] for row in json.loads(listed.out) if row["current"]] == ["demo-1"]
    refused = await accord_command(tmp_path, "models", "promote", "demo-7")
    assert refused.code != 0
    assert "MODEL_NOT_FOUND" in refused.err
    async with controller_client(tmp_path) as client:
        newest = [change async for change in client.models.changes("demo")][2]
        assert (newest.model, newest.operator, newest.reason) == ("demo-0", getpass.getuser(), "calmer")
