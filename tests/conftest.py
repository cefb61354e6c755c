"""What all tests share. Helpers are in tests/support, imported as `tests.support.<module>`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.postgresql import Postgres

    from accord.controller.v1 import Run

# Before torch is imported: threads that spin while they wait starve the other services of a test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


# What a test costs: this process alone; other processes, servers, seconds; the whole loop.
TIERS = ("unit", "process", "system")


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that names no tier is a unit test."""
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker("unit")


@pytest.fixture(autouse=True)
def unit_tests_start_no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a unit test that starts a process: it must be marked `process`. Servers of the session may be processes."""
    if request.node.get_closest_marker("unit") is None:
        yield
        return
    started: list[object] = []
    start = subprocess.Popen.__init__

    def recorded(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        started.append(args)
        start(self, args, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", recorded)
    yield
    assert not started, f"a unit test started {started[0]}; mark it: pytestmark = pytest.mark.process"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random causal LM with tokenizer, made once; tests must not change it."""
    from tests.support.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server, started when the first test asks for it; tests take databases of their own."""
    from tests.support.postgresql import running

    with running() as server:
        yield server


@pytest.fixture
def demo_run(tiny_folder: Path, tmp_path: Path) -> Run:
    """A run named `demo` that the controller accepts: the tiny model, one prompt, simulated annotators."""
    from tests.support.controller import make_run

    return make_run(tiny_folder, tmp_path)
