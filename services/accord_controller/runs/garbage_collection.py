"""Frees unreferenced data: published weights, trainings of ended runs, and files that no ledger names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import accord
from accord_controller.launchers.launcher import Launcher
from accord_controller.ledger.ledger import Ledger, remove_empty_folders, run_folder, unnamed_files
from accord_controller.ledger.retention import PAGE, find_needed
from accord_controller.runs.manager import RunManager
from accord_controller.store.store import Store


@dataclass(frozen=True)
class Garbage:
    """What was freed or, in a dry run, would be freed: bytes, paths and ids."""

    freed_bytes: int
    freed: list[str]


async def collect_garbage(
    store: Store, launcher: Launcher, runs: RunManager, state_dir: Path, *, dry_run: bool
) -> Garbage:
    """Frees everything that no run, snapshot or promoted model needs; with `dry_run`, only finds it. Starts the
    trainer."""
    needed = await find_needed(store)
    addresses = await launcher.ensure(["trainer"])
    async with accord.Client(trainer=addresses["trainer"]) as client:
        trained = await client.trainer.free_artifacts(
            sorted(needed.digests), sorted(needed.training_ids), dry_run=dry_run, lease_token=runs.trainer_token()
        )
    files = await _unnamed(store, runs, state_dir)
    size = sum(path.stat().st_size for path in files)
    if not dry_run:
        await asyncio.to_thread(_remove, files, state_dir)
    return Garbage(trained.freed_bytes + size, [*trained.freed, *map(str, files)])


async def _unnamed(store: Store, runs: RunManager, state_dir: Path) -> list[Path]:
    """Files of inactive runs that no ledger names. Active runs are skipped, because a file is written before the ledger
    names it."""
    named: set[Path] = set()
    before: int | None = None
    while True:
        page, before = await store.list_runs(PAGE, before)
        for run in page:
            named |= (await Ledger.load(store, run.run_id, state_dir)).files()
        if before is None:
            break
    busy = [run_folder(state_dir, run_id) for run_id in runs.active()]
    return [path for path in unnamed_files(state_dir, named) if not any(path.is_relative_to(at) for at in busy)]


def _remove(files: list[Path], state_dir: Path) -> None:
    for path in files:
        path.unlink(missing_ok=True)
    remove_empty_folders(state_dir)
