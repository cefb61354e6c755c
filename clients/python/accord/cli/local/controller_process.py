"""The controller's process: finds a running one, starts one, stops the one that this command started."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from accord import discovery
from accord.errors import FailedPrecondition, Unavailable

START_SECONDS = 60.0
# Longer than the controller takes to drain and to stop its services.
STOP_SECONDS = 120.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Controller:
    """A controller of this state folder. `process` is set if this command started it and therefore must stop it."""

    state_dir: Path
    address: str
    pid: int
    process: subprocess.Popen[bytes] | None

    def alive(self) -> bool:
        """Whether the process is still running."""
        if self.process is not None:
            return self.process.poll() is None
        found = discovery.read(self.state_dir, "controller")
        return found is not None and found.pid == self.pid

    async def stop(self) -> None:
        """Stops the controller and its services if this command started them; leaves any other controller alone."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while self.process.poll() is None:  # noqa: ASYNC110  # a process sets no event
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self.process.kill()
            self.process.wait()
            raise Unavailable(
                f"The controller did not stop within {STOP_SECONDS:.0f} s and was killed; "
                f"see {log_path(self.state_dir)}. Runs continue from their last recorded step",
                reason="CONTROLLER_STUCK",
            ) from None


def log_path(state_dir: Path) -> Path:
    """The log of a controller that a command starts."""
    return state_dir / "logs" / "controller.log"


def find(state_dir: Path) -> Controller | None:
    """The running controller of `state_dir`, or None."""
    found = discovery.read(state_dir, "controller")
    return Controller(state_dir, found.address, found.pid, None) if found else None


async def start(state_dir: Path) -> Controller:
    """Starts `python -m accord_controller` and waits until it serves, or uses one that another command starts."""
    if importlib.util.find_spec("accord_controller") is None:
        raise FailedPrecondition(
            "The controller is not installed. Install it with: pip install 'accord-rlhf[all]'",
            reason="CONTROLLER_NOT_INSTALLED",
        )
    log = log_path(state_dir)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "accord_controller", "--state-dir", str(state_dir)]
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        # A separate session: Ctrl-C in the terminal reaches only this command, which stops the controller gracefully.
        process = subprocess.Popen(  # noqa: ASYNC220  # returns at once; plain processes outlive the event loop
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                found = discovery.read(state_dir, "controller")
                if found is not None and found.pid == process.pid:
                    return Controller(state_dir, found.address, found.pid, process)
                if process.poll() is not None:
                    if found is not None:
                        return Controller(state_dir, found.address, found.pid, None)
                    raise Unavailable(
                        f"The controller exited on start (exit code {process.returncode}): {_last_line(log, begin)}; "
                        f"see {log}",
                        reason="CONTROLLER_NOT_STARTED",
                    )
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        process.kill()
        raise Unavailable(
            f"The controller was not ready within {START_SECONDS:.0f} s; see {log}", reason="CONTROLLER_NOT_STARTED"
        ) from None
    except asyncio.CancelledError:
        process.terminate()
        raise


def _last_line(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
