"""Services announce themselves in files; a dead or another process is never taken for a service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import accord
from accord import discovery
from accord.errors import DataLoss

pytestmark = pytest.mark.process


def test_a_living_service_is_found_and_takes_its_announcement_back(tmp_path: Path) -> None:
    path = discovery.write(tmp_path / "state", "reward", "127.0.0.1:7002", token="t")
    assert path.stat().st_mode & 0o777 == 0o600
    record = discovery.read(tmp_path / "state", "reward")
    assert record is not None
    assert (record.address, record.pid, record.token) == ("127.0.0.1:7002", os.getpid(), "t")
    assert accord.Client.discover(tmp_path / "state").addresses == {"reward": "127.0.0.1:7002"}
    discovery.remove(tmp_path / "state", "reward")
    assert discovery.read(tmp_path / "state", "reward") is None
    assert list((tmp_path / "state").iterdir()) == []


def test_a_killed_service_is_not_found(tmp_path: Path) -> None:
    code = "import pathlib, sys, accord; accord.discovery.write(pathlib.Path(sys.argv[1]), 'trainer', 'a:1')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "trainer.json").exists()
    assert discovery.read(tmp_path, "trainer") is None


def test_a_pid_that_now_belongs_to_another_process_is_not_the_service(tmp_path: Path) -> None:
    path = discovery.write(tmp_path, "rollout", "127.0.0.1:7001")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"start_time": record["start_time"] - 60}))
    assert discovery.read(tmp_path, "rollout") is None
    discovery.remove(tmp_path, "rollout")
    assert path.exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rollout.json").write_text('{"service": "rollout"')
    with pytest.raises(DataLoss, match=r"rollout\.json"):
        discovery.read(tmp_path, "rollout")


def test_the_state_folder_is_given_or_from_the_environment_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCORD_STATE_DIR", raising=False)
    assert discovery.state_dir(None) == tmp_path / ".accord"
    monkeypatch.setenv("ACCORD_STATE_DIR", str(tmp_path / "elsewhere"))
    assert discovery.state_dir(None) == tmp_path / "elsewhere"
    assert discovery.state_dir(tmp_path / "given") == tmp_path / "given"
