"""A controller's database and settings for tests of its parts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import accord
from accord.controller import v1 as controller_v1
from accord_controller.ledger.ledger import Ledger
from accord_controller.ledger.recorder import RunRecorder
from accord_controller.service import build
from accord_controller.settings import ControllerSettings
from accord_controller.spec.defaults import resolve
from accord_controller.store.store import Commit, Store
from accord_runtime.database.migrate import migrate
from accord_runtime.database.transactions import open_database
from accord_runtime.serving.server import serving


def database(state_dir: Path) -> str:
    """The URL of the controller's database in a state folder."""
    return f"sqlite+aiosqlite:///{state_dir / 'controller.db'}"


@asynccontextmanager
async def open_store(state_dir: Path) -> AsyncIterator[Store]:
    """The migrated database."""
    await migrate(database(state_dir), "accord_controller")
    store = Store(open_database(database(state_dir)))
    try:
        yield store
    finally:
        await store.close()


def make_run(model: Path, folder: Path) -> controller_v1.Run:
    """The run `demo` of a model folder, with one prompt in a file in `folder`, as a user writes it."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "hello"}) + "\n")
    run = controller_v1.Run(run_id="demo")
    run.spec.model = str(model)
    run.spec.prompts.files.append(str(prompts))
    run.spec.feedback.simulated.scorers.add(name="length")
    return run


async def add_run(store: Store, run_id: str = "demo", *, deterministic: bool = True) -> controller_v1.Run:
    """A running run, as CreateRun makes it."""
    run = controller_v1.Run(run_id=run_id)
    run.spec.model, run.spec.seed, run.spec.deterministic = "file:///nowhere", 7, deterministic
    run.spec.feedback.simulated.scorers.add(name="length")
    run.status.state = controller_v1.RUN_STATE_RUNNING
    run.status.resolved_spec.CopyFrom(resolve(run.spec))
    return (await store.create_run(f"request-{run_id}", run))[0]


async def add_model(store: Store, folder: Path, iteration: int, run_id: str = "demo") -> None:
    """A model as the gate of a run enters it; its weights are an empty folder below `folder`."""
    weights = folder / f"weights-{iteration}"
    weights.mkdir()
    model = controller_v1.Model(name=f"{run_id}-{iteration}", run_id=run_id, iteration=iteration)
    model.weights.uri, model.weights.digest = weights.as_uri(), f"digest-{iteration}"
    await store.commit(run_id, Commit(model=model))


async def open_recorder(store: Store, state_dir: Path, run_id: str = "demo") -> RunRecorder:
    """The recorder of a run as the database has it."""
    return RunRecorder(
        store,
        await Ledger.load(store, run_id, state_dir),
        await store.get_run(run_id),
        stage_seconds=await store.stage_seconds(run_id),
        stage_usage=await store.stage_usage(run_id),
        on_commit=lambda: None,
        check=lambda: None,
    )


@asynccontextmanager
async def controller_client(state_dir: Path, **settings: Any) -> AsyncIterator[accord.Client]:
    """A served controller that starts nothing by itself, and its client."""
    chosen = ControllerSettings(
        **{"state_dir": state_dir, "launcher": "none", "start_seconds": 0.5, "pause_seconds": 2, **settings}
    )
    async with serving(await build(chosen), chosen) as address, accord.Client(controller=address) as client:
        yield client
