"""Runs the `accord` command as people do: a process of its own, its output and exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import accord
from accord import discovery
from accord_preference.service import build
from accord_preference.settings import PreferenceSettings
from accord_runtime.serving.server import serving

COMMAND = (sys.executable, "-m", "accord.cli.main")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


def environment(state_dir: Path) -> dict[str, str]:
    """Plain output, 100 columns, this state folder."""
    return {**os.environ, "ACCORD_STATE_DIR": str(state_dir), "COLUMNS": "100", "NO_COLOR": "1", "TERM": "xterm"}


async def accord_command(state_dir: Path, *arguments: str, stdin: str = "", cwd: Path | None = None) -> Ran:
    """Runs `accord ARGUMENTS` to its end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(state_dir),
        cwd=cwd or state_dir,
    )
    out, err = await process.communicate(stdin.encode())
    return Ran(process.returncode or 0, out.decode(), err.decode())


@asynccontextmanager
async def preference_service(state_dir: Path) -> AsyncIterator[accord.Client]:
    """A real preference service that the command finds in `state_dir`, and a client of it."""
    settings = PreferenceSettings(state_dir=state_dir)
    async with serving(await build(settings), settings) as address, accord.Client(preference=address) as client:
        discovery.write(state_dir, "preference", address)
        try:
            yield client
        finally:
            discovery.remove(state_dir, "preference")


def lines(texts: Sequence[str]) -> str:
    """The lines of a file."""
    return "".join(f"{text}\n" for text in texts)
